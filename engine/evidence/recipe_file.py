"""A recipe as Data-Juicer YAML, with the evidence that it rests on."""

from __future__ import annotations

from pathlib import Path

from engine.base.confine import inside
from engine.base.errors import OpError, StudyError
from engine.base.ids import by_beginning
from engine.evidence.guards import told
from engine.evidence.recipe import standing_recipe
from engine.journal import pools
from engine.journal.pools import StoredPool
from engine.records.leaderboard import CycleRecipe, bound_text
from engine.records.pool import SCORES
from engine.study.setting import shown
from engine.study.view import StudyView, view_study

OURS = "# djsb study "  # how every recipe that is written here begins


def find_pool(view: StudyView, start: str) -> StoredPool:
    """The stored pool whose id begins so. Raises: StudyError when there is none, or several."""
    matches = {pool.id: pool for pool in pools.beginning(view.store, start)}
    return matches[by_beginning(matches, start, f"no pool begins with {start!r}; djsb rank names them")]


def recipe(folder: Path, start: str | None) -> str:
    """A pool's recipe as YAML, by the beginning of its id; of the confirmed recipe when none is named."""
    from engine.data.recipes import recipe_yaml

    view, of_setting = shown(view_study(folder))
    best = standing_recipe(view)
    if start is None and best is None:
        raise StudyError("no recipe is confirmed yet; run djsb auto to its last stage, or name a pool with --pool")
    found = find_pool(view, best.pool if start is None and best else str(start))
    pool = found.pool
    if pool.max_repeats is not None:
        raise OpError(f"pool {pool.id} is a mixture, which no recipe keeps; write its rows: djsb export pool")
    if len(pool.layers) > 1:
        raise StudyError(f"pool {pool.id} is a union of layers, which no single recipe keeps; export its rows instead")
    header = [f"djsb study {view.study.name}, pool {pool.id}: {found.label}"]
    if best is not None and pool.id == best.pool:
        header += [
            *([of_setting] if of_setting else []),
            *([f"of cycle {best.cycle}, whose trials started from a checkpoint"] if best.cycle > 1 else []),
            f"change against the control: {_told(best, view.study.search.confidence)} on {best.seeds} fresh seeds",
            *(f"  {name}: {change:+.1f} %" for name, change in best.metrics.items()),
            *(f"guard: {told(guard)}" for guard in best.guards),
            f"keeps {best.kept} of {best.rows} rows of {view.study.dataset.places}",
            f"repetition: on average, up to ×{best.repetition} did at least as well as adding lower-ranked rows"
            if best.repetition > 1
            else "repetition: no rate did as well as adding lower-ranked rows, or none was tried",
        ]
    if any(dict(s.params).get(SCORES) for s in pool.slices):
        joined = " ".join(f"--scores {s.path} --key {s.key}" for s in view.study.dataset.scores)
        header.append(f"its rows need scores as fields: djsb apply … {joined}, or the rows of djsb export pool")
    return recipe_yaml(
        pool.slices,
        view.study.dataset,
        name=view.study.name,
        header=header,
        mappers=pool.mappers,
        root=view.folder,
    )


def _told(best: CycleRecipe, confidence: float) -> str:
    """Its change with the one-sided bound of the claim, and the two-sided interval."""
    interval = f"[{best.ci_low:+.1f}, {best.ci_high:+.1f}]"
    if best.bound is None:
        return f"{best.change:+.1f} % {interval}"
    least = bound_text(best.verdict, best.bound)
    return f"{best.change:+.1f} %, {least} (one-sided, at {100 * confidence:g} %; two-sided interval {interval})"


def write_recipe(folder: Path) -> Path | None:
    """Write the confirmed recipe to `folder/recipe.yaml`; None (and no file) when there is none."""
    from engine.data.recipes import one_line

    file = inside(folder, "recipe.yaml")
    ours = not file.exists() or file.read_text(encoding="utf-8", errors="replace").startswith(OURS)
    if not ours:
        raise StudyError(f"{file} was not written by djsb; move it away, or export elsewhere with djsb export recipe")
    view, _ = shown(view_study(folder))
    if standing_recipe(view) is None:
        file.unlink(missing_ok=True)  # a recipe that no longer holds must not lie about
        return None
    try:
        text = recipe(folder, None)
    except OpError as error:  # it is confirmed, and no recipe of Data-Juicer says the same
        text = f"{OURS}{one_line(view.study.name)}: {one_line(str(error))}\n"
    file.write_text(text, encoding="utf-8")
    return file
