"""Three cycles on the demo of task lm: what each confirms, how the ranking moves, the last checkpoint against others.

    make bench-cycles            # or: python benchmarks/cycles.py --write [--study FOLDER]

The others are the untrained model, the first cycle's checkpoints and controls that trained for as many samples as all
cycles together. Results hang on no timing: the budget is far beyond what the run takes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from app.text.lineage import moves_text
from benchmarks.write import write_section
from engine.base.amounts import format_seconds
from engine.evidence.comparison import Runs
from engine.evidence.effects import effects
from engine.evidence.lineage import TOP, best_seed
from engine.journal import metrics
from engine.proposals.arms import control
from engine.records.pool import Pool, pool_from_json
from engine.records.trial import FRESH
from engine.study.opened import OpenStudy, open_study
from engine.tasks.contract import Job, Report

CYCLES = 3
Row = dict[str, Any]


def run(folder: Path, workers: int | None) -> list[Row]:
    """The demo with cycles, run to its end; its lineage."""
    command = [sys.executable, str(ROOT / "djsb.py")]
    asked = ["--demo", "--task", "lm", "--cycles", str(CYCLES), "--budget", "8h"]
    at_once = ["--workers", str(workers)] if workers else []
    subprocess.run([*command, "auto", str(folder), *asked, *at_once], check=True, stdout=subprocess.DEVNULL)
    shown = subprocess.run(
        [*command, "show", "lineage", str(folder), "--json"], check=True, capture_output=True, text=True
    )
    found: list[Row] = json.loads(shown.stdout)["lineage"]
    return found


# -- what the last checkpoint is compared with -------------------------------------------------


@dataclass
class Controls:
    """Trainings beside the study, at the fresh seeds of its cycles; what was measured is kept in `kept`.

    cycles: those that confirmed a recipe, as the lineage has them. pools: their pools.
    """

    opened: OpenStudy
    kept: Path
    cycles: list[Row]
    pools: list[Pool]

    @property
    def samples(self) -> int:
        """What all cycles together trained on."""
        return sum(c["recipe"]["samples"] for c in self.cycles)

    def measure(self) -> dict[str, Runs]:
        """Name → runs. The checkpoints of the chain lie in `kept`, until all is measured."""
        everything = control(self.opened, int(self.opened.scan.good.sum()))
        first = self.cycles[0]["recipe"]["label"]
        return {
            "ckpt₀, untrained": self._runs("untrained", self.pools[0], 1, rate=0.0),
            f"{CYCLES} cycles of the control, each from the best checkpoint of the one before": self._chain(),
            f"one training on all {everything.size:,} rows": self._runs("everything", everything, self.samples),
            f"one training on the first recipe, {first}": self._runs("first", self.pools[0], self.samples),
        }

    def _chain(self) -> Runs:
        """As the cycles themselves, with random rows."""
        init, found = None, {}
        for number, (cycle, pool) in enumerate(zip(self.cycles, self.pools, strict=True), 1):
            name, random = f"chain-{number}", control(self.opened, pool.size)
            found = self._runs(name, random, cycle["recipe"]["samples"], init)
            best = best_seed(found, self.opened.main_metrics, self.opened.study.evaluation.aggregate)
            init = str(self.kept / f"{name}-{best}")
        return found

    def _runs(self, name: str, pool: Pool, samples: int, init: str | None = None, rate: float | None = None) -> Runs:
        """Seed → metric → value of a pool. rate: learning rate in place of the study's."""
        study = self.opened.study
        if rate is not None:
            study = study.model_copy(update={"train": study.train.model_copy(update={"learning_rate": rate})})
        found = {}
        for seed in range(FRESH, FRESH + study.confirm.seeds):
            folder, file = self.kept / f"{name}-{seed}", self.kept / f"{name}-{seed}.json"
            if not file.exists():
                self.kept.mkdir(exist_ok=True)
                rows = self.kept / "rows.npy"
                np.save(rows, self.opened.realise(pool, seed))
                job = Job(name, str(rows), samples, seed, init, str(folder))
                scored = self.opened.task.run(study, self.opened.prepared, job, Report(lambda _kind, _content: None))
                file.write_text(json.dumps(scored[name]), encoding="utf-8")
                print(name, seed, scored[name], file=sys.stderr)
            found[seed] = json.loads(file.read_text(encoding="utf-8"))
        return found


