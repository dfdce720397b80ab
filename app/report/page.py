"""The report: one HTML file that needs nothing else, and its figures as PNG.

Reads the study's database, the images that it names as examples of rewritten rows, and rows of the data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.report import charts_course, charts_evidence, charts_mixtures, charts_structure
from app.report import data as report_data
from app.report.figures import PALETTE, SYMBOLS, Picture, clean, interval, percent, picture
from app.report.pipelines import only_pipelines, pipelines
from app.text.contents import changed
from app.text.lineage import flops_text, line_text, moves_text, stability_text
from app.text.mappers_and_prompts import compared
from app.text.numbers import chance, common_notes, folded, measured
from engine.base.amounts import format_seconds
from engine.base.confine import inside
from engine.base.durable import replaced
from engine.base.errors import DjsbError
from engine.evidence.answer import answer
from engine.evidence.lineage import lineage
from engine.evidence.mapped import judged
from engine.evidence.ranking import RECIPES, Ranked, degenerate, rank
from engine.evidence.sentences import change_text, insights
from engine.evidence.stability import stability
from engine.journal import events, metrics, results, setups, trials, usage
from engine.journal.store import Row
from engine.proposals.kinds import prompt as prompting
from engine.proposals.kinds.transfer import scaling
from engine.records.answer import Answer
from engine.records.leaderboard import bound_text
from engine.study.setting import shown
from engine.study.view import StudyView, view_study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = (
    "leaderboard", "buckets", "statistics", "metrics", "lattice", "mixtures", "repetition", "confirmation", "budget",
    "curves",
)  # fmt: skip
TAKEN = {"cpu": "CPU %", "memory": "memory", "gpu": "GPU %", "gpu_memory": "GPU memory", "gpu_power": "power"}
THUMBNAIL = 128  # pixels of the longer side
NAMED = 3  # pools that the summary names of each kind


def write_report(folder: Path, out: Path | None) -> Path:
    """Write `out/report.html` and `out/figures/*.png`; out is `folder/report` by default.

    Raises: StudyError, StoreError when there is nothing to report on.
    """
    folder = folder.resolve()
    out = out if out is not None else inside(folder, "report")
    if runs := only_pipelines(folder):
        return _write(out, render({"pipelines": runs}, {}, "pipelines_page.html.j2"))
    opened = view_study(folder)
    with opened.store:
        content = gather(opened)
    pictures = {p.name: p for p in draw(content)}
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name in FIGURES:
        file = inside(out, f"figures/{name}.png")
        if name in pictures:
            file.write_bytes(pictures[name].png)
        else:
            file.unlink(missing_ok=True)  # of an earlier report; it no longer holds
    return _write(out, render(content, pictures))


def _write(out: Path, text: str) -> Path:
    page = out / "report.html"
    with replaced(page) as scratch:
        scratch.write_text(text, encoding="utf-8", errors="replace")
    return page


def figures(folder: Path) -> dict[str, Picture]:
    """The figures that there is data for, by name. Raises: StudyError, StoreError."""
    opened = view_study(folder.resolve())
    with opened.store:
        return {p.name: p for p in draw(gather(opened))}


def render(content: Row, pictures: Mapping[str, Picture], template: str = "page.html.j2") -> str:
    """The page. Every value is escaped, except the SVG that `figures` made."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent, chance=chance, clean=clean, when=when, seconds=format_seconds, count=lambda n: f"{n:,}",
        plural=lambda n, one, many=None: f"{n:,} {one if n == 1 else many or one + 's'}",
    )  # fmt: skip
    environment.globals.update(
        interval=interval, symbols=SYMBOLS, palette=PALETTE, svg=lambda drawn: Markup(drawn.svg), number=number,
        term_size=term_size, moves_text=moves_text,
        places=report_data.places, flops_text=flops_text, line_text=line_text,
        thumbnail=thumbnail, compared=compared, changed=changed, bound_text=bound_text, change_text=change_text,
        common_notes=common_notes, some_have=some_have,
    )  # fmt: skip
    environment.tests["folded"] = folded
    return environment.get_template(template).render(content, pictures=pictures)


