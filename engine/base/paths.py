"""Where things are: the console entry, and the names inside a study's folder."""

from __future__ import annotations

from pathlib import Path

from engine.base.addresses import address, local_path
from engine.base.errors import StudyError
from engine.base.remote import is_remote

HOME = Path(__file__).resolve().parents[2]  # the repository, or the package that a wheel installs
ENTRY = next(HOME.glob("djsb.py"), HOME / "__main__.py")
STUDY_FILE = "study.yaml"
STATE_FOLDER = ".djsb"
DATABASE = "study.db"


def folder_of(path: Path) -> Path:
    """The folder that relative paths in a data set start from: itself, or the one that a file or pattern is in."""
    if is_remote(path):
        return path if path.is_dir() else path.parent
    return next(p for p in (path, *path.parents) if p.is_dir())


def resolve(folder: Path, path: str) -> Path:
    """A path of the study file, relative to the study's folder, or what an address like hf://datasets/A/B stands for.

    Raises: StudyError where `~` stands for no folder; DataError where what is at the address is not on this machine.
    """
    try:
        if name := address(path):
            return local_path(name)
        return (folder / Path(path).expanduser()).resolve()
    except (RuntimeError, ValueError) as error:  # ValueError: a null character
        raise StudyError(f"{path!r} names no folder here ({error}); write it in full") from None
