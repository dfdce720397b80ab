"""Search policies replayed against the oracle, and the race live against the grid: `make bench-search`.

    python benchmarks/search.py [--replays 200] [--write]       # replays: minutes
    python benchmarks/search.py --live DATA [--write]           # two real studies on DATA/train.jsonl: half an hour

All policies see the same results at the same price. What is right is taken from the seeds that no
policy sees. Costs are in full trials.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import starmap
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.oracle.table import METRICS, SHARES, Oracle, load, null_world
from benchmarks.write import write_section
from engine.evidence.claims import Looks
from engine.evidence.effects import Effect, effects
from engine.records.metric import Metric
from engine.search.race import CONTROL_SEEDS, Rung, control_seeds, judge, standing
from engine.settings.search import SearchSection

GRID_SEEDS, TOP = 3, 5
SEARCH = SearchSection()
Runs = dict[str, dict[int, dict[str, float | None]]]
Values = NDArray[np.float64]


class Prices:
    """Counts what was asked for; a longer run of the same training goes on from the shorter one."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle, self.spent = oracle, 0.0
        self.had: dict[tuple[int, int], float] = {}

    def pay(self, pool: int, seed: int, share: float) -> None:
        """For a pool's training at a seed, up to this share of its steps."""
        had = self.had.get((pool, seed), 0.0)
        if share > had:
            self.spent += self.oracle.cost(share) - (self.oracle.cost(had) if had else 0.0)
            self.had[pool, seed] = share


def scores(
    values: Values, pools: Sequence[int], seeds: range, share: float, metrics: Sequence[Metric] = METRICS
) -> Runs:  # fmt: skip
    """(pools, seeds, shares, metrics) as evidence reads it."""
    at = SHARES.index(share)
    return {
        str(p): {s: {m.name: float(v) for m, v in zip(metrics, values[p, s, at], strict=True)} for s in seeds}
        for p in pools
    }


def change(oracle: Oracle, values: Values, share: float) -> Values:
    """(pools, seeds) aggregated change."""
    return oracle.score(values[:, :, SHARES.index(share)])


def grid(oracle: Oracle, values: Values, rng: np.random.Generator, budget: float) -> tuple[list[int], float]:
    """Every pool, every seed, to the end."""
    mean = change(oracle, values, 1.0)[:, :GRID_SEEDS].mean(1)
    return [p for p in np.argsort(-mean).tolist() if p][:TOP], GRID_SEEDS * len(values)


def race(
    oracle: Oracle, values: Values, rng: np.random.Generator, budget: float,
    look: Callable[[dict[float, Runs]], None] | None = None, search: SearchSection = SEARCH,
    prices: Prices | None = None,
) -> tuple[list[int], float]:  # fmt: skip
    """The engine's own judgement, rung by rung: what is left of the pools, the best first.

    look: called after every result from the second seed on, with all that is known by then.
    """
    prices, alive = prices or Prices(oracle), list(range(1, len(values)))
    known: dict[float, Runs] = {}
    ranked: list[str] = []
    top = max(search.top, search.screen.top)
    for rung, keep in zip(starmap(Rung, search.course[0]), search.course[1], strict=True):
        own, first = range(rung.seeds), range(min(values.shape[1], control_seeds(rung.seeds, len(alive))))
        for seed in first:
            for pool in [0, *(alive if seed in own else ())]:
                prices.pay(pool, seed, rung.share)
        table = {
            **scores(values, alive, own, rung.share, oracle.metrics),
            **scores(values, [0], first, rung.share, oracle.metrics),
        }
        if look:
            _one_by_one(table, known.setdefault(rung.share, {}), alive, look, known)
        names = [str(a) for a in alive]
        ranked = [e.pool for e in standing(table, names, "0", oracle.metrics, "mean-of-changes")]
        found = judge(table, names, "0", oracle.metrics, rung=rung, top=top, keep=keep, least=search.drop)
        gone = {d.arm for d in found}
        alive = [a for a in alive if str(a) not in gone]
    return [int(p) for p in ranked[: max(TOP, search.screen.top)]], prices.spent


