"""Tars and zips beside a data file: what rows name and is no file is unpacked from them, member by member, no more."""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from engine.base import machine
from engine.base.confine import inside
from engine.base.durable import PART, seal_folder
from engine.base.errors import DataError, StoreError
from engine.base.paths import folder_of
from engine.base.remote import is_remote
from engine.data.dataset import Dataset, as_list
from engine.data.readers.tar_members import BROKEN, LARGEST, Member, members, opened, zipped

ZIP = ".zip"
SUFFIXES = (".tar", ".tar.gz", ".tgz", ZIP)
CHUNK = 5_000
MISSING = "missing file "  # the reason that `locate` gives, before the name
OF_NAME = (None, errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)  # errors of one member's own


def media_root(data: Path, state: Path) -> Path:
    """The folder that relative media paths start from, beside the data file's own: what was unpacked of its tars.

    data: the data file. state: the study's state folder. The data file's folder where nothing was unpacked.
    """
    folder = folder_of(data)
    return _target(data, archives(folder), state) if is_unpacked(data, state) else folder


def is_unpacked(data: Path, state: Path) -> bool:
    """True where something of the tars beside a data file is unpacked."""
    return _target(data, archives(folder_of(data)), state).exists()


def archives(folder: Path) -> list[Path]:
    """Tars and zips in a folder."""
    if is_remote(folder):
        return []  # nothing is unpacked from addresses
    return sorted(p for p in folder.iterdir() if p.name.endswith(SUFFIXES) and p.is_file())


def _target(data: Path, tars: list[Path], state: Path) -> Path:
    stamp = [(t.name, t.stat().st_size, t.stat().st_mtime_ns) for t in tars]
    return state / "media" / hashlib.blake2b(repr((str(data), stamp)).encode(), digest_size=8).hexdigest()


def unpack(data: Dataset, state: Path) -> dict[str, str]:
    """Unpack the media that rows name and that are no files, where a tar or zip beside the data has them.

    Members that are no regular files, are too large or cannot be read are left out: value in the rows → why.
    Raises: DataError when they cannot be written.
    """
    if data.parts:
        return dict(pair for name, part in data.parts.items() for pair in _beside_source(data, name, part))
    folder = folder_of(data.path)
    if not (tars := sorted(set(archives(folder)) - set(data.reader.files))):  # shards are no tars beside the data
        return {}
    target = _target(data.path, tars, state)
    names = _missing(data, (folder, target))
    refused: dict[str, str] = {}
    broken: list[str] = []
    for tar in tars if names else ():
        try:
            for member in (zipped if tar.name.endswith(ZIP) else _of_tar)(tar, broken):
                name = posixpath.normpath(member.name)
                if name not in names:
                    continue
                if why := _write(member, target, name):
                    refused[name] = f"in {tar.name} it {why}"
                else:
                    del names[name]
        except BROKEN as error:
            machine.refuse(error, str(tar))
            broken.append(f"{tar.name} is broken: {error or type(error).__name__}")
    if target.exists():
        seal_folder(target)
    why = "; ".join(dict.fromkeys(broken))
    return {v: refused.get(n, why) for n, values in names.items() for v in values if why or n in refused}


def _of_tar(tar: Path, broken: list[str]) -> Iterator[Member]:
    """The members of a tar; what is told of bad headers goes to `broken`. Raises: BROKEN."""
    says = f"{tar.name} is broken: it has a bad header"
    with opened(tar) as (archive, plain):
        for info in members(archive, plain, lambda _: broken.append(says)):
            regular = info.isfile() and not info.issparse()
            yield Member(info.name, info.size, regular, partial(archive.extractfile, info))


def _beside_source(data: Dataset, name: str, part: Dataset) -> Iterator[tuple[str, str]]:
    """(value in the rows, why it is not there) of the media of one of several sources, where a tar is beside them."""
    tars = set(archives(folder_of(part.path))) - set(part.reader.files)
    if tars:
        says = f"{min(tars).name} beside source {name} is not unpacked; unpack it, or give it as the source's path"
        for values in _missing(data, (data.path, data.path), data.spans[name]).values():
            yield from ((value, says) for value in values)


def explained(reason: str, refused: dict[str, str]) -> str:
    """Why a row is bad, with what `unpack` says of the file that is missing."""
    name = reason.removeprefix(MISSING)
    return f"{reason}: {refused[name]}" if name in refused and name != reason else reason


def _missing(data: Dataset, places: tuple[Path, Path], span: range | None = None) -> dict[str, set[str]]:
    """Member's name → the values in the rows that mean it, of all media that are no files in these places.

    span: the rows that are looked at; None: all.
    """
    found: dict[str, set[str]] = {}
    fields = [name for name in (data.fields.images, data.fields.videos) if name]
    span = range(len(data)) if span is None else span
    for start in span[::CHUNK] if fields else ():
        for row in data.reader.read(start, min(start + CHUNK, span.stop)):
            for value in (v for name in fields for v in as_list(row.get(name))):
                path = value.get("path") if isinstance(value, dict) and not value.get("bytes") else value
                if isinstance(path, str) and not any((place / path).is_file() for place in places):
                    found.setdefault(posixpath.normpath(path), set()).add(path)
    return found


def _write(member: Member, target: Path, name: str) -> str | None:
    """Write one member, whole or not at all; why it is left out, or None. Raises: DataError for a full disk."""
    if not member.regular:
        return "is no regular file"
    if member.size > LARGEST:
        return f"has {member.size} bytes, more than {LARGEST}"
    try:
        file = inside(target, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(file.parent).free < member.size:
            raise DataError(f"{target} has no space for {member.size} bytes of media in an archive; free some space")
        content = member.content()
        assert content is not None  # a regular file has content
        part = file.with_name(f"{PART}{os.getpid()}-{file.name}"[:200])
        try:
            with part.open("wb") as out:
                shutil.copyfileobj(content, out)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
    except StoreError:
        return "leads out of the study"
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno not in OF_NAME:
            raise DataError(f"{target} cannot be written ({error.strerror}); check the free space") from error
        machine.refuse(error, str(target))
        return f"is broken: {error or type(error).__name__}"
    return None
