"""What a study has computed of the rows that a recipe is applied to."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np

from engine.base.confine import inside, refuse_links
from engine.base.durable import is_whole
from engine.base.errors import DjsbError, StudyError
from engine.base.paths import DATABASE, STATE_FOLDER, resolve
from engine.data import stat_files
from engine.data.columns import column_runs
from engine.data.dataset import Dataset
from engine.data.field_entries import statistic_key
from engine.data.recipes import Recipe
from engine.data.scan import quarantine_id
from engine.data.selection import Known, own_params
from engine.data.statistics import plan_ops
from engine.journal.store import Store
from engine.study.file import read_study
from engine.study.view import store_to_read


def known_rows(folder: Path, recipe: Recipe, rows: Dataset, named: bool) -> Known:
    """The scan and the statistics of the study in a folder, where it is of the same file and the same fields.

    named: a person has named the study. Raises: StudyError where it has no statistics then.
    """
    try:
        state = inside(folder.resolve(), STATE_FOLDER)
        if not (state / DATABASE).is_file():
            raise StudyError(
                f"{folder} holds no study with statistics; compute them with djsb pools, or leave --dir out"
            )
        refuse_links(folder.resolve(), STATE_FOLDER)
        with closing(store_to_read(state)) as store:
            return _known(folder, state, store, recipe, rows)
    except DjsbError:
        if named:
            raise
        return Known()  # a folder beside the recipe that is no sound study: all is computed


def _known(folder: Path, state: Path, store: Store, recipe: Recipe, rows: Dataset) -> Known:
    section = read_study(folder).dataset
    kept = state / "cache" / "rows"
    data = Dataset(resolve(folder, section.path), section, kept if kept.is_dir() else None, folder)
    names = (section.text, section.images, section.videos)
    asked = (recipe.text, recipe.images, recipe.videos)
    same = all(ours in (theirs, None) for ours, theirs in zip(asked, names, strict=True))
    if data.path.resolve() != rows.path.resolve() or not same:
        return Known()
    scan = state / "cache" / f"scan-{quarantine_id(data)}.npz"
    if not is_whole(scan, sums=True):
        return Known()
    with np.load(scan) as saved:
        good = saved["good"]
    own = section.model_copy(update={"scores": ()})  # the rows of the recipe may have other scores
    fields = {statistic_key(run.name, dict(run.params)): run for run in column_runs(own, data)}
    asked_of_fields = [fields[key] for entry in recipe.filters if (key := statistic_key(*entry)) in fields]
    others = {entry[0]: own_params(entry) for entry in recipe.filters if "field_key" not in entry[1]}
    runs = [*plan_ops(others, data, folder)[0], *(run for run in asked_of_fields if run.kind == "number")]
    columns = {
        statistic_key(run.name, dict(run.params)): {
            c.statistic: (c.column.low, c.column.high) for c in stat_files.load(run, state)
        }
        for run in runs
        if stat_files.is_complete(run, len(good), store, state)
    }
    return Known(good, columns)
