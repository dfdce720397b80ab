"""Is it right what the demo's ranking says of its pools? `make bench-verdicts`.

    python benchmarks/verdicts.py [--studies 20] [--keep DIR] [--write]     # two minutes a study on two idle cores
    python benchmarks/verdicts.py --replay [--write]            # the same replayed on recorded seeds: minutes
    python benchmarks/verdicts.py --record                      # truth of the demo's pools that the oracle lacks

The demo of task `clip`, its probe only, once for each seed of the study, on the same data. A pool's true change is the
mean over ten seeds of whole trainings, which no study reads: those of the oracle, and of `rest.json` beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import yaml
from numpy.typing import NDArray

from app.commands.init import write_demo
from benchmarks.demos import djsb
from benchmarks.oracle.make import REAL
from benchmarks.oracle.table import METRICS, SHARES, load
from benchmarks.write import write_section
from engine.evidence.claims import Looks
from engine.evidence.effects import effects
from engine.search.race import control_seeds
from engine.settings.search import SearchSection

REST = ROOT / "benchmarks" / "oracle" / "rest.json"
SEEDS = 10
LARGE = 10.0  # percent
REPLAYS = 200
KEEP, TOP = SearchSection().keep, SearchSection().top
Row = dict[str, Any]


def truth() -> dict[str, tuple[float, float]]:
    """Pool → (true change, its standard error), percent of the control."""
    oracle = load()
    ends = dict(zip(oracle.pools, oracle.values[:, :, -1], strict=True))
    if REST.exists():
        ends |= {name: np.array(values) for name, values in json.loads(REST.read_text(encoding="utf-8")).items()}
    base = ends.pop("control")
    found = {}
    for name, values in ends.items():
        gains = 100 * (values / base.mean(0) - 1).mean(-1)
        found[name] = (float(gains.mean()), float(gains.std(ddof=1)) / len(gains) ** 0.5)
    return found


def record() -> None:
    """Train the pools of the demo that the oracle lacks, to the end, at its seeds; goes on where it ended."""
    import torch

    from benchmarks.oracle.make import measure
    from engine.study.opened import open_study

    torch.set_num_threads(1)
    found: dict[str, list[list[float]]] = json.loads(REST.read_text(encoding="utf-8")) if REST.exists() else {}
    known = {*load().pools, *found}
    with tempfile.TemporaryDirectory() as scratch:
        opened = open_study(write_demo(Path(scratch) / "demo"), 2)
        for cut in opened.cuts:
            if cut.reason is None and cut.label not in known:
                for seed in range(SEEDS):
                    *_, end = measure(opened.study, opened.prepared, opened.realise(cut.pool, seed), seed, 1)
                    found.setdefault(cut.label, []).append([round(float(end[m.name]), 6) for m in METRICS])
                REST.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                print(cut.label, flush=True)


def said(folder: Path, seed: int) -> dict[str, str]:
    """Pool → verdict, of a study of the demo by a seed of its own; goes on where it ended."""
    if not folder.exists():
        write_demo(folder, change={"seed": seed})
    djsb("auto", folder, "--until", "probe", "--budget", "60min")
    board: list[Row] = json.loads(djsb("rank", folder, "--json"))
    return {r["label"]: r["verdict"] for r in board if r["change"] is not None}


def replayed(rungs: Sequence[tuple[float, int]], studies: int) -> tuple[list[float], int]:
    """The race by these rungs on the oracle's pools of the demo's own statistics, seeds drawn anew each time.

    (of each study the share of pools with a large effect that it says rightly; wrong verdicts in all).
    """
    oracle, rng, true = load(), np.random.default_rng(0), truth()
    own = [i for i, name in enumerate(oracle.pools) if not i or name.split()[0] in REAL]
    looks, found = Looks(tuple(sorted({n for _, n in rungs if n > 1}))), []
    for _ in range(studies):
        order, at, alive = rng.permutation(SEEDS), dict[int, tuple[float, int]](), own[1:]
        for share, seeds in rungs:
            at |= dict.fromkeys(alive, (share, seeds))
            ends = oracle.values[:, order[:seeds], SHARES.index(share)].mean((1, 2))
            alive = sorted(alive, key=lambda i: -ends[i])[: max(TOP, math.ceil(KEEP * len(alive)))]
        runs = {f"{i}": _runs(oracle.values[i, order[: at[i][1]], SHARES.index(at[i][0])]) for i in at}
        for share in {s for s, _ in at.values()}:
            many = [n for s, n in at.values() if s == share]
            seeds = min(SEEDS, control_seeds(max(many), len(many)))
            runs[f"control {share}"] = _runs(oracle.values[0, order[:seeds], SHARES.index(share)])
        said = effects(runs, {f"{i}": f"control {at[i][0]}" for i in at}, METRICS, looks=looks)
        found.append({oracle.pools[int(e.pool)]: e.verdict for e in said})
    return shares(found, true)


def _runs(values: NDArray[np.float64]) -> dict[int, dict[str, float | None]]:
    return {s: {m.name: float(v) for m, v in zip(METRICS, row, strict=True)} for s, row in enumerate(values)}


def replay() -> list[str]:
    """What the demo's rungs say, and those that a study has by default, in words."""
    demo = yaml.safe_load((ROOT / "recipes" / "demo-clip.yaml").read_text(encoding="utf-8"))["search"]["rungs"]
    lines = ["| rungs | said rightly of pools with a large effect | wrong verdicts |", "|---|---|---|"]
    for name, rungs in (("the demo's", demo), ("by default", SearchSection().rungs)):
        right, wrong = replayed([(share, seeds) for share, seeds in rungs], REPLAYS)
        told = ", ".join(f"{100 * share:g} % × {seeds}" for share, seeds in rungs)
        lines.append(f"| {name}: {told} | {100 * np.mean(right):.0f} % (at least {100 * min(right):.0f} %) | {wrong} |")
    note = (
        f"{REPLAYS} studies replayed on the ten recorded seeds of 24 of the demo's pools (benchmarks/oracle), by share "
        f"of the steps × seeds. Large: a true change beyond ± {LARGE:g} %, by the ends of the same ten seeds."
    )
    return [note, "", *lines]