def _one_by_one(
    table: Runs, known: Runs, alive: list[int], look: Callable[[dict[float, Runs]], None], everything: dict[float, Runs]
) -> None:
    """Let a rung's results arrive one after the other, and look after each from which something may be said."""
    known["0"] = table["0"]
    for seed in sorted(table[str(alive[0])]):
        for pool in map(str, alive):
            if seed not in known.setdefault(pool, {}):
                known[pool] = {**known[pool], seed: table[pool][seed]}
                if seed:
                    look(everything)


def random_search(oracle: Oracle, values: Values, rng: np.random.Generator, budget: float) -> tuple[list[int], float]:
    """Pools at random, one full trial each, until the budget ends."""
    n = int(budget)
    chosen = rng.permutation(np.arange(1, len(values)))[:n]
    found = change(oracle, values, 1.0)[chosen, 0]
    return chosen[np.argsort(-found)][:TOP].tolist(), float(n)


def tpe(oracle: Oracle, values: Values, rng: np.random.Generator, budget: float) -> tuple[list[int], float]:
    """Optuna's TPE over (statistic, bucket) with its median pruner; a pool asked for again gets its next seed."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=int(rng.integers(2**31))),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
    )
    names = [p.rsplit(" ", 1) for p in oracle.pools[1:]]
    statistics, index = sorted({n for n, _ in names}), {p: i for i, p in enumerate(oracle.pools)}
    table = {s: change(oracle, values, s) for s in SHARES}
    spent, seen = 0.0, dict[int, list[float]]()
    while spent + 1 <= budget:
        trial = study.ask()
        statistic = trial.suggest_categorical("statistic", statistics)
        pool = index[f"{statistic} {trial.suggest_categorical('bucket', ['low', 'mid', 'high'])}"]
        seed = min(len(seen.get(pool, ())), values.shape[1] - 1)
        for share in SHARES:
            value = float(table[share][pool, seed])
            trial.report(value, int(100 * share))
            if share < 1 and trial.should_prune():
                break
        spent += oracle.cost(share)
        if share == 1:
            seen.setdefault(pool, []).append(value)
            study.tell(trial, value)
        else:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return sorted(seen, key=lambda p: -np.mean(seen[p]))[:TOP], spent


def asha(oracle: Oracle, values: Values, rng: np.random.Generator, budget: float) -> tuple[list[int], float]:
    """Successive halving, asynchronous promotion (factor 2), rungs at 1/4, 1/2 and all steps; trials are resumed."""
    prices, rungs = Prices(oracle), (0.25, 0.5, 1.0)
    table = {s: change(oracle, values, s)[:, 0] for s in rungs}
    waiting = rng.permutation(np.arange(1, len(values))).tolist()
    at: dict[float, list[int]] = {s: [] for s in rungs}
    promoted: dict[float, set[int]] = {s: set() for s in rungs}
    while prices.spent + 0.5 <= budget:
        for low, high in ((0.5, 1.0), (0.25, 0.5)):
            best = sorted(at[low], key=lambda p: -table[low][p])[: len(at[low]) // 2]
            ready = [p for p in best if p not in promoted[low]]
            if ready:
                promoted[low].add(ready[0])
                at[high].append(ready[0])
                prices.pay(ready[0], 0, high)
                break
        else:
            if not waiting:
                break
            at[0.25].append(waiting.pop())
            prices.pay(at[0.25][-1], 0, 0.25)
    order = sorted(at[1.0], key=lambda p: -table[1.0][p])
    order += [p for p in sorted(at[0.5], key=lambda p: -table[0.5][p]) if p not in order]
    return order[:TOP], prices.spent


def medium(oracle: Oracle, values: Values, rng: np.random.Generator, budget: float) -> tuple[list[int], float]:
    """The race with `search.effort: medium`."""
    return race(oracle, values, rng, budget, search=SearchSection(effort="medium"))


POLICIES = {
    "grid (3 seeds)": grid, "race": race, "race, effort medium": medium, "random search": random_search,
    "Optuna TPE + median pruner": tpe, "ASHA": asha,
}  # fmt: skip


def replay(oracle: Oracle, replays: int) -> list[str]:
    """Recall and regret of every policy, as a table."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in POLICIES}
    for i in range(replays):
        rng = np.random.default_rng(i)
        values = oracle.values[:, rng.permutation(oracle.values.shape[1])]
        truth = change(oracle, values, 1.0)[:, CONTROL_SEEDS:].mean(1)
        truth[0] = -np.inf
        best = np.argsort(-truth)[:TOP]
        budget = 0.0
        for name, policy in POLICIES.items():
            chosen, spent = policy(oracle, values, rng, budget)
            if name == "race":
                budget = spent
            found[name].append(
                (len(set(chosen) & set(best.tolist())) / TOP, float(truth[best].mean() - truth[chosen].mean()), spent)
            )
    lines = [
        "| policy | top-5 recall | regret of the five, points | full trials | of the grid |",
        "|---|---|---|---|---|",
    ]
    base = np.mean([f[2] for f in found["grid (3 seeds)"]])
    for name, rows in found.items():
        recall, regret, spent = np.array(rows).T
        error = np.array([recall, regret]).std(1, ddof=1) / np.sqrt(len(rows))
        lines.append(
            f"| {name} | {recall.mean():.3f} ± {error[0]:.3f} | {regret.mean():.2f} ± {error[1]:.2f} | "
            f"{spent.mean():.1f} ({spent.min():.1f}–{spent.max():.1f}) | {100 * spent.mean() / base:.0f} % |"
        )
    return lines


