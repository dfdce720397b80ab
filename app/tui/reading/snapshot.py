"""What the UI shows of a study, read from its database: values only, nothing is drawn here.

The UI's own process imports this for `Snapshot` only, so what reads is imported where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.text.printable import printable
from app.tui.reading.memory import EVENTS, Memory, in_order
from engine.base.amounts import parse_budget
from engine.base.confine import inside
from engine.base.errors import DjsbError
from engine.base.ids import some
from engine.base.paths import DATABASE, STATE_FOLDER, STUDY_FILE, folder_of

if TYPE_CHECKING:
    from app.tui.reading.pipelines import PipelineView
    from engine.journal.costs import Cost
    from engine.journal.store import Row
    from engine.study.opened import OpenStudy

BURN = 120  # points of the budget's curve
LOSS = 40  # points of a running trial's sparkline
BINS = 48  # of a histogram
EXAMPLES = 3  # rows of each bucket
LINEAGE = ("cycle", "recipe", "unconfirmed", "against_first")  # of a cycle, what is shown
TAIL = 32_768  # bytes of a log


@dataclass(frozen=True)
class Snapshot:
    """The study as it stood at one moment.

    answer: its sentences, the one that counts first. board: rows of the leaderboard; None until it was first computed.
    """

    folder: Path
    name: str = ""
    setup: str = ""
    engine: int | None = None
    state: str = "no engine"
    stage: str = "–"
    stages: tuple[Row, ...] = ()
    spent: float = 0.0
    limit: float = 0.0
    rate: float | None = None  # device-seconds a second, of the last minutes
    burn: tuple[tuple[float, float], ...] = ()  # seconds since the first charge, device-seconds spent
    running: tuple[Row, ...] = ()
    waiting: int = 0
    trials: tuple[Row, ...] = ()
    proposals: tuple[Row, ...] = ()
    decisions: tuple[Row, ...] = ()
    events: tuple[Row, ...] = ()
    insights: dict[str, list[Row]] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    answer: tuple[str, ...] = ()
    board: tuple[Row, ...] | None = None
    buckets: tuple[str, ...] = ()
    pipelines: tuple[Row, ...] = ()  # of `djsb run`, the latest first
    studies: tuple[Row, ...] = ()  # of a folder that holds several
    problem: str = ""
    replay: str = ""  # of a recording: when this was, and how it is played

    @property
    def queued(self) -> list[Row]:
        """Proposals that wait for a person."""
        return [p for p in self.proposals if p["status"] in ("queued", "held")]

    @property
    def eta(self) -> float | None:
        """Seconds until the budget is spent at the present rate, or None."""
        return (self.limit - self.spent) / self.rate if self.rate and self.engine else None


@dataclass(frozen=True)
class Rows:
    """Rows of a field that are new or have changed; all: these are all there are."""

    rows: tuple[Row, ...]
    all: bool


def _latest_first(event: Row) -> int:
    return -int(event["id"])


ORDERS: dict[str, Callable[[Row], Any]] = {"trials": in_order, "events": _latest_first}  # fields sent by row


def changes(before: Snapshot | None, now: Snapshot) -> dict[str, Any]:
    """Field → value of those that differ; of long fields the rows that differ."""
    if before is None:
        return {f.name: getattr(now, f.name) for f in fields(now)}
    found = {}
    for name in (f.name for f in fields(now)):
        old, new = getattr(before, name), getattr(now, name)
        if new != old:
            found[name] = _new_rows(old, new, name == "events") if name in ORDERS else new
    return found


def _new_rows(old: tuple[Row, ...], new: tuple[Row, ...], fall_off: bool) -> Rows:
    """fall_off: the oldest rows go by themselves; otherwise all are sent when any is gone."""
    known = {r["id"]: r for r in old}
    rows = tuple(r for r in new if known.pop(r["id"], None) is not r)
    return Rows(new, True) if known and not fall_off else Rows(rows, False)


def merged(before: Snapshot, change: dict[str, Any]) -> Snapshot:
    """The snapshot after a change."""
    whole = {}
    for name, value in change.items():
        if isinstance(value, Rows):
            rows = {r["id"]: r for r in (() if value.all else getattr(before, name))}
            rows |= {r["id"]: r for r in value.rows}
            kept = sorted(rows.values(), key=ORDERS[name])
            value = tuple(kept[:EVENTS] if name == "events" else kept)
        whole[name] = value
    return replace(before, **whole)


def light(view: OpenStudy | PipelineView, memory: Memory) -> dict[str, Any]:
    """All fields of a snapshot that take no statistics to compute."""
    from app.tui.reading import pipelines
    from engine.evidence.lineage import lineage
    from engine.evidence.sentences import insights
    from engine.journal import results, trials
    from engine.records.pool import BUCKETS
    from engine.study.lock import engine_pid

    if isinstance(view, pipelines.PipelineView):
        return pipelines.light(view)
    store, setup = view.store, view.setup
    pid = engine_pid(view.folder / STATE_FOLDER)
    counts = trials.counts(store, setup)
    states: dict[tuple[str, str], int] = {(stage, k): n for stage, own in counts.items() for k, n in own.items()}
    stages: list[Row] = [{"stage": stage} | dict(counts.get(stage) or {}) for stage in view.study.stages]
    said = results.ENGINE.get(store, setup) or "running"
    costs = memory.costs(view)
    lines = {stage: [asdict(s) for s in sentences] for stage, sentences in insights(view).items()}
    recipe, statistics = results.RECIPE.get(store, setup), results.STATISTICS.get(store, setup)
    mixtures = results.MIXTURES.get(store, setup)
    metrics, scale = results.METRICS.get(store, setup), results.SCALE.get(store, setup)
    return {
        "folder": view.folder, "name": view.study.name, "setup": setup, "engine": pid,
        "state": said if pid else "no engine", "stage": _stage(stages), "stages": tuple(stages),
        "spent": math.fsum(c.seconds for c in costs),
        "limit": view.limit,
        "rate": _rate(costs), "burn": _burn(costs), "running": tuple(_running(view)),
        "waiting": sum(s.get("WAITING", 0) for s in stages), "trials": memory.trials(view, states),
        "proposals": memory.proposals(view), "decisions": tuple(_decisions(view)),
        "events": memory.events(view), "pipelines": pipelines.pipelines(store),
        "buckets": BUCKETS[view.study.pools.buckets], "insights": lines,
        "results": {
            "recipe": recipe and recipe.to_json(), "unconfirmed": results.UNCONFIRMED.get(store, setup),
            "statistics": statistics and statistics.to_json(), "metrics": metrics and metrics.to_json(),
            "mixtures": mixtures and mixtures.to_json(),
            "scale": None if scale is None else [a.to_json() for a in scale],
            "lineage": [{k: link[k] for k in LINEAGE} for link in (c.to_json() for c in lineage(view))],
            "rewritten": [m.to_json() for m in results.every_mapped(store, setup)],
        },
    }  # fmt: skip


def board(view: OpenStudy | PipelineView) -> tuple[Row, ...]:
    """The leaderboard's rows, of the setting whose results are shown."""
    from app.tui.reading.pipelines import PipelineView
    from engine.evidence.ranking import leaderboard
    from engine.study.setting import shown

    if isinstance(view, PipelineView):
        return ()
    return tuple(e.to_json() for e in leaderboard(shown(view)[0]))