def table(studies: Sequence[dict[str, str]], true: dict[str, tuple[float, float]]) -> list[str]:
    """A line for each pool that has a large effect, or of which something was said."""
    lines = ["| pool | true change | helps | hurts | unclear |", "|---|---|---|---|---|"]
    for name, (change, error) in sorted(true.items(), key=lambda item: -item[1][0]):
        count = Counter(s[name] for s in studies if name in s)
        if count and (abs(change) > LARGE or count["helps"] + count["hurts"]):
            counts = " | ".join(str(count[v]) for v in ("helps", "hurts", "unclear"))
            lines.append(f"| {name} | {change:+.1f} % ± {error:.1f} | {counts} |")
    return lines


def shares(studies: Sequence[dict[str, str]], true: dict[str, tuple[float, float]]) -> tuple[list[float], int]:
    """(of each study the share of pools with a large effect that it says rightly; wrong verdicts in all)."""
    right, wrong = [], 0
    for study in studies:
        pools = [name for name in study if name in true]
        goes = {name: "helps" if true[name][0] > 0 else "hurts" for name in pools}
        large = [name for name in pools if abs(true[name][0]) > LARGE]
        right.append(sum(study[name] == goes[name] for name in large) / len(large))
        wrong += sum(study[name] != "unclear" and study[name] != goes[name] for name in pools)
    return right, wrong


def main() -> None:
    """Run the studies, print the table, write it on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--keep", type=Path, help="folder of the studies; goes on where an earlier run ended")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--replay", action="store_true")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if args.record:
        record()
        return
    if args.replay:
        lines = replay()
        print("\n".join(lines))
        if args.write:
            write_section(
                "verdicts-replayed",
                "Verdicts of the demo, replayed (`benchmarks/verdicts.py --replay`)",
                "\n".join(lines),
            )
        return
    true, studies, began = truth(), [], time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(1, args.studies + 1):
            studies.append(said((args.keep or Path(scratch)) / str(seed), seed))
            right, wrong = shares(studies, true)
            print(f"seed {seed}: {100 * right[-1]:.0f} % said rightly, {wrong} wrong so far", flush=True)
    minutes = "" if args.keep else f", {(time.monotonic() - began) / 60 / len(studies):.1f} min each"
    text = (
        f"{len(studies)} studies of the demo `clip`, each by a seed of its own{minutes}. Of the pools "
        f"with a true change beyond ± {LARGE:g} % the ranking says rightly {100 * np.mean(right):.0f} % "
        f"({100 * min(right):.0f} … {100 * max(right):.0f} % a study; goal: a third); wrong verdicts, of any pool: "
        f"{wrong} (goal: 0). True: the mean over {SEEDS} seeds of whole trainings, ± its standard error."
    )
    lines = [text, "", *table(studies, true)]
    print("\n".join(lines))
    if args.write:
        write_section("verdicts", "Verdicts of the demo (`make bench-verdicts`)", "\n".join(lines))


if __name__ == "__main__":
    main()