def verdicts(known: dict[float, Runs], arms: int, **options: object) -> list[Effect]:
    """What a reader of the leaderboard is told: every pool at every length that it ran."""
    table = {f"{p}@{share}": runs for share, found in known.items() for p, runs in found.items()}
    controls = {n: f"0@{n.split('@')[1]}" for n in table if not n.startswith("0@")}
    looks = Looks(
        tuple(sorted({n for runs in known.values() for p, r in runs.items() if p != "0" and (n := len(r)) > 1}))
    )
    return effects(table, controls, METRICS, **{"arms": arms, "looks": looks if looks.planned else "once", **options})  # type: ignore[arg-type]


def honesty(oracle: Oracle, replays: int) -> list[str]:
    """A/A: how often something is said of pools that differ in nothing, looked at after every result; coverage."""
    wrong, covered, intervals = 0, 0, 0
    for i in range(replays):
        rng = np.random.default_rng(10_000 + i)
        values = null_world(oracle, rng, max(CONTROL_SEEDS, *(n for _, n in SEARCH.rungs)))
        last = [dict[float, Runs]()]

        def look(known: dict[float, Runs]) -> None:
            last[0] = known  # noqa: B023

        race(oracle, values, rng, 0, look)
        wrong += any(e.verdict != "unclear" for e in verdicts(last[0], len(values) - 1))
        plain = [e for e in verdicts(last[0], 1, confidence=0.9) if e.ci_low is not None]
        covered += sum(e.ci_low <= 0 <= e.ci_high for e in plain)  # type: ignore[operator]
        intervals += len(plain)
    error = np.sqrt(wrong / replays * (1 - wrong / replays) / replays)
    return [
        f"- A/A, {replays} races, at their ends: something said in {100 * wrong / replays:.1f} % "
        f"(± {100 * error:.1f}) of studies; goal: at most 5 %.",
        f"- 90 % intervals of one pool, one look, cover the truth in {100 * covered / intervals:.1f} % of {intervals}.",
    ]


