"""The studies in a folder, and those beside a study. They may come from anywhere: nothing in them is changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from engine.base.errors import DjsbError
from engine.base.paths import DATABASE, STATE_FOLDER, STUDY_FILE
from engine.journal import setups
from engine.study.view import StudyView, view_study

MOST = 10_000  # entries of a folder that are looked at


def is_study(folder: Path) -> bool:
    """True where a study is, or was run."""
    return (folder / STUDY_FILE).is_file() or (folder / STATE_FOLDER / DATABASE).is_file()


def studies_in(folder: Path) -> list[Path]:
    """The studies that lie in a folder, by name; one of them may be broken. Raises: OSError."""
    found = []
    with os.scandir(folder) as entries:
        for _, entry in zip(range(MOST), entries, strict=False):
            if not entry.name.startswith(".") and entry.is_dir() and is_study(Path(entry.path)):
                found.append(folder / entry.name)
    return sorted(found)


def holds_studies(folder: Path) -> bool:
    """True where a folder is no study itself and has some in it."""
    return folder.is_dir() and not is_study(folder) and bool(studies_in(folder))


def dataset_of(view: StudyView) -> str | None:
    """The content hash of the data that the study's trials train on."""
    found = setups.get(view.store, view.setup)
    return found.dataset if found else None


def same_data(view: StudyView) -> Iterator[StudyView]:
    """The other studies beside this one whose data hold the same bytes, each open while it is looked at.

    One that cannot be read tells nothing and is left out.
    """
    dataset, own = dataset_of(view), view.folder.resolve()
    try:
        beside = studies_in(own.parent)
    except OSError:
        return
    for folder in beside:
        if folder.resolve() == own:
            continue
        try:
            other = view_study(folder, untouched=True)
        except (DjsbError, OSError):
            continue
        with closing(other.store):
            if dataset is not None and dataset_of(other) == dataset:
                yield other
