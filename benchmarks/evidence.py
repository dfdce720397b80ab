"""Claims on worlds whose truth is known: `make bench-evidence`.

    python benchmarks/evidence.py [--studies 2000] [--write]

Pools that differ in nothing (A/A), with noise of many kinds: how often is something said, and how often do intervals of
90 % hold the truth? Pools with an effect: how often is it said?
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray

from benchmarks.write import write_section
from engine.evidence.claims import Looks
from engine.evidence.effects import Effect, effects
from engine.records.metric import Metric
from engine.search.control import control_seeds

METRIC = Metric("score", True, -np.inf, np.inf)
POOLS, LOOKS, CANDIDATES, FRESH_SEEDS, FRESH_CONTROL = 24, (2, 3, 5), 2, 5, 7
COMMON = 0.5  # what a seed does to all pools alike, in standard deviations of the rest
NOISE = 10.0  # percent of the control, of one seed
Values = NDArray[np.float64]
World = Callable[[np.random.Generator, tuple[int, int, int]], Values]


def _normal(rng: np.random.Generator, shape: tuple[int, int, int]) -> Values:
    """(studies, pools, seeds) scores around 0 with a variance of 1; the control is the last pool."""
    return rng.standard_normal(shape)


def _t3(rng: np.random.Generator, shape: tuple[int, int, int]) -> Values:
    return rng.standard_t(3, shape) / np.sqrt(3)


def _heteroscedastic(rng: np.random.Generator, shape: tuple[int, int, int]) -> Values:
    return rng.standard_normal(shape) * np.exp(rng.normal(0, 0.5, (*shape[:2], 1)))


def _noisy_control(times: float) -> World:
    def draw(rng: np.random.Generator, shape: tuple[int, int, int]) -> Values:
        found = rng.standard_normal(shape)
        found[:, -1] *= times
        return found / max(1.0, times / 2)  # the control's mean stays clear of 0

    return draw


def _bounded(rng: np.random.Generator, shape: tuple[int, int, int]) -> Values:
    """Shares of 1,000 items near the floor, less their mean."""
    return (rng.binomial(1000, np.clip(0.01 + 0.004 * rng.standard_normal(shape), 0, 1)) - 10.0) / 5


def _log_normal(rng: np.random.Generator, shape: tuple[int, int, int]) -> Values:
    found: Values = np.exp(rng.normal(0, 0.5, shape))
    return (found - np.exp(0.125)) / np.sqrt((np.exp(0.25) - 1) * np.exp(0.25))


def _crashes(rng: np.random.Generator, shape: tuple[int, int, int]) -> Values:
    """One trial in ten is lost."""
    return np.where(rng.random(shape) < 0.1, np.nan, rng.standard_normal(shape))


WORLDS: dict[str, World] = {
    "normal": _normal, "Student's t, 3 degrees": _t3, "pools' noise differs (× 0.4 … 2.7)": _heteroscedastic,
    "control × 3": _noisy_control(3), "control × 5": _noisy_control(5), "bounded, near the floor": _bounded,
    "log-normal": _log_normal, "a tenth of trials lost": _crashes,
}  # fmt: skip


def table(values: Values, seeds: Sequence[int]) -> dict[str, dict[int, dict[str, float | None]]]:
    """(pools, seeds) scores as evidence reads them; seeds: how many each pool has. The last pool is the control."""
    last = len(values) - 1
    return {
        "control" if i == last else f"p{i:02}": {
            s: {METRIC.name: float(v)} for s, v in enumerate(row[: seeds[i]]) if not np.isnan(v)
        }
        for i, row in enumerate(values)
    }  # fmt: skip


def drawn(world: World, rng: np.random.Generator, studies: int, pools: int, seeds: int, common: float) -> Values:
    """(studies, pools + 1, seeds) scores of pools that differ in nothing, the control's mean 100."""
    shared = common * NOISE * rng.standard_normal((studies, 1, seeds))
    return 100 + shared + NOISE * world(rng, (studies, pools + 1, seeds))


