"""A recipe as Data-Juicer YAML, with the evidence that it rests on."""

from __future__ import annotations

import json
from pathlib import Path

from engine.base.errors import OpError, StudyError
from engine.evidence.lineage import last_recipe
from engine.records.pool import Pool, pool_from_json
from engine.study.opened import OpenStudy, view_study

OURS = "# djsb study "  # how every recipe that is written here begins


def find_pool(opened: OpenStudy, wanted: str) -> tuple[Pool, str]:
    """A stored pool and its label by the beginning of its id.

    Raises: StudyError when there is none, or several.
    """
    rows = [r for r in opened.store.query("SELECT id, content, label FROM pools") if r["id"].startswith(wanted)]
    if len(rows) != 1:
        what = "no pool begins" if not rows else f"{len(rows)} pools begin"
        raise StudyError(f"{what} with {wanted!r}; djsb rank names them")
    return pool_from_json(json.loads(rows[0]["content"])), rows[0]["label"]


def recipe(folder: Path, wanted: str | None) -> str:
    """A pool's recipe as YAML; of the confirmed recipe when no pool is named."""
    from engine.data.recipes import recipe_yaml

    opened = view_study(folder)
    best = last_recipe(opened)
    if wanted is None:
        if best is None:
            raise StudyError("no recipe is confirmed yet; run djsb auto to its last stage, or name a pool with --pool")
        wanted = str(best["pool"])
    pool, label = find_pool(opened, wanted)
    if len(pool.layers) > 1:
        raise StudyError(f"pool {pool.id} is a union of layers, which no single recipe keeps; export its rows instead")
    header = [f"djsb study {opened.study.name}, pool {pool.id}: {label}"]
    if best is not None and pool.id == best["pool"]:
        header += [
            *([f"of cycle {best['cycle']}, whose trials started from a checkpoint"] if best["cycle"] > 1 else []),
            f"change against the control: {best['change']:+.1f} % [{best['ci_low']:+.1f}, {best['ci_high']:+.1f}] "
            f"on {best['seeds']} fresh seeds",
            *(f"  {name}: {change:+.1f} %" for name, change in best["metrics"].items()),
            f"keeps {best['kept']} of {best['rows']} rows of {opened.study.dataset.path}",
            f"repetition: on average, up to ×{best['repetition']} did at least as well as adding lower-ranked rows"
            if best["repetition"] > 1
            else "repetition: no rate did as well as adding lower-ranked rows, or none was tried",
        ]
    return recipe_yaml(
        pool.slices,
        opened.study.dataset,
        name=opened.study.name,
        header=header,
        mappers=pool.mappers,
        root=opened.folder,
    )


def write_recipe(folder: Path) -> Path | None:
    """Write the confirmed recipe to `folder/recipe.yaml`; None (and no file) when there is none."""
    from engine.data.recipes import one_line

    file = folder / "recipe.yaml"
    opened = view_study(folder)
    ours = not file.exists() or file.read_text(encoding="utf-8", errors="replace").startswith(OURS)
    if not ours:
        raise StudyError(f"{file} was not written by djsb; move it away, or export elsewhere with djsb export recipe")
    if last_recipe(opened) is None:
        file.unlink(missing_ok=True)  # a recipe that no longer holds must not lie about
        return None
    try:
        text = recipe(folder, None)
    except OpError as error:  # it is confirmed, and no recipe of Data-Juicer says the same
        text = f"{OURS}{one_line(opened.study.name)}: {one_line(str(error))}\n"
    file.write_text(text, encoding="utf-8")
    return file
