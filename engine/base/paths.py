"""Where things are: the console entry, and the names inside a study's folder."""

from __future__ import annotations

from pathlib import Path

HOME = Path(__file__).resolve().parents[2]  # the repository, or the package that a wheel installs
ENTRY = next(HOME.glob("djsb.py"), HOME / "__main__.py")
STUDY_FILE = "study.yaml"
STATE_FOLDER = ".djsb"
DATABASE = "study.db"


def resolve(folder: Path, path: str) -> Path:
    """A path of the study file, relative to the study's folder."""
    return (folder / Path(path).expanduser()).resolve()