def judged(values: Values, seeds: int, control: int, **options: Any) -> list[Effect]:
    """A study at a number of seeds."""
    pools = len(values) - 1
    runs = table(values, [*[seeds] * pools, control])
    return effects(runs, {p: "control" for p in runs if p != "control"}, [METRIC], **options)


def nothing(name: str, studies: int) -> str:
    """A world in which no pool differs, as a line: false verdicts of a search and of a confirmation, and coverage."""
    world, search, confirmation, covered = WORLDS[name], [], [], list[bool]()
    many = drawn(world, np.random.default_rng(1), studies, POOLS, control_seeds(max(LOOKS), POOLS), COMMON)
    few = drawn(world, np.random.default_rng(2), studies, CANDIDATES, FRESH_CONTROL, COMMON)
    for study, confirming in zip(many, few, strict=True):
        search.append(_says(study, LOOKS, "both"))
        found = judged(confirming, FRESH_SEEDS, FRESH_CONTROL, looks=Looks((FRESH_SEEDS,)), claim="helps")
        confirmation.append(any(e.verdict == "helps" for e in found))
        for n in LOOKS:
            plain = judged(study, n, control_seeds(n, POOLS), arms=1, confidence=0.9)
            covered += [e.ci_low <= 0 <= e.ci_high for e in plain if e.ci_low is not None and e.ci_high is not None]
    return f"| {name} | {_percent(search)} | {_percent(confirmation)} | {100 * np.mean(covered):.1f} % |"


def _says(study: Values, looks: Sequence[int], claim: str) -> bool:
    """Whether anything is said at any look."""
    return any(
        e.verdict != "unclear"
        for n in looks
        for e in judged(study, n, control_seeds(n, POOLS), looks=Looks(tuple(looks)), claim=claim)
    )


def power(effect: float, studies: int) -> str:
    """One of the pools lies `effect` standard deviations of a seed above the others: how often is it said?"""
    many = drawn(_normal, np.random.default_rng(3), studies, POOLS, control_seeds(max(LOOKS), POOLS), COMMON)
    few = drawn(_normal, np.random.default_rng(4), studies, CANDIDATES, FRESH_CONTROL, COMMON)
    search, confirmation = [], []
    for study, confirming in zip(many, few, strict=True):
        for values, said, seeds, options in (
            (study, search, max(LOOKS), {"looks": Looks(LOOKS)}),
            (confirming, confirmation, FRESH_SEEDS, {"looks": Looks((FRESH_SEEDS,)), "claim": "helps"}),
        ):
            values[0] += effect * NOISE
            found = judged(values, seeds, values.shape[1], **options)
            said.append(any(e.pool == "p00" and e.verdict == "helps" for e in found))
    return f"| {effect:g} | {_percent(search)} | {_percent(confirmation)} |"


def _percent(said: Sequence[bool]) -> str:
    share = float(np.mean(said))
    return f"{100 * share:.1f} % (± {100 * np.sqrt(share * (1 - share) / len(said)):.1f})"


def main() -> None:
    """Print, and with --write put into the docs, the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines = [
        f"{options.studies} studies a line, {POOLS} pools, looks at {', '.join(map(str, LOOKS))} seeds; {CANDIDATES} "
        f"candidates with {FRESH_SEEDS} fresh seeds, the control with {FRESH_CONTROL}. Nothing differs; goal: at most "
        "5 % (± 1).", "",
        '| noise | search says anything | confirmation says "helps" | 90 % intervals cover, at 2, 3 and 5 seeds |',
        "|---|---|---|---|",
    ]  # fmt: skip
    for name in WORLDS:
        lines.append(nothing(name, options.studies))
        print(lines[-1], flush=True)
    lines += [
        "", "One pool is better, by standard deviations of a seed:", "",
        f"| better by | the search says so, of {POOLS} | the confirmation says so, of {CANDIDATES} |", "|---|---|---|",
        *(power(effect, options.studies) for effect in (1.0, 2.0, 3.0)),
    ]  # fmt: skip
    print("\n".join(lines))
    if options.write:
        write_section("evidence", "False and true claims, simulated (`make bench-evidence`)", "\n".join(lines))


if __name__ == "__main__":
    main()
