"""The studies beside a study. They may come from anywhere: nothing in them is changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from engine.base.errors import DjsbError
from engine.base.paths import studies_in
from engine.journal import setups
from engine.study.view import StudyView, view_study


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