def thumbnail(file: str | None) -> str:
    """A small copy of an image as a data URI; nothing when it is gone or lies in the row itself."""
    import base64
    import io

    from engine.data.images import open_image

    try:
        image = open_image(Path(file or ""), 2 * THUMBNAIL)
    except (OSError, ValueError):
        return ""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    out = io.BytesIO()
    image.save(out, format="PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def when(at: str) -> str:
    """A stored time, to the minute."""
    return datetime.fromisoformat(at).strftime("%Y-%m-%d\u00a0%H:%M")


def some_have(rows: Sequence[Row], *names: str) -> dict[str, bool]:
    """Whether any row has a value under each name."""
    return {name: any(r[name] is not None for r in rows) for name in names}


def term_size(z: float, terms: Sequence[Row]) -> str:
    """Size of a bucket's word in ems, 0.9 … 1.8, by its place between nothing and the clearest one."""
    return f"{0.9 + 0.9 * z / max(t['z'] for t in terms):.2f}"


def number(value: float | None, digits: int = 4) -> str:
    """A score in significant figures."""
    return "–" if value is None else f"{value:.{digits}g}".replace("-", "\u2212")


def gather(opened: StudyView) -> Row:
    """Everything that the template names, but the figures."""
    told = answer(opened)
    opened, _ = shown(opened)
    store, setup, study = opened.store, opened.setup, opened.study
    ranked = rank(opened, RECIPES)
    left_out = [r.entry().to_json() for r in degenerate(opened)]
    content: Row = {
        "study": study,
        "pipelines": pipelines(store),
        "setup": setup,
        "recorded": setups.get(store, setup),
        "tested": [r.entry().to_json() for r in ranked],
        "tables": report_data.alike(ranked),
        "left_out": left_out,
        "unprobed": report_data.unprobed(opened),
        "duplicates": _json(results.DUPLICATES.get(store, setup)),
        "metric_names": [m.name for m in opened.main_metrics],
        "buckets": report_data.probed(opened, ranked, left_out),
        "statistics": _json(results.STATISTICS.get(store, setup)),
        "metrics": _json(results.METRICS.get(store, setup)),
        "lattice": report_data.combined(ranked),
        "mixtures": report_data.mixed(opened),
        "scale": report_data.scaled([a.to_json() for a in results.SCALE.get(store, setup) or ()]),
        "candidates": [] if (withheld := _withheld(opened)) else report_data.confirmed(opened),
        "withheld": withheld,
        "recipe": _json(results.RECIPE.get(store, setup)),
        "lineage": [c.to_json() for c in lineage(opened)],
        "scaling": _json(scaling(opened)),
        "stability": stability_text(asdict(held)) if (held := stability(opened)).agreements else [],
        "mapped": [m.to_json() for m in judged(opened)],
        "prompts": _json(prompting.table(opened)),
        "answer": told,
        "contents": report_data.kept_and_dropped(opened, told, ranked),
        "spent": report_data.spent(opened),
        "usage": usage.over_trials(store, setup),
        "progress": report_data.progress(opened),
        "decisions": report_data.decided(opened),
        "insights": {stage: [asdict(s) for s in lines] for stage, lines in insights(opened).items()},
        "undecided": report_data.undecided(opened),
        "warnings": events.warnings(store),
        "failed": trials.failed(store, setup),
        "last": events.last_time(store),
    }
    content["curve_name"], content["curves"] = _curves(opened, content["recipe"], ranked)
    content["yaml"], content["no_recipe"] = _recipe(opened, told)
    content["summary"] = summary(content)
    return content


def _withheld(opened: StudyView) -> bool:
    """True while fresh seeds of the confirmation are missing: they are read once, when all are there."""
    if not metrics.by_pool(opened.store, opened.setup, True, ("confirm",)):
        return False
    read = results.RECIPE.at(opened.store, opened.setup) is not None
    return not read or results.UNCONFIRMED.get(opened.store, opened.setup) is not None


def _json(record: Any) -> Any:
    """A record as the template and the charts read it; None where there is none."""
    return None if record is None else record.to_json()


def _curves(opened: StudyView, recipe: Row | None, ranked: Sequence[Ranked]) -> tuple[str, list[report_data.Curve]]:
    """Of the recipe and its control; without a recipe, of the pool that ranks first."""
    if recipe is not None:
        return report_data.trained(opened, recipe["pool"], recipe["samples"], recipe["label"])
    first = next((r for r in ranked if r.effect.change is not None), None)
    return report_data.trained(opened, first.pool.id, first.samples, first.label) if first else ("", [])


def _recipe(opened: StudyView, told: Answer) -> tuple[str | None, str]:
    """(YAML, why there is none)."""
    if told.recipe is None:
        return None, told.text
    from engine.evidence.recipe_file import recipe

    try:
        return recipe(opened.folder, told.recipe.pool), ""
    except DjsbError as error:
        return None, f"The recipe cannot be written ({error})."


def draw(content: Row) -> list[Picture]:
    """The figures that there is data for."""
    confidence = content["study"].search.confidence
    ranked = [r for r in content["tested"] if r["change"] is not None and not folded(r)]
    buckets, lattice, spent, curves = (content[k] for k in ("buckets", "lattice", "spent", "curves"))
    mixtures = content["mixtures"]
    scale = {k: rows for k, rows in content["scale"].items() if any(r["change"] is not None for r in rows)}
    candidates = [c for c in content["candidates"] if c.effect.change is not None]
    wanted: list[tuple[str, str, Any, Callable[[], Figure]]] = [
        ("leaderboard", f"Forest plot of {len(ranked)} pools; the table below holds the same numbers", ranked,
         lambda: charts_evidence.forest(ranked, confidence)),
        ("buckets", "Change of every bucket of every statistic; the table below holds the same numbers", buckets.cells,
         lambda: charts_evidence.buckets(buckets.cells, buckets.statistics, buckets.columns)),
        ("statistics", "Correlations between statistics, in cluster order", content["statistics"],
         lambda: charts_structure.correlation(content["statistics"])),
        ("metrics", "Correlations between metrics", content["metrics"],
         lambda: charts_structure.correlation(content["metrics"])),
        ("lattice", "Combinations of slices by number of slices", lattice,
         lambda: charts_structure.lattice(lattice.levels, lattice.letters)),
        ("mixtures", "Expected change over the weights of sources; the table below holds those that ran", mixtures,
         lambda: charts_mixtures.response(mixtures)),
        ("repetition", "Change over trained samples: repetition and lower layers", scale,
         lambda: charts_course.repetition(scale)),
        ("confirmation", "Changes on fresh seeds by metric; the table below holds the same numbers", candidates,
         lambda: charts_evidence.confirmation(candidates, confidence)),
        ("budget", "Device time spent over time, by stage; the table below holds the totals", spent,
         lambda: charts_course.spending(spent)),
        ("curves", f"Training curves of the control and of {curves[1].label if curves else 'a pool'}", curves,
         lambda: charts_course.curves(curves, content["curve_name"])),
    ]  # fmt: skip
    return [picture(name, clean(alt), draw) for name, alt, data, draw in wanted if data]


def summary(content: Row) -> list[str]:
    """The findings in plain sentences."""
    study = content["study"]
    if study.task is None:
        cut = sum(r["entry"]["verdict"] != "degenerate" for r in content["buckets"].rows)
        return [f"The study has no task, so nothing was trained: {cut} pools were cut and are described below."]
    tested = [r for r in content["tested"] if r["change"] is not None]
    if not tested:
        return ["No pool has a result yet that can be compared with the control.", *_cost(content)]
    seeds = sorted({r["seeds"] for r in tested})
    text = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    lines = [
        f"{len(tested)} pools of “{clean(study.name)}” were each used to train a small model on {text} "
        f"seed{'s' * (seeds[-1] != 1)} and compared with a random pool of the same size."
    ]
    return [*lines, *_verdicts(tested), *_cost(content)]


def _verdicts(tested: Sequence[Row]) -> list[str]:
    labels = Counter(r["label"] for r in tested)
    lines = []
    for verdict, worst in (("helps", False), ("hurts", True)):
        rows = [r for r in tested if r["verdict"] == verdict]
        rows = rows[::-1] if worst else rows
        if rows:
            named = "; ".join(
                clean(r["label"])
                + (f" ({r['size']:,} rows) " if labels[r["label"]] > 1 else " ")
                + percent(r["change"])
                for r in rows[:NAMED]
            )
            more = f"; and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
            lines.append(f"{len(rows)} {'hurt' if worst else 'help'}{'s' * (len(rows) == 1)}: {named}{more}.")
    unclear = sum(r["verdict"] == "unclear" for r in tested)
    if not lines:
        best = tested[0]
        why = "a single seed gives no verdict" if all(r["seeds"] < 2 for r in tested) else "none is clear enough"
        lines = [
            f"None of them is shown to help or to hurt, because {why}; the largest measured change is "
            f"{percent(best['change'])}, of {clean(best['label'])}."
        ]
    elif unclear:
        lines.append(f"The other {unclear} {'is' if unclear == 1 else 'are'} unclear.")
    return lines


def _cost(content: Row) -> list[str]:
    lines = []
    spent = content["spent"]
    if spent is not None:
        limit = f" of {format_seconds(spent.limit)}" if spent.limit else ""
        done = sum(p["trials"].get("COMPLETE", 0) for p in content["progress"])
        lines.append(f"{done} trials took {format_seconds(spent.total)}{limit} of device time.")
    taken = [f"{said} {measured(name, u, True)}" for name, said in TAKEN.items() if (u := content["usage"].get(name))]
    if taken:
        lines.append(f"Their workers took, at most / on average: {', '.join(taken)}.")
    open_ = {s: sum(p["trials"].get(s, 0) for p in content["progress"]) for s in ("RUNNING", "WAITING")}
    if sum(open_.values()):
        lines.append(f"The study has not ended: {open_['RUNNING']} trials run and {open_['WAITING']} wait.")
    return lines
