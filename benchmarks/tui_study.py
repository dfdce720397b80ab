"""A large study that was never trained, and a stand-in for its engine: what `benchmarks/tui.py` watches.

Every row is written through the project's own schema and classes; only the numbers are drawn. The stand-in holds the
engine's lock and commits 20 times a second: curve points, costs, ends and starts of trials, events.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from engine.base.paths import DATABASE, STATE_FOLDER
from engine.journal.results import Result
from engine.journal.store import Row, Store
from engine.records.metric import Metric
from engine.records.pool import Layer, Pool, Slice
from engine.records.proposal import Arm, Proposal
from engine.runner.accounts import Accounts
from engine.runner.trial_book import TrialBook
from engine.settings.study import STAGES, Study
from engine.study.lock import EngineLock
from engine.study.opened import OpenStudy
from engine.study.view import view_study

CONTEXT = "be0c00000000"
POOLS, SEEDS, POINTS = 1_000, 10, 50  # trials = pools × seeds, curve points = trials × points
STATISTICS = 33
SAMPLES = 4_800
METRICS = ("zero_shot", "image_retrieval", "text_retrieval")
RATE = 20  # commits a second
WAITING, RUNNING = 400, 2  # trials that are not done when the benchmark begins


def pools() -> list[tuple[Pool, str, str, Slice | None]]:
    """The control, all single buckets, then combinations of two: (pool, label, kind, its only slice)."""
    singles = []
    for n in range(STATISTICS):
        name = f"statistic_{n:02d}"
        for bucket, low, high in (("low", None, 1.0), ("mid", 1.0, 2.0), ("high", 2.0, None)):
            singles.append((Slice(f"op_{n:02d}_filter", name, low, high), f"{name} {bucket}"))
    made: list[tuple[Pool, str, str, Slice | None]] = [(Pool((Layer(),), 1_200), "control", "control", None)]
    made += [(Pool((Layer((s,)),), 1_200), label, "single", s) for s, label in singles]
    for (a, x), (b, y) in itertools.combinations(singles, 2):
        if len(made) == POOLS:
            break
        if a.statistic != b.statistic:
            made.append((Pool((Layer((a, b)),), 1_200), f"{x} + {y}", "combination", None))
    return made


def stamp(second: float) -> str:
    """A moment of the study's past, as the store writes it."""
    return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)).isoformat(timespec="milliseconds")