def compared(folder: Path, lineage: list[Row]) -> Iterator[tuple[str, Row]]:
    """What the last confirmed recipe's checkpoints are compared with, and their change against it."""
    cycles = [c for c in lineage if c["recipe"]]
    with (opened := open_study(folder, 1)).store:
        stored = [opened.store.one("SELECT content FROM pools WHERE id = ?", (c["recipe"]["pool"],)) for c in cycles]
        pools = [pool_from_json(json.loads(row["content"])) for row in stored if row]
        runs = [
            metrics.by_pool(opened.store, c["setup"], True, ("confirm",))[r["pool"], r["samples"], r["samples"]]
            for c in cycles
            for r in [c["recipe"]]
        ]
        others = {
            "ckpt₁, the first cycle's recipe": runs[0],
            **Controls(opened, folder / "controls", cycles, pools).measure(),
        }
        for name, other in others.items():
            (found,) = effects(
                {"last": runs[-1], name: other}, {"last": name}, opened.main_metrics,
                aggregate=opened.study.evaluation.aggregate, confidence=opened.study.search.confidence,
                arms=len(others),
            )  # fmt: skip
            yield name, {**vars(found), "scores": means(other)}


def means(runs: Runs) -> dict[str, float]:
    """Metric → mean over seeds."""
    names = dict.fromkeys(name for r in runs.values() for name in r)
    return {n: float(np.mean([v for r in runs.values() if (v := r.get(n)) is not None])) for n in names}


# -- the tables --------------------------------------------------------------------------------


def tables(lineage: list[Row], others: list[tuple[str, Row]]) -> list[str]:
    """The cycles as Markdown, the last checkpoint against the others, and what became of the ranking."""
    names = sorted(lineage[0]["scores"])
    rows = [
        [
            str(c["cycle"]), c["recipe"]["label"] if c["recipe"] else c["unconfirmed"] or "none confirmed",
            change(c["recipe"]), change(c["against_first"]), *told(c["scores"], names), str(c["trials"]),
            format_seconds(c["seconds"]),
        ]
        for c in lineage
    ]  # fmt: skip
    lines = grid(["cycle", "recipe", "against its control", "against cycle 1", *names, "trials", "device time"], rows)
    last = [c for c in lineage if c["recipe"]][-1]
    lines += ["", f"The checkpoints of cycle {last['cycle']}, the last that confirmed a recipe, against:", ""]
    lines += grid(
        ["against", "change", *names], [[name, change(other), *told(other["scores"], names)] for name, other in others]
    )
    lines += ["", *(f"- Cycle {c['cycle']}: {moves_text(c['moves'])}." for c in lineage if c["moves"]), ""]
    standings = [(c["standing"] or [])[:TOP] for c in lineage]
    places = [
        [str(place), *(f"{s['label']} {s['change']:+.1f}" if s else "–" for s in side)]
        for place, side in enumerate(zip_longest(*standings), 1)
    ]
    return lines + grid(["place", *(f"cycle {c['cycle']}, change %" for c in lineage)], places)


def grid(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows]]


def told(scored: Row, names: list[str]) -> list[str]:
    """The metrics' values."""
    return [f"{scored[n]:.3f}" if n in scored else "–" for n in names]


def change(found: Row | None) -> str:
    """A change with its interval."""
    if found is None or found["change"] is None:
        return "–"
    return f"{found['change']:+.1f} % [{found['ci_low']:+.1f}, {found['ci_high']:+.1f}]"


def verdict(last: Row | None) -> str:
    """Whether the last checkpoint beats the first."""
    if last is None:
        return "No recipe was confirmed after the first cycle."
    return f"The last checkpoint {'beats' if last['ci_low'] > 0 else 'does not beat'} cycle 1's: {change(last)}."


def main() -> None:
    """Print, and with --write put into the docs, the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--study", type=Path, help="folder that keeps the study; an interrupted run goes on there")
    parser.add_argument("--workers", type=int, help="CPU cores to use; all by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.study or Path(scratch) / "demo").resolve()
        lineage = run(folder, options.workers)
        others = list(compared(folder, lineage))
    confirmed = [c for c in lineage if c["recipe"]]
    lines = [
        verdict(confirmed[-1]["against_first"]),
        "",
        *tables(lineage, others),
        "",
        f"`djsb auto DIR --demo --task lm --cycles {CYCLES}`. Scores are means over the fresh seeds. Each cycle's "
        "control goes on from the same checkpoint as its pools. The last three rows of the second table trained on as "
        "many samples as all cycles together, at the same seeds; one training has one warm-up "
        "and decay where the cycles have one each. Intervals are corrected for the rows of that table. The third table "
        "is Table 14's: statistics by their best bucket, as far as the race compared them.",
    ]
    print("\n".join(lines))
    if options.write:
        write_section("cycles", f"{CYCLES} cycles on the demo (`make bench-cycles`)", "\n".join(lines))


if __name__ == "__main__":
    main()