def power(oracle: Oracle, replays: int) -> list[str]:
    """Five of 60 pools lie one standard deviation of a seed above the rest: from how many seeds on is it said?

    The race at its normal end, and every pool trained to the end with 4 to 64 seeds, read once a round.
    """
    noise = float(np.std(residuals(oracle)))
    picked, helps, spent = [], [], []
    seeds, fresh = (4, 8, 16, 32, 64), (5, 10, 20, 40)
    whole: dict[int, list[float]] = {n: [] for n in seeds}
    confirmed: dict[int, list[float]] = {n: [] for n in fresh}
    for i in range(replays):
        rng = np.random.default_rng(20_000 + i)
        values = null_world(oracle, rng, max(seeds))
        better = rng.permutation(np.arange(1, len(values)))[:TOP]
        values[better] *= 1 + noise / 100
        last: list[dict[float, Runs]] = [{}]

        def look(known: dict[float, Runs]) -> None:
            last[0] = known  # noqa: B023

        chosen, cost = race(oracle, values, rng, 0, look)
        helps.append(_called(last[0], better))
        picked.append(len(set(chosen) & set(better.tolist())) / TOP)
        spent.append(cost)
        for n in seeds:
            whole[n].append(_called({1.0: scores(values, list(range(len(values))), range(n), 1.0)}, better))
        for n in fresh:
            confirmed[n].append(_confirmed(values, better[:2].tolist(), n))
    rows = [f"| the race, at its end | {np.mean(spent):.0f} | {100 * np.mean(helps):.0f} % |"]
    rows += [f"| {n} seeds of every pool | {n * 61} | {100 * np.mean(found):.0f} % |" for n, found in whole.items()]
    rows += [
        f"| the confirmation, read once: 2 recipes and the control, {n} fresh seeds | {3 * n} | "
        f"{100 * np.mean(found):.0f} % |"
        for n, found in confirmed.items()
    ]
    return [
        f"Power: five pools lie one standard deviation of a seed ({noise:.1f} %) above the others, {replays} worlds. "
        f"The race has {100 * np.mean(picked):.0f} % of them among its five (by chance 8 %). Called \"helps\" by "
        "intervals that hold for all that is compared, before the confirmation also for all looks; goal: 80 %:", "",
        "| evidence | full trials | called \"helps\" |", "|---|---|---|", *rows,
    ]  # fmt: skip


def _called(known: dict[float, Runs], better: NDArray[np.int64]) -> float:
    """Share of the better pools of which "helps" is said."""
    told = {int(e.pool.split("@")[0]) for e in verdicts(known, 60) if e.verdict == "helps"}
    return len(told & set(better.tolist())) / len(better)


def _confirmed(values: Values, candidates: list[int], seeds: int) -> float:
    """Share of the candidates of which "helps" is said when they are confirmed as the engine does it."""
    table = scores(values, [0, *candidates], range(seeds), 1.0)
    told = effects(table, {str(p): "0" for p in candidates}, METRICS, looks=Looks((seeds,)), claim="helps")
    return sum(e.verdict == "helps" for e in told) / len(candidates)


def residuals(oracle: Oracle) -> Values:
    """(pools, seeds) noise of whole trainings of the pools within 15 % of the control."""
    found = oracle.score(oracle.values[:, :, -1])
    near = found[np.abs(found.mean(1)) < 15]
    rest = near - near.mean(1, keepdims=True)
    n, s = rest.shape
    return (rest - rest.mean(0)) * np.sqrt(n * s / ((n - 1) * (s - 1)))


