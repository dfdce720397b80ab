"""A recipe run on a full dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.text.printable import say
from engine.base.errors import StudyError
from engine.base.paths import resolve
from engine.data.apply_recipe import apply_recipe
from engine.settings.data import ScoreFileSection
from engine.settings.running import ExecutorSection
from engine.study.known import known_rows


@dataclass(frozen=True)
class Form:
    """What an output is to look like. name: of its format; None: as the file is called. See `output.planned`."""

    name: str | None = None
    shard_rows: int | None = None
    with_media: bool = False
    force: bool = False


def apply(
    recipe_file: Path,
    data: Path,
    out: Path,
    form: Form,
    study: Path | None,
    workers: int | None,
    notice: Callable[[str, int, int], None],
    executor: ExecutorSection,
    scores: Sequence[ScoreFileSection] = (),
) -> dict[str, Any]:
    """Run a recipe on a full dataset; what it did. study: whose statistics are used where they are of the same rows.

    scores: files whose columns the rows get as fields.
    """
    try:
        text = recipe_file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise StudyError(f"{recipe_file} is no text file; give a recipe's YAML") from error
    home = recipe_file.resolve().parent
    data = resolve(Path.cwd(), str(data))
    with _crew(executor, workers, out, (data, home, *(Path(section.path) for section in scores))):
        done = apply_recipe(
            text, str(recipe_file), data, out, root=home, overwrite=form.force, form=form.name,
            shard_rows=form.shard_rows, with_media=form.with_media, workers=workers,
            scores=scores, known=lambda recipe, rows: known_rows(study or home, recipe, rows, named=study is not None),
            progress=lambda rows, total: notice("rows judged", rows, total),
        )  # fmt: skip
    return {
        "rows_in": done.rows_in, "rows_out": done.rows_out, "quarantined": done.quarantined,
        **({"rewritten": done.rewritten, "left_as_they_were": dict(done.kept)} if done.rewritten or done.kept else {}),
        **({"alike": done.alike} if done.alike else {}),
        **({"cached": list(done.known)} if done.known else {}),
        "bad": [{"row": row, "reason": why} for row, why in done.bad], "out": str(out),
    }  # fmt: skip


def _crew(
    executor: ExecutorSection, workers: int | None, out: Path, shared: tuple[Path, ...]
) -> AbstractContextManager[None]:
    """Within the block, rows are judged by this executor."""
    if executor.kind == "local":
        return nullcontext()
    from engine.data.cluster_chunks import on_cluster  # Ray takes a second to import

    folder = next(folder for folder in out.absolute().parents if folder.is_dir())
    return on_cluster(executor, workers, folder, shared, lambda text: say(text, err=True))
