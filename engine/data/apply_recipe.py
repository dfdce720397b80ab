"""Apply a recipe to a full dataset: the rows that `dj-process` would keep, as they were.

Filters are judged chunk by chunk (`selection`), and what stays is written while the next chunks are judged. A command
that was killed goes on where it was.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.base.confine import inside
from engine.base.errors import DataError, OpError
from engine.base.ids import content_id
from engine.base.paths import folder_of
from engine.data import datajuicer
from engine.data.catalogue import MAPPERS_FIXED, mapper_fields
from engine.data.dataset import Dataset
from engine.data.ops.needs import missing_needs
from engine.data.output import Chunk, Output, planned, working
from engine.data.placement import Placement
from engine.data.recipes import Recipe, read_recipe
from engine.data.rows_file import Change, Numbers
from engine.data.selection import CHUNK, Known, Progress, select
from engine.data.tars import explained, media_root, unpack
from engine.data.writing import Told, Writer, placed
from engine.records.pool import MapperStep
from engine.settings.data import DatasetSection, ScoreFileSection

if TYPE_CHECKING:
    from engine.data.mappers import MapperRun

LISTED = 100  # bad rows that are named one by one


@dataclass(frozen=True)
class Applied:
    """What a recipe did. rows_in = rows_out + quarantined + alike + what the filters dropped.

    quarantined: rows that were never judged, as they cannot be read. bad: (row, reason) of the first of them.
    rewritten: rows that mappers changed. kept: reason → rows that a mapper was to change and could not, which stay as
    they were. alike: rows that deduplicators left out. known: filters whose statistics were there.
    """

    rows_in: int
    rows_out: int
    quarantined: int = 0
    bad: tuple[tuple[int, str], ...] = ()
    rewritten: int = 0
    kept: Mapping[str, int] = field(default_factory=dict)
    known: tuple[str, ...] = ()
    alike: int = 0


def apply_recipe(
    recipe_text: str,
    where: str,
    data: Path,
    out: Path,
    *,
    root: Path | None = None,
    overwrite: bool = False,
    form: str | None = None,
    shard_rows: int | None = None,
    with_media: bool = False,
    scores: Sequence[ScoreFileSection] = (),
    known: Callable[[Recipe, Dataset], Known] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Applied:
    """Write the rows of `data` that a recipe keeps to `out`, in order, with all their columns.

    Mappers then rewrite the text or the images of these rows; new images lie in a folder beside the rows' file.

    where: names the recipe in errors. out: a file, or a folder of shards. root: folder that the recipe's model paths
    start from (default: the working directory). overwrite: replace what is there. form: of the file, where its name
    does not say it. shard_rows: rows of a shard. with_media: copy all media beside the rows. scores: files whose
    columns the rows get as fields. known: says what a study has computed of the same rows. workers: processes (default:
    as the recipe says).

    Raises: StudyError or OpError for a recipe that is not allowed or cannot run here, DataError for data or an output
    that is not usable.
    """
    recipe = read_recipe(recipe_text, where, root or Path())
    for name, params in recipe.filters:
        if reason := missing_needs(name, dict(params)):
            raise OpError(f"{where}: {name} {reason}")
    output = planned(out, form, shard_rows, overwrite, with_media or bool(_mapped(recipe)))
    names = {"text": recipe.text, "images": recipe.images, "videos": recipe.videos}
    rows = Dataset(data, DatasetSection.model_validate({"path": str(data), **names, "scores": scores})).joined
    stamps = [(str(file), stat.st_size, stat.st_mtime_ns) for file in rows.reader.files for stat in (file.stat(),)]
    identity = content_id([
        stamps, rows.key, repr(recipe.process), output.form, output.shard_rows, with_media, datajuicer.version()
    ])  # fmt: skip
    have = known(recipe, rows) if known else Known()
    with working(output, rows, identity) as log:
        refused = unpack(rows, output.work) if recipe.images or recipe.videos else {}
        media = media_root(rows.path, output.work) if recipe.images or recipe.videos else folder_of(rows.path)
        mapped = frozenset([recipe.images or ""] if _mapped(recipe) else [])
        placement = None if output.form == "webdataset" else placed(rows, media, output, with_media, mapped)
        mapping = _Mapping(recipe, rows, media, root or Path(), output)
        writer = Writer(output, rows, media, log, lambda kept: mapping.prepare(kept, placement))
        said = _Bad(refused)
        stay = np.zeros(len(rows), bool) if recipe.deduplicators else None
        kept = _write(select(recipe, where, rows, media, have, log, workers or recipe.np, progress), writer, said, stay)
        if said.rows == len(rows):
            reason, n = said.reasons.most_common(1)[0]
            raise DataError(f"no row of {data} can be read for {where}: {n} × {reason}; check the recipe's fields")
        if not kept:
            _refuse_absent(recipe, where, rows)
        if stay is not None:
            from engine.data.dedup import without_alike  # start-up time: most recipes have none

            stay = without_alike(recipe.deduplicators, rows, stay, output.work, workers or recipe.np, progress)
            writer.add(np.flatnonzero(stay))
        writer.close()
    names_known = tuple(name for name, _ in recipe.filters if name in have.columns)
    told = writer.told
    return Applied(
        len(rows), writer.rows, said.rows, tuple(said.first), told.rewritten, dict(told.kept), names_known,
        kept - writer.rows,
    )  # fmt: skip


def _write(chunks: Iterator[Chunk], writer: Writer, said: _Bad, stay: NDArray[np.bool_] | None) -> int:
    """Write the rows that filters keep, or mark them in `stay` for deduplicators; how many there are."""
    kept = 0
    for chunk in chunks:
        said.add(chunk.bad)
        kept += len(chunk.kept)
        if stay is None:
            writer.add(chunk.kept)
        else:
            stay[chunk.kept] = True
    return kept


def _refuse_absent(recipe: Recipe, where: str, rows: Dataset) -> None:
    """Raises: OpError for a filter by a field that no row has. dj-process fails on it."""
    asked = {str(p["field_key"]).partition(".")[0]: name for name, p in recipe.filters if p.get("field_key")}
    for chunk in rows.chunks(CHUNK) if asked else ():
        there = {key for row in rows.reader.read(*chunk) for key in row}
        asked = {key: name for key, name in asked.items() if key not in there}
    for key, name in asked.items():
        raise OpError(
            f"{where}: no row has a {key}, which {name} reads; give data that have it, or the file that holds it as "
            "--scores with its --key"
        )


def _mapped(recipe: Recipe) -> list[str]:
    """The mappers that change images."""
    return [name for name, _ in recipe.mappers if mapper_fields(name)[1] == "image"]


class _Bad:
    """Rows that were never judged. refused: why a tar beside the data did not give a file."""

    def __init__(self, refused: dict[str, str]) -> None:
        self.rows, self.first, self.reasons = 0, list[tuple[int, str]](), Counter[str]()
        self._refused = refused

    def add(self, bad: tuple[tuple[int, str], ...]) -> None:
        """Those of a chunk."""
        told = [(row, explained(reason, self._refused)) for row, reason in bad]
        self.first += told[: LISTED - len(self.first)]
        self.rows += len(bad)
        if len(self.reasons) < LISTED:
            self.reasons.update(why for _, why in told)


class _Mapping:
    """The recipe's mappers, run over the rows of one shard at a time."""

    def __init__(self, recipe: Recipe, rows: Dataset, media: Path, root: Path, output: Output) -> None:
        self._run: MapperRun | None = None
        self._workers, self._output = recipe.np, output
        if not recipe.mappers:
            return
        from engine.data.mappers import MapperRun  # start-up time: most recipes have none

        own = {name: (*MAPPERS_FIXED.get(name, {}), "caption_key") for name, _ in recipe.mappers}
        steps = tuple(
            MapperStep(name, tuple(sorted((k, v) for k, v in params.items() if k not in own[name])))
            for name, params in recipe.mappers
        )
        folder = (output.work / "rewritten").resolve()
        self._run = MapperRun(rows, media, steps, root, folder, anywhere=True)

    def prepare(self, kept: Numbers, placement: Placement | None) -> tuple[Change | None, Told]:
        """How rows that stay are changed, and what was done to them."""
        place = placement if placement and placement.changes else None
        work = self._run
        if work is None or not len(kept):
            return (place.change if place else None), Told()
        for _ in work.run(kept, self._workers):
            pass
        summary = work.summary(kept)
        inner = placement is None  # samples hold their images
        if "image" in work.changes and not inner:
            self._put(work, kept)
        media, relative = (work.folder / "media", None) if inner else (self._output.media, self._output.folder)
        mapped = work.changed(kept, False, media, relative)
        told = Told(summary.changed, Counter(summary.kept))
        return (mapped if place is None else lambda n, rows: mapped(n, place.change(n, rows))), told

    def _put(self, work: MapperRun, kept: Numbers) -> None:
        """Link the new images into their folder."""
        media = self._output.media
        media.mkdir(exist_ok=True)
        for name in work.images(kept):
            target = inside(media, name)
            target.unlink(missing_ok=True)
            try:
                os.link(inside(work.folder, f"media/{name}"), target)
            except OSError:  # a file system without links
                shutil.copyfile(inside(work.folder, f"media/{name}"), target)
