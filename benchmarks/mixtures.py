"""Mixtures by regression against mixtures at random, in simulated worlds of five sources: `make bench-mixtures`.

    python benchmarks/mixtures.py [--replays 100] [--write]       # 100 replays: five minutes of one core

A world says what each mixture of five sources of known value is worth; a trial measures that with noise. Nothing is
trained: this measures the search alone. The forms of the regression were chosen on the first two worlds; the third was
not looked at before.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from benchmarks.write import write_section
from engine.evidence.mixtures import Floats, best_mixtures, random_mixtures, regress
from engine.search.mixtures import BATCH, first

BASE = np.array([0.4, 0.25, 0.2, 0.1, 0.05])
REPEATS, PART = 4, 0.25  # of a source at most; size of a pool as share of the data
CAPS = np.minimum(1.0, np.floor(1000 * REPEATS * BASE / PART) / 1000)
BUDGETS = (8, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
GOAL = 0.9  # of the best mixture's gain


@dataclass(frozen=True)
class World:
    """truth: (n, sources) weights → (n, metrics) change in percent. noise: of one trial's metric, points."""

    name: str
    truth: Callable[[Floats], Floats]
    noise: float

    def gain(self, weights: Floats) -> Floats:
        """(n,) the mean of the metrics' changes."""
        return np.asarray(self.truth(weights).mean(1))


def log_linear(rng: np.random.Generator) -> World:
    """Each of three metrics is an exponential of a weighted sum; metrics prefer different sources."""
    slopes = rng.normal(0, 0.25, (5, 1)) + rng.normal(0, 0.25, (5, 3))
    return World("log-linear", lambda w: 100 * np.expm1((w - BASE) @ slopes), 3.0)


def saturating(rng: np.random.Generator) -> World:
    """A source gives less the more of it there is, repeats are worth less, and some sources help each other."""
    value, half = rng.uniform(0, 1, (5, 3)), rng.uniform(0.1, 0.6, 5)
    pairs = rng.normal(0, 0.4, (5, 5, 3))

    def score(w: Floats) -> Floats:
        times = np.maximum(w * PART / BASE, 1e-9)  # how often a row of the source is seen
        fresh = np.minimum(times, 1) + np.maximum(0, np.log(np.maximum(times, 1))) / 2
        amount = w * fresh / times
        own = (amount / (amount + half)) @ value
        return np.asarray(1 + own + np.einsum("ni,nj,ijm->nm", amount, amount, pairs))

    return World("saturating", lambda w: 100 * (score(w) / score(BASE[None]) - 1), 3.0)


def scaling(rng: np.random.Generator) -> World:
    """Three losses, each of which falls as a power of what the sources, each with its worth to it, have shown."""
    worth, power = rng.exponential(1, (5, 3)), rng.uniform(0.2, 0.6, 3)
    floor = rng.uniform(0.1, 0.5, 3)

    def loss(w: Floats) -> Floats:
        times = np.maximum(w * PART / BASE, 1e-9)
        shown = w / times * np.where(times > 1, 1 + (1 - np.exp(1 - times)), times)  # repeats wear out
        return np.asarray(floor + (0.05 + shown @ worth) ** -power)

    return World("scaling", lambda w: 100 * (loss(BASE[None]) / loss(w) - 1), 3.0)


def best_gain(world: World, rng: np.random.Generator) -> float:
    """The gain of the best mixture that the caps allow, by a search that sees the truth."""
    found = random_mixtures(BASE, CAPS, 20_000, rng)
    for _ in range(4):
        top = found[np.argsort(-world.gain(found))[:50]]
        fit = top[rng.integers(50, size=5000)] * np.exp(rng.normal(0, 0.2, (5000, 5)))
        fit = np.minimum(fit, CAPS)
        fit /= fit.sum(1, keepdims=True)
        found = np.vstack([top, fit[(fit <= CAPS + 1e-9).all(1)]])
    return float(world.gain(found).max())


def measured(world: World, weights: Floats, rng: np.random.Generator) -> Floats:
    """What trials of the mixtures say."""
    truth = world.truth(weights)
    return np.asarray(truth + world.noise * rng.standard_normal(truth.shape))


