"""Addresses in place of paths: of files here and elsewhere, `hf://datasets/…` for what the hub's cache holds."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from engine.base.errors import DataError
from engine.base.remote import SCHEMES, remote_path

ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(.+)", re.IGNORECASE | re.DOTALL)
HUB = re.compile(r"datasets/([\w.-]+(?:/[\w.-]+)?)(?:@([^/]+))?((?:/.*)?)")


def address(path: str | Path) -> str | None:
    """`hf://datasets/a/b` of that text, or of the path that it was made into; None for a plain path."""
    found = ADDRESS.fullmatch(str(path))
    if found is None:
        return None
    return f"{found[1].lower()}://{'/' if found[1].lower() == 'file' else ''}{found[2]}"


def local_path(name: str) -> Path:
    """The path that an address stands for. Raises: DataError where there is none, with what to do."""
    scheme, _, rest = name.partition("://")
    if scheme == "file":
        return Path(unquote(rest))
    if scheme == "hf":
        return _of_hub(name, rest)
    if scheme in SCHEMES:
        return remote_path(name)
    raise DataError(f"{name}: addresses of {scheme} are not read; fetch the files, and give their path")


def _of_hub(name: str, rest: str) -> Path:
    """A data set, or a file or folder of one, in the cache of the hub. Nothing is fetched."""
    found = HUB.fullmatch(rest)
    if found is None:
        raise DataError(f"{name} names no data set; write hf://datasets/OWNER/NAME, or …/NAME@REVISION/PATH")
    from huggingface_hub import snapshot_download  # it takes a third of a second to import
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    repo, revision, inner = found[1], found[2], found[3].strip("/")
    try:
        folder = Path(snapshot_download(repo, repo_type="dataset", revision=revision, local_files_only=True))
    except HFValidationError as error:
        raise DataError(f"{name}: {' '.join(str(error).split())}") from None
    except LocalEntryNotFoundError:
        raise DataError(f"{name} is not on this machine; fetch it: {_fetch(repo, revision)}") from None
    path = folder / inner
    if ".." in Path(inner).parts:
        raise DataError(f"{name} leads out of its data set; name a path in it")
    if inner and not path.exists() and not any(sign in inner for sign in "*?[{"):
        raise DataError(f"{name}: {inner} is not on this machine; fetch it: {_fetch(repo, revision)}")
    return path


def _fetch(repo: str, revision: str | None) -> str:
    return f"hf download {repo} --repo-type dataset" + (f" --revision {revision}" if revision else "")
