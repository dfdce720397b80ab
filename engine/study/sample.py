"""A study on a sample of its training rows: what can be said of its task before the caches of all rows are made."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.base.durable import is_whole, written_whole
from engine.base.ids import content_id
from engine.base.paths import folder_of
from engine.data.dataset import Dataset, as_list, json_line
from engine.data.dedup import is_heavy, result_file
from engine.data.look import sampled
from engine.data.media import Unreadable, locate
from engine.data.scan import leave_out
from engine.data.tars import media_root
from engine.study.opened import OpenStudy
from engine.tasks.contract import Form, Rows

ROWS = 512  # of a sample, at least
CLIPS = 64  # of a sample where there are videos
WHOLE = 4  # samples up to which a study is small: all its rows are looked at
FOLDER = "sample"


def rows_of(opened: OpenStudy) -> int:
    """Rows of a sample of the study's data."""
    least = CLIPS if opened.data.fields.videos else ROWS
    return max(least, 2 * opened.study.train.batch_size)


@dataclass(frozen=True)
class Seen:
    """study: with the task's caches of so many training rows, and of all the evaluation. whole: they are all rows."""

    study: OpenStudy
    rows: int
    whole: bool


def look_at(opened: OpenStudy, decode: bool = True) -> Seen:
    """The study on a sample; a small one, or one whose caches are there, as it is.

    decode: False where nothing of a larger study may be decoded beforehand, whatever it says.
    Raises: StudyError, DataError.
    """
    if "prepared" in opened.__dict__ or is_small(opened):
        return all_rows(opened)
    data = _sample(opened)
    good = np.ones(len(data), bool)
    other = copy.copy(opened)
    if not decode:
        other.forms = {which: _undecoded(form) for which, form in opened.forms.items()}
    while True:
        try:
            train = Rows(data, data.path.parent, good, form=other.forms.get("train", "raw"))
            other.prepared = other.prepare(train)
            other.setup = opened.setup
            return Seen(other, len(data), False)
        except Unreadable as error:
            if error.data.path == data.path:
                good[list(error.rows)] = False
                if not good.any():
                    raise
            else:
                leave_out(error.data, opened.store, opened.state, error.rows)
                for study in (opened, other):
                    study.__dict__.pop("evaluation_scan", None)


def is_small(opened: OpenStudy) -> bool:
    """True for a study whose caches are made nearly as fast as those of a sample."""
    return len(opened.data) <= WHOLE * rows_of(opened)


def skip_search(opened: OpenStudy) -> str | None:
    """Take all rows of a large study for good, before its duplicates were searched; a line that says so.

    None where nothing is to be searched, or it was, or it takes little time.
    """
    section, good = opened.study.dedup, opened.scanned.good
    if is_small(opened):
        return None
    later = "djsb pools, djsb auto and djsb check --deep do, before pools are cut"
    if is_heavy(section) and not is_whole(result_file(section, opened.data, good, opened.state)):
        opened.scan = opened.deduplicated = opened.scanned
        return f"dedup: duplicates are not searched yet; {later}"
    if opened.study.evaluation.overlap != "warn" and not opened.comparison.is_known:
        opened.scan = opened.deduplicated
        return f"evaluation.overlap: not all rows are compared with the evaluation yet; {later}"
    return None


def all_rows(opened: OpenStudy) -> Seen:
    """The study as it is, whose caches are made where they are not."""
    _ = opened.prepared
    return Seen(opened, len(opened.data), True)


def _undecoded(form: Form) -> Form:
    return "exact" if form == "raw" else form


def _sample(opened: OpenStudy) -> Dataset:
    """Good rows from all over the data, in a file of their own; media that lie in rows are files beside it."""
    data, good = opened.data, opened.scanned.good
    key = content_id([data.fingerprint, data.key, rows_of(opened), int(good.sum())])
    folder = opened.state / "cache" / FOLDER / key
    if not is_whole(folder):
        root = media_root(data.path, opened.state)
        with written_whole(folder) as part:
            part.mkdir(parents=True)
            rows = [_row(row, n, data, root, part) for n, (_, row) in enumerate(sampled(data, good, rows_of(opened)))]
            text = "".join(json_line(row, repr) + "\n" for row in rows)
            (part / "rows.jsonl").write_text(text, encoding="utf-8")
    section = data.fields.model_copy(update={"path": str(folder / "rows.jsonl"), "split": None, "sources": {}})
    return Dataset(folder / "rows.jsonl", section, data.index)


def _row(row: dict[str, Any], number: int, data: Dataset, root: Path, folder: Path) -> dict[str, Any]:
    """A row whose media are found from the sample."""
    beside = folder_of(data.path)
    found = dict(row)
    for field in filter(None, (data.fields.images, data.fields.videos)):
        paths = []
        for at, value in enumerate(as_list(row.get(field))):
            source = locate(value, root, beside)
            if isinstance(source, bytes):
                name = f"{number}-{at}"
                (folder / name).write_bytes(source)
                paths.append(name)
            else:
                paths.append(str(source.absolute()))
        found[field] = paths
    return found