def told(view: OpenStudy | PipelineView) -> tuple[str, ...]:
    """The study's answer."""
    from app.tui.reading.pipelines import PipelineView
    from engine.evidence.answer import answer

    if isinstance(view, PipelineView):
        return ()
    return tuple(answer(view).lines)


def results_so_far(view: OpenStudy | PipelineView) -> Any:
    """What answer and leaderboard rest on, in short: they need not be computed again while this stays the same."""
    from app.tui.reading.pipelines import PipelineView
    from engine.journal import drops, proposals, results, trials
    from engine.study.lock import engine_pid

    if isinstance(view, PipelineView):
        return None
    asked = [(p.id, p.status) for p in proposals.of_setup(view.store, view.setup)]
    concluded = results.RECIPE.at(view.store, view.setup)
    settings = view.folder / STUDY_FILE
    changed = settings.stat().st_mtime_ns if settings.exists() else 0
    counts = trials.progress(view.store, view.setup), trials.counts(view.store, view.setup), drops.count(view.store)
    return counts, asked, concluded, changed, view.limit, engine_pid(view.folder / STATE_FOLDER)


def opened(folder: Path) -> OpenStudy | PipelineView:
    """The study to look at, or a folder that holds pipelines only. Raises: DjsbError."""
    from app.tui.reading import pipelines
    from engine.study.opened import open_recorded

    try:
        return open_recorded(folder)
    except DjsbError as error:
        if (folder / STUDY_FILE).exists():
            raise
        return pipelines.opened(folder, error)