def by_random(world: World, rng: np.random.Generator) -> list[float]:
    """The true gain of the mixture that measured best, at each number of trials."""
    tried = random_mixtures(BASE, CAPS, BUDGETS[-1], rng)
    seen, truth = measured(world, tried, rng).mean(1), world.gain(tried)
    return [float(truth[np.argmax(seen[:n])]) for n in BUDGETS]


def by_regression(world: World, rng: np.random.Generator, most: int) -> list[float]:
    """The true gain of the mixture that the regression likes best of those that ran."""
    tried = random_mixtures(BASE, CAPS, min(first(len(BASE)), BUDGETS[0]), rng)
    seen, gains = measured(world, tried, rng), []
    for n in [b for b in BUDGETS if b <= most]:
        while len(tried) < n:
            if len(tried) < first(len(BASE)):
                new = random_mixtures(BASE, CAPS, min(n, first(len(BASE))) - len(tried), rng)
            else:
                fit = regress(BASE, tried, seen)
                assert fit is not None
                new = best_mixtures(fit, CAPS, tried, min(BATCH, n - len(tried)), rng)
            tried, seen = np.vstack([tried, new]), np.vstack([seen, measured(world, new, rng)])
        fit = regress(BASE, tried, seen)
        assert fit is not None
        gains.append(float(world.gain(tried[[np.argmax(fit.predict(tried))]])[0]))
    return gains


def compare(
    make: Callable[[np.random.Generator], World], replays: int, most: int = 64
) -> list[tuple[int, float, float]]:
    """(trials, share of the best gain by regression, by random search), means over worlds of one form."""
    random, regression = [], []
    for i in range(replays):
        rng = np.random.default_rng(i)
        world = make(rng)
        best = best_gain(world, rng)
        random.append(np.array(by_random(world, rng)) / best)
        regression.append(np.array(by_regression(world, rng, most)) / best)
    shown = np.mean(regression, 0).tolist()
    shown += [float("nan")] * (len(BUDGETS) - len(shown))
    return list(zip(BUDGETS, shown, np.mean(random, 0).tolist(), strict=True))


def needed(rows: Sequence[tuple[int, float]]) -> int | None:
    """Trials from which on the goal is met; None where it never is."""
    return next((n for n, share in rows if share >= GOAL), None)


WORLDS = {log_linear: "tuned on", saturating: "tuned on", scaling: "not tuned on"}


def main() -> None:
    """Print or write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replays", type=int, default=100)
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = parser.parse_args()
    began = time.process_time()
    shown = (12, 16, 24, 32, 48, 64, 1024)
    heads = [f"{n} trials" for n in shown]
    lines = [
        f"| world | search | {' | '.join(heads)} | 90 % from |", "|---|---|" + "---|" * (len(shown) + 1),
    ]  # fmt: skip
    for make, what in WORLDS.items():
        rows = compare(make, options.replays)
        name = make(np.random.default_rng(0)).name
        for search, at in (("regression", 1), ("random", 2)):
            by_trials = {row[0]: row[at] for row in rows}
            cells = ["" if np.isnan(by_trials[n]) else f"{100 * by_trials[n]:.0f} %" for n in shown]
            least = needed([(n, share) for n, share in by_trials.items() if not np.isnan(share)])
            tried = max(n for n, share in by_trials.items() if not np.isnan(share))
            met = f"{least} trials" if least else f"more than {tried}"
            lines.append(f"| {name} ({what}) | {search} | {' | '.join(cells)} | {met} |")
    body = "\n".join([
        "True gain over the proportional mixture, as a share of the best mixture's, mean of "
        f"{options.replays} worlds of each form; the last column: trials from which it is 90 % or more. Simulated "
        "worlds of five sources of known value, three metrics, one trial's noise 3 points each; no model is trained. "
        f"Both searches draw from the same mixtures under the same caps ({REPEATS} repeats, pools of a quarter of the "
        "data); random search keeps the one that measured best.", "", *lines, "",
        f"`--replays {options.replays}`, {time.process_time() - began:.0f} s of one core.",
    ])  # fmt: skip
    print(body)
    if options.write:
        write_section("mixtures", "Mixtures by regression (`make bench-mixtures`)", body)


if __name__ == "__main__":
    main()