def write_study(folder: Path) -> None:
    """The database of a study that is nearly done."""
    rng = random.Random(0)
    study = Study.model_validate(
        {"name": "bench", "task": "clip", "budget": "20gpu-hours", "model": {"preset": "tiny"},
         "dataset": {"path": "none.jsonl", "images": "images"}, "ops": {"text_length_filter": {}},
         "evaluation": {"path": "none.jsonl", "label": "label"}}
    )  # fmt: skip
    made = pools()
    with Store(folder / STATE_FOLDER / DATABASE) as store, store.transaction():
        store.put(
            "setups",
            {"setup": CONTEXT, "name": "bench", "dataset": "d", "evaluation": "e",
             "config": study.model_dump_json(), "version": "0", "at": stamp(0)},
        )  # fmt: skip
        Result[Any]("metric_scales", Any).put(store, CONTEXT, [asdict(Metric(m, True, 0.0, 1.0)) for m in METRICS])
        Result[Any]("statistics", Any).put(store, CONTEXT, _correlations(rng))
        store.put("pools", [_pool_row(*p) for p in made])
        trials = list(_trials(made, rng))
        store.put("trials", trials)
        done = [t for t in trials if t["state"] == "COMPLETE"]
        better = {p.id: rng.gauss(0, 0.02) for p, *_ in made}
        store.put("metrics", _metrics(done, better, rng))
        store.put("curve_points", _points(trials, rng))
        store.put("costs", [_cost(t) for t in done])
        store.put("events", [_event(t) for t in done[:: len(done) // 3_000]])
        _proposals(store, made, trials)


def _correlations(rng: random.Random) -> Row:
    names = [f"statistic_{n:02d}" for n in range(STATISTICS)]
    r = [[1.0 if i == j else round(rng.uniform(-1, 1), 6) for j in names] for i in names]
    return {"names": names, "r": r, "order": names, "clusters": {n: i // 6 + 1 for i, n in enumerate(names)},
            "linkage": []}  # fmt: skip


def _pool_row(pool: Pool, label: str, kind: str, one: Slice | None) -> Row:
    return {"id": pool.id, "content": json.dumps(asdict(pool)), "label": label, "kind": kind,
            "op": one and one.op, "statistic": one and one.statistic,
            "bucket": label.rsplit(" ", 1)[-1] if one else None, "at": stamp(0)}  # fmt: skip


def _trials(made: list[tuple[Pool, str, str, Slice | None]], rng: random.Random) -> Iterator[Row]:
    """One trial a pool and seed, in the order in which they ran; the last of them wait or run."""
    order = [(seed, pool) for seed in range(SEEDS) for pool, *_ in made]
    for place, (seed, pool) in enumerate(order):
        left = len(order) - place
        state = "WAITING" if left <= WAITING else "RUNNING" if left <= WAITING + RUNNING else "COMPLETE"
        began = place * 3.0
        yield {
            "id": f"{rng.getrandbits(48):012x}", "setup": CONTEXT, "pool": pool.id, "seed": seed, "init": None,
            "samples": SAMPLES, "horizon": SAMPLES, "stage": STAGES[0] if seed < 5 else STAGES[1],
            "proposal": f"{seed:012x}", "state": state, "attempts": int(state != "WAITING"), "estimate": 3.0,
            "seconds": rng.uniform(2, 4) if state == "COMPLETE" else None, "resumed": 0, "error": None,
            "device": None if state == "WAITING" else f"cpu{place % 2}",
            "started": None if state == "WAITING" else stamp(began),
            "finished": stamp(began + 3) if state == "COMPLETE" else None,
        }  # fmt: skip


def _metrics(done: list[Row], better: dict[str, float], rng: random.Random) -> Iterator[Row]:
    for t in done:
        for m in METRICS:
            yield {"trial": t["id"], "name": m, "value": 0.4 + better[t["pool"]] + rng.gauss(0, 0.01)}


def _points(trials: list[Row], rng: random.Random) -> Iterator[Row]:
    for t in trials:
        if t["state"] != "WAITING":
            for i in range(POINTS + 2):  # those that wait have none
                loss = 3 / (1 + i / 8) + rng.uniform(0, 0.2)
                yield {"trial": t["id"], "name": "loss", "step": i * 2, "value": loss}


def _cost(t: Row) -> Row:
    return {"id": f"{t['id']}:1", "kind": "trial", "trial": t["id"], "stage": t["stage"], "device": t["device"],
            "samples": t["samples"], "seconds": t["seconds"], "at": t["finished"]}  # fmt: skip


def _event(t: Row) -> Row:
    return {"level": "info", "kind": "note", "subject": t["id"], "text": f"trial {t['id']} took {t['seconds']:.1f} s",
            "at": t["finished"]}  # fmt: skip


def _proposals(store: Store, made: list[tuple[Pool, str, str, Slice | None]], trials: list[Row]) -> None:
    """One proposal for every ten pools; the last of them wait for a person."""
    for start in range(0, len(made), 10):
        asked = [
            Arm(pool=asdict(p), label=label, kind=kind, samples=SAMPLES)  # type: ignore[arg-type]
            for p, label, kind, _ in made[start : start + 10]
        ]
        proposal = Proposal(
            origin="paper" if start % 20 else "race", kind="probe", stage=STAGES[0], pools=tuple(asked), seeds=(0,),
            reason=f"pools {start} to {start + len(asked) - 1} at equal cost",
        )  # fmt: skip
        content = {**proposal.model_dump(mode="json"), "gate": "allowed"}
        store.put(
            "proposals",
            {"id": proposal.id, "setup": CONTEXT, "origin": proposal.origin, "kind": proposal.kind,
             "stage": proposal.stage, "content": json.dumps(content), "cost": 30.0,
             "status": "queued" if start + 30 > len(made) else "approved", "at": stamp(start)},
        )  # fmt: skip
    store.put("proposal_trials", [{"proposal": t["proposal"], "trial": t["id"]} for t in trials])


def run_engine(folder: Path) -> None:
    """Commit 20 times a second, as an engine does whose trials take three seconds, until it is ended."""
    rng = random.Random(1)
    view = view_study(folder)
    book, accounts = TrialBook(view), Accounts(view, 1e9)
    with EngineLock(folder / STATE_FOLDER):
        running = view.store.query("SELECT * FROM trials WHERE state = 'RUNNING'")
        steps = dict.fromkeys((t["id"] for t in running), 2 * (POINTS + 2))
        print("ready", flush=True)
        due = time.monotonic()
        for turn in itertools.count():
            with view.store.transaction():
                for t in running:
                    steps[t["id"]] += 2
                    loss = 1 + rng.random() / 5
                    view.store.put(
                        "curve_points", {"trial": t["id"], "name": "loss", "step": steps[t["id"]], "value": loss}
                    )
                    accounts.charge(t, t["device"], steps[t["id"]] / 50)
                if turn % (3 * RATE // RUNNING) == 0:
                    running = [*running[1:], _next(view, book, running[0], rng)]
                    steps[running[-1]["id"]] = 0
                    view.store.event("note", f"trial {running[-1]['id']} starts", running[-1]["id"])
            due += 1 / RATE
            time.sleep(max(0.0, due - time.monotonic()))


def _next(view: OpenStudy, book: TrialBook, ended: Row, rng: random.Random) -> Row:
    """End a trial, launch the next in its place."""
    book.complete(ended, {m: 0.4 + rng.gauss(0, 0.02) for m in METRICS}, 3.0)
    waiting = view.store.one("SELECT * FROM trials WHERE state = 'WAITING' ORDER BY seed, id LIMIT 1")
    if waiting is None:
        raise SystemExit("no trial waits any more: the benchmark took too long")
    return book.launch(waiting, ended["device"], 3.0, 0)


if __name__ == "__main__":
    run_engine(Path(sys.argv[1]))