def unreadable(folder: Path, error: DjsbError) -> Snapshot:
    """A snapshot of a study that no engine has recorded yet; else one that only says what is wrong."""
    from engine.study.file import read_study
    from engine.study.lock import engine_pid
    from engine.study.view import NotStarted

    state = folder / STATE_FOLDER
    if not (folder / STUDY_FILE).exists() or ((state / DATABASE).exists() and not isinstance(error, NotStarted)):
        return Snapshot(folder, problem=str(error))
    try:
        study = read_study(folder)
    except DjsbError as wrong:
        return Snapshot(folder, problem=str(wrong))
    pid = engine_pid(state)
    return Snapshot(
        folder, study.name, engine=pid, state="starting" if pid else "not started",
        stage=_last_said(state) if pid else "–",
        stages=tuple({"stage": s} for s in study.stages), limit=parse_budget(study.budget),
    )  # fmt: skip


def _last_said(state: Path) -> str:
    """The last line of an engine that was started from the UI: how far it is with looking at the data."""
    try:
        lines = inside(state, "logs/engine.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except (OSError, DjsbError):
        return "–"
    return printable(lines[-1])[:60] if lines else "–"


def _stage(stages: Sequence[Row]) -> str:
    """The stage that runs or waits, else the last one with results."""
    busy = [s["stage"] for s in stages if s.get("RUNNING") or s.get("WAITING")]
    done = [s["stage"] for s in stages if s.get("COMPLETE")]
    return str(busy[0] if busy else done[-1] if done else "–")


def _rate(costs: Sequence[Cost]) -> float | None:
    """Device-seconds charged per second since five minutes before the last charge."""
    if not costs:
        return None
    last = _seconds(costs[-1])
    start = max(_seconds(costs[0]), last - 300)
    spent = 0.0
    for cost in reversed(costs):
        if _seconds(cost) <= start:
            break
        spent += cost.seconds
    return spent / (last - start) if last - start > 1 and spent else None


def _seconds(cost: Cost) -> float:
    return datetime.fromisoformat(cost.at).timestamp()


def _burn(costs: Sequence[Cost]) -> tuple[tuple[float, float], ...]:
    """Device-seconds spent over the seconds since the first charge, the last point always among them."""
    step = max(1, len(costs) // BURN)
    total = list(accumulate(c.seconds for c in costs))
    kept = sorted({*range(step - 1, len(costs), step), len(costs) - 1}) if costs else []
    times = [_seconds(costs[i]) for i in kept]
    return tuple((t - times[0], total[i]) for t, i in zip(times, kept, strict=True))


def _running(view: OpenStudy) -> list[Row]:
    from engine.journal import curves, trials, usage

    rows = []
    for t in trials.running(view.store, view.setup):
        taken = {u.name: u.latest for u in usage.of_trial(view.store, t.id)}
        points = curves.curve(view.store, t.id, "loss", LOSS)
        step = points[-1].step if points else 0
        rows.append({
            **some(t, "id", "device", "seed", "samples", "resumed", "label", "kind", "started", "estimate"),
            "seconds": t.charged, "loss": [p.value for p in points if p.value is not None], "step": step,
            "progress": min(1.0, step * view.study.train.batch_size / max(1, t.samples)),
            "usage": taken,
        })  # fmt: skip
    return rows


def _decisions(view: OpenStudy) -> list[Row]:
    """All decisions, each with what its proposal is."""
    from engine.journal import decisions

    return [{**asdict(d.decision), **some(d, "kind", "stage", "origin")} for d in decisions.with_proposals(view.store)]


def curves(view: OpenStudy, trials: Sequence[str], name: str) -> dict[str, list[tuple[int, float]]]:
    """Curves of a few trials. name: of the value, e.g. loss."""
    from engine.journal.curves import curve

    return {t: [(p.step, p.value) for p in curve(view.store, t, name) if p.value is not None] for t in trials}


def trial_details(view: OpenStudy, key: str) -> Row:
    """Metrics, names of curves and configuration of one trial; those of fresh seeds are a person's to see."""
    from engine.journal import curves, metrics, pools, trials, usage

    trial = trials.get(view.store, key)
    pool = pools.get(view.store, trial.pool) if trial else None
    if trial is None or pool is None:
        return {}
    return {
        **asdict(trial), "content": pool.pool.to_json(),
        "metrics": dict(sorted(metrics.of_trial(view.store, key).items())),
        "curves": curves.names(view.store, key), "fresh": trial.fresh,
        "usage": {u.name: some(u, "peak", "mean") for u in usage.of_trial(view.store, key)},
    }  # fmt: skip


def statistic(view: OpenStudy, name: str) -> Row:
    """One statistic's histogram and buckets, and rows of each bucket; the data are read for it."""
    import numpy as np

    from app.tui.reading.thumbnails import picture
    from engine.data.tars import media_root

    column = view.columns.get(name)
    if column is None:
        return {}
    values = column.value[view.scan.good]
    values = values[~np.isnan(values)]
    counts, edges = np.histogram(values, BINS)
    field = view.data.fields.text
    folders = (media_root(view.data.path, view.state), folder_of(view.data.path))
    examples = {}
    for cut in view.cuts:
        if cut.slice.statistic == name and cut.reason is None:
            without = cut.bucket.startswith("without-")
            rows = view.left_out(cut.slice)[:EXAMPLES] if without else np.sort(view.realise(cut.pool)[:EXAMPLES])
            examples["left out: " * without + cut.bucket] = [
                {
                    "row": int(n),
                    "value": float(column.value[n]),
                    "text": str(row.get(field or "") or "")[:300],
                    "picture": picture(row.get(view.data.fields.images or ""), *folders),
                }
                for n, row in zip(rows, view.data.take(rows), strict=True)
            ]
    ends = [b for c in view.cuts if c.slice.statistic == name for b in (c.slice.low, c.slice.high)]
    bounds = sorted({b for b in ends if b is not None})
    return {
        "name": name, "counts": counts.tolist(), "edges": edges.tolist(), "bounds": bounds, "examples": examples
    }  # fmt: skip


def pool_contents(view: OpenStudy, pool: str) -> Row:
    """What a pool keeps and drops, with small pictures; the data are read for it."""
    from app.tui.reading.thumbnails import picture
    from engine.data.tars import media_root
    from engine.evidence.contents import contents
    from engine.evidence.recipe_file import find_pool

    found = contents(view, find_pool(view, pool)).to_json()
    folders = (media_root(view.data.path, view.state), folder_of(view.data.path))
    for shown in (*found["stays"], *found["goes"]):
        (row,) = view.data.reader.read(shown["row"], shown["row"] + 1)
        shown["picture"] = picture(row.get(view.data.fields.images or ""), *folders)
    return found


def recipe_yaml(view: OpenStudy, pool: str | None) -> str:
    """A pool's recipe, or the confirmed one."""
    from engine.evidence.recipe_file import recipe

    return recipe(view.folder, pool)


def worker_log(view: OpenStudy, name: str) -> Row:
    """The end of a log of a worker or of the engine, and the names of all; an unknown name gives the newest."""
    files = {f.name: f for f in sorted((view.state / "logs").glob("*.log"), key=lambda f: f.stat().st_mtime)}
    if not files:
        return {"names": [], "name": "", "text": "no worker has written a log yet"}
    name = name if name in files else list(files)[-1]
    with inside(view.state, f"logs/{name}").open("rb") as log:
        log.seek(max(0, log.seek(0, 2) - TAIL))
        text = log.read(TAIL).decode("utf-8", "replace")
    return {"names": sorted(files), "name": name, "text": text}


def _job(view: OpenStudy | PipelineView, *which: Any) -> Row:
    from app.tui.reading import pipelines

    return pipelines.job(view, *which)


def _system(view: OpenStudy | PipelineView) -> Row:
    from app.tui.reading.system import system

    return system(view)


def _elsewhere(view: OpenStudy) -> list[Row]:
    """What other studies of the same data found: the sentence, and the statistics that it is about."""
    from engine.evidence.elsewhere import elsewhere

    return [{"text": f.text, "statistics": sorted(f.statistics), "verdict": f.verdict} for f in elsewhere(view)]


def _drafting(name: str) -> Callable[..., Any]:
    """A question of the proposal form; what answers it is imported in the feed's process only."""

    def answer(view: OpenStudy, *arguments: Any) -> Any:
        from app.tui.reading import form_answers as drafting

        return getattr(drafting, name)(view, *arguments)

    return answer


QUESTIONS: dict[str, Callable[..., Any]] = {
    "curves": curves,
    "trial": trial_details,
    "statistic": statistic,
    "recipe": recipe_yaml,
    "contents": pool_contents,
    "log": worker_log,
    "job": _job,
    "system": _system,
    "elsewhere": _elsewhere,
    "choices": _drafting("choices"),
    "tried": _drafting("tried"),
    "pool": _drafting("pool"),
}  # what the UI may ask for by name
