"""End to end, on two recorded worlds: race, screening, confirmation; which recipe is named, and is it truly better?

    python benchmarks/power.py [--worlds 200] [--write]       # a quarter of an hour of one core; `make bench-search`

Every decision is the engine's: who is dropped, who goes on, what is called. What pools score is drawn anew from
recorded trainings (oracle/): five pools lie some standard deviations of a seed above the others, or none does.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.oracle.table import SHARES, Oracle, load, null_world, second
from benchmarks.search import Prices, Values, race, residuals, scores
from benchmarks.write import write_section
from engine.evidence.chances import chances
from engine.evidence.claims import Looks
from engine.evidence.effects import Effect, effects
from engine.evidence.measured import control_noise
from engine.search.control import control_seeds
from engine.search.design import Design, chance, price
from engine.search.race import standing
from engine.settings.search import ConfirmSection, ScreenSection, SearchSection

BETTER = 5  # pools
EFFECTS = (0.0, 1.0, 2.0)  # standard deviations of a seed
AGGREGATE = "mean-of-changes"


@dataclass(frozen=True)
class Sizes:
    """What a study asks for."""

    told: str
    search: SearchSection
    confirm: ConfirmSection


def sizes(told: str, effort: str, screen: tuple[int, int], confirm: tuple[int, int]) -> Sizes:
    """screen: recipes and seeds; confirm: candidates and seeds."""
    return Sizes(
        told,
        SearchSection(effort=effort, screen=ScreenSection(top=screen[0], seeds=screen[1])),
        ConfirmSection(candidates=confirm[0], seeds=confirm[1], all_data=False),
    )


DESIGNS = (
    sizes("low, no screening, 2 × 5", "low", (0, 4), (2, 5)),
    sizes("low, no screening, 2 × 8", "low", (0, 4), (2, 8)),
    sizes("low, 8 → 4 seeds → 2 × 10", "low", (8, 4), (2, 10)),
    sizes("low, 10 → 4 seeds → 3 × 16", "low", (10, 4), (3, 16)),
    sizes("low, 12 → 4 seeds → 2 × 24", "low", (12, 4), (2, 24)),
    sizes("medium, 8 → 4 seeds → 2 × 20", "medium", (8, 4), (2, 20)),
)


@dataclass(frozen=True)
class Study:
    """What one study has come to. named: the recipe, or None. right: it is truly better. price: full trainings."""

    named: int | None
    right: bool
    price: float


def run(oracle: Oracle, values: Values, better: Sequence[int], design: Sizes, rng: np.random.Generator) -> Study:
    """A study with these sizes; its fresh seeds are the last of `values`."""
    screen, confirm, metrics = design.search.screen, design.confirm, oracle.metrics
    prices, searched = Prices(oracle), values[:, : _searching(design)]
    chosen, _ = race(oracle, searched, rng, 0, search=design.search, prices=prices)
    if screen.top:
        chosen = chosen[: screen.top]
        for pool in (0, *chosen):
            for seed in range(screen.seeds):
                prices.pay(pool, seed, 1.0)
        table = scores(searched, [0, *chosen], range(screen.seeds), 1.0, metrics)
        ranked = [e for e in standing(table, [str(c) for c in chosen], "0", metrics, AGGREGATE) if (e.change or 0) > 0]
        chosen = [int(e.pool) for e in ranked]
    noise = _noise(oracle, searched, chosen, design)
    chosen = chosen[: confirm.candidates]
    n_c = control_seeds(confirm.seeds, len(chosen), noise)
    paid = prices.spent + len(chosen) * confirm.seeds + n_c
    fresh = values[:, _searching(design) :]
    table = {
        **scores(fresh, chosen, range(confirm.seeds), 1.0, metrics), **scores(fresh, [0], range(n_c), 1.0, metrics)
    }  # fmt: skip
    told = effects(table, {str(c): "0" for c in chosen}, metrics, looks=Looks((confirm.seeds,)), claim="helps")
    winner = next((int(e.pool) for e in told if e.verdict == "helps"), None)
    return Study(winner, winner in set(better), paid)


def _searching(design: Sizes) -> int:
    """Seeds that the search may use of the control."""
    rungs, _ = design.search.course
    return max(design.search.screen.seeds, 8, round(max(n for _, n in rungs) * 4))


def _noise(oracle: Oracle, values: Values, chosen: Sequence[int], design: Sizes) -> float:
    """The control's noise over the pools', as the loop measures it: where most is known."""
    found = []
    if design.search.screen.top:
        seeds = range(design.search.screen.seeds)
        table = scores(values, [0, *chosen], seeds, 1.0, oracle.metrics)
        found.append(control_noise({p: r for p, r in table.items() if p != "0"}, table["0"], oracle.metrics, AGGREGATE))
    share, n = design.search.course[0][-1]
    many = min(values.shape[1], 2 * round(n * np.sqrt(15)))
    pools = scores(values, chosen, range(n), share, oracle.metrics)
    found.append(
        control_noise(pools, scores(values, [0], range(many), share, oracle.metrics)["0"], oracle.metrics, AGGREGATE)
    )
    return max(found, key=lambda pair: pair[1], default=(1.0, 0.0))[0]


def named(oracle: Oracle, design: Sizes, worlds: int) -> str:
    """A design on a world, as a line of the table."""
    noise = float(np.std(residuals(oracle)))
    shares, spent = list[str](), list[float]()
    for effect in EFFECTS:
        found = []
        for i in range(worlds):
            rng = np.random.default_rng([30_000 + i])
            values = null_world(oracle, rng, _searching(design) + 3 * 3 * design.confirm.seeds)
            better = rng.permutation(np.arange(1, len(values)))[: min(BETTER, -(-len(values) // 12))].tolist()
            gain = np.array([1 if m.higher_is_better else -1 for m in oracle.metrics])
            values[better] *= 1 + gain * effect * noise / 100
            found.append(run(oracle, values, better if effect else [], design, rng))
        said = np.mean([s.right if effect else s.named is not None for s in found])
        shares.append(f"{100 * said:.1f} %" if not effect else f"{100 * said:.0f} %")
        spent += [s.price for s in found]
    model = Design(
        len(oracle.pools) - 1, *design.search.course, design.search.top, 0, design.search.screen.top,
        design.search.screen.seeds, design.confirm.candidates, design.confirm.seeds, False,
    )  # fmt: skip
    expected = " / ".join(f"{100 * chance(model, e):.0f}" for e in EFFECTS[1:])
    return (
        f"| {design.told} | {np.mean(spent):.0f} | {shares[1]} | {shares[2]} | {shares[0]} | "
        f"{expected} % at {price(model).total:.0f} |"
    )


def sure(oracle: Oracle, worlds: int) -> str:
    """Where P(best) says more than 0.9: how often is it right? Pools are truly as recorded, their noise is drawn."""
    level = oracle.values.mean(1, keepdims=True)
    right, said, held = list[bool](), 0, list[tuple[bool, bool]]()
    for i in range(worlds):
        rng = np.random.default_rng([40_000 + i])
        values = null_world(oracle, rng, 16) * (level / level[:1])
        some = min(int(rng.choice([5, 15, 30])), len(values) - 1)
        pools = [0, *rng.choice(np.arange(1, len(values)), size=some, replace=False).tolist()]
        share, seeds = SHARES[int(rng.integers(1, 4))], int(rng.choice([2, 3, 4]))
        table = {
            **scores(values, pools[1:], range(seeds), share, oracle.metrics),
            **scores(values, [0], range(2 * seeds), share, oracle.metrics),
        }
        told = effects(table, {str(p): "0" for p in pools[1:]}, oracle.metrics, arms=1, confidence=0.9)
        gain = np.array([1 if m.higher_is_better else -1 for m in oracle.metrics])
        true = 100 * ((level[:, 0] / level[0, 0] - 1) * gain).mean(-1)[:, SHARES.index(share)]
        best, p = max(chances(told).items(), key=lambda pair: pair[1])
        if p > 0.9:
            said += 1
            right.append(int(best) == max(pools[1:], key=lambda q: true[q]))
        held += [(_covers(e, true), e is told[0]) for e in told if e.ci_low is not None]
    all_, first = np.mean([h for h, _ in held]), np.mean([h for h, f in held if f])
    told_ = f"right in {100 * np.mean(right):.0f} % of {said}" if said else "it never says so"
    return (
        f"Where P(best) says more than 0.9 it is {told_} of {worlds} worlds (goal: at least 85 %). 90 % intervals of "
        f"one pool cover the truth in {100 * all_:.1f} %; those of the pool that leads, chosen by its result, in "
        f"{100 * first:.1f} %."
    )


def _covers(e: Effect, true: Values) -> bool:
    return e.ci_low is not None and e.ci_high is not None and bool(e.ci_low <= true[int(e.pool)] <= e.ci_high)


def main() -> None:
    """Print, and with --write put into the docs, the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--only", type=int, help="this design only")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines = [
        f"{options.worlds} worlds a figure. {BETTER} pools (of 30: three) lie 1 or 2 standard deviations of a seed "
        "above the others. P that the recipe named is one of them; A/A: none is better, and one is named. Goals: 30 "
        "and 90 % at about 59 full trainings, 75 and 99 % at 160; A/A at most 5 %. Last: what "
        "`engine/search/design.py` expects.",
    ]  # fmt: skip
    for told, oracle in (
        ("clip, on which the rungs were chosen", load()),
        ("lm, on which nothing was chosen", second()),
    ):
        lines += ["", f"**{told}**, {len(oracle.pools) - 1} pools", ""]
        lines += ["| design | full trainings | 1 sd | 2 sd | A/A | expected, 1 / 2 sd |", "|---|---|---|---|---|---|"]
        for design in DESIGNS if options.only is None else DESIGNS[options.only : options.only + 1]:
            lines.append(named(oracle, design, options.worlds))
            print(lines[-1], flush=True)
        lines += ["", sure(oracle, options.worlds)]
    print("\n".join(lines))
    if options.write:
        write_section("power", "What a search names, end to end (`make bench-search`)", "\n".join(lines))


if __name__ == "__main__":
    main()