def live(data: Path, folder: Path) -> list[str]:
    """The whole loop twice on the same data, by race and by grid: what it spent and what its recipe is worth."""
    lines = [
        "| search | device-seconds | of the grid | trials | recipe | change on 5 fresh seeds |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    found: dict[str, dict[str, Any]] = {}
    for strategy in ("race", "grid"):
        study = _make_study(data, folder / strategy, strategy)
        ended = subprocess.run([DJSB, "auto", study, "--budget", "2h", "--json"], capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr[-2000:]
        seconds, trials = _ask(study, "SELECT sum(seconds), count(DISTINCT trial) FROM costs")
        recipe = json.loads(ended.stdout)["recipe"]
        found[strategy] = {"seconds": seconds, "trials": trials, "idle": _ask(study, IDLE)[0], "recipe": recipe}
        print(strategy, found[strategy], flush=True)
    spent = []
    for limit in LIMITS:
        study = _make_study(data, folder / f"limit-{limit}", "race")
        subprocess.run([DJSB, "auto", study, "--budget", f"{limit}s"], capture_output=True)
        spent.append(f"{_ask(study, 'SELECT sum(seconds) FROM costs')[0]:.1f} of {limit} s")
    for strategy, f in found.items():
        r = f["recipe"]
        told = f"{r['change']:+.1f} % [{r['ci_low']:+.1f}, {r['ci_high']:+.1f}]" if r else "none beat the control"
        share = 100 * f["seconds"] / found["grid"]["seconds"]
        lines.append(
            f"| {strategy} | {f['seconds']:.0f} | {share:.0f} % | {f['trials']} | {r['label'] if r else '–'} | {told} |"
        )
    gaps = ", ".join(f"{100 * f['idle']:.1f} % ({strategy})" for strategy, f in found.items())
    return [
        *lines, "", f"Device idle between two trials of one round: {gaps} of the time; goal: at most 3 %.", "",
        f"Spent under a tight budget: {', '.join(spent)}; goal: at most 1 % or one smallest trial beyond it.",
    ]  # fmt: skip


def _make_study(data: Path, study: Path, strategy: str) -> Path:
    """What `djsb init` writes, with the strategy and without repetition."""
    subprocess.run(
        [DJSB, "init", study, "--data", data / "train.jsonl", "--eval", data / "test.jsonl"],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    settings = yaml.safe_load((study / "study.yaml").read_text())
    settings["search"]["strategy"] = strategy
    settings["scale"]["rates"] = []
    (study / "study.yaml").write_text(yaml.safe_dump(settings))
    return study


def _ask(study: Path, sql: str) -> tuple[Any, ...]:
    with closing(sqlite3.connect(study / ".djsb" / "study.db")) as db:
        found: tuple[Any, ...] = db.execute(sql).fetchone()
        return found


DJSB = Path(sys.executable).with_name("djsb")
LIMITS = (30, 60)  # device-seconds
# seconds between the end of a job and the start of the next on the device, as a share of all that jobs took; where a
# round ends in between (new proposals are made), the device waits for the last job of the other
IDLE = """
WITH runs AS (SELECT device, max(proposal) AS proposal, julianday(min(started)) * 86400 AS a,
                     julianday(max(finished)) * 86400 AS b
              FROM trials WHERE state = 'COMPLETE'
              GROUP BY device, CAST(julianday(started) * 864000 AS INTEGER)),
     marks AS (SELECT julianday(at) * 86400 AS at FROM proposals),
     gaps AS (SELECT max(0, a - lag(b) OVER w) AS gap, b - a AS run, lag(b) OVER w AS before, a
              FROM runs WINDOW w AS (PARTITION BY device ORDER BY a))
SELECT sum(CASE WHEN EXISTS (SELECT 1 FROM marks WHERE at BETWEEN before AND a) THEN 0
                ELSE coalesce(gap, 0) END)
       / sum(run) FROM gaps
"""


def main() -> None:
    """Print, and with --write put into the docs, the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--replays", type=int, default=200)
    parser.add_argument("--honest", type=int, default=1000)
    parser.add_argument("--live", type=Path, help="folder of train.jsonl and test.jsonl")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.live:
        with tempfile.TemporaryDirectory() as scratch:
            lines = live(options.live.resolve(), Path(scratch))
        print("\n".join(lines))
        if options.write:
            write_section("search-live", "Race and grid, live", "\n".join(lines))
        return
    oracle = load()
    lines = replay(oracle, options.replays)
    print("\n".join(lines))
    lines += ["", *honesty(oracle, options.honest)]
    lines += ["", *power(oracle, options.replays)]
    print("\n".join(lines))
    if options.write:
        write_section("search", "Search policies on the oracle", "\n".join(lines))


if __name__ == "__main__":
    main()
