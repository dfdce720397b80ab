"""Verdicts: what is claimed of each pool, with p and q, and simultaneous intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.evidence.claims import Looks, adjusted, any_time, any_time_reach, discoveries, normal_scores, reach
from engine.evidence.measured import Measured
from engine.evidence.variance import Floats

LEAST = 1e-9  # p that is told; smaller ones hang on the last digits
SHARPEST = 5  # seeds at which intervals for any time are narrowest
Verdict = Literal["helps", "hurts", "unclear", "degenerate"]


@dataclass(frozen=True)
class Claim:
    """What is said of a pool. half: of its two-sided interval, percent. bound, p, q: as of an `Effect`."""

    half: float
    verdict: Verdict
    p: float | None
    q: float | None
    bound: float | None


@dataclass(frozen=True)
class Claims:
    """Verdicts and simultaneous intervals of all pools together; the arguments are those of `effects`."""

    error: float
    arms: int | None
    looks: Looks | Literal["once", "any"]
    claim: Literal["both", "helps"]

    def judge(
        self, now: Sequence[Measured], read: Sequence[Measured], controls: Sequence[str],
        reached: Sequence[int | None],
    ) -> list[Claim]:  # fmt: skip
        """Of each pool, in their order; p of the pool's direction.

        now: all results, for the intervals; read: those of the last look, for the claims.
        """
        names = {name: i for i, name in enumerate(dict.fromkeys(controls))}
        families = np.concatenate([
            np.full(len(m.change), names[c]) for m, c in zip(now, controls, strict=True)
        ]).astype(np.int64)  # fmt: skip
        spent = np.array([self._share(look) for look in reached])
        seeds = np.concatenate([m.seeds for m in read])
        t = np.concatenate([_ratio(m.change, m.error) for m in read])
        z = np.where(seeds > 1, normal_scores(t, np.concatenate([m.df for m in read])), -np.inf)
        tested = (seeds > 1) & np.isfinite(z)
        copies = 1.0 if self.arms is None else self.arms / len(seeds)
        loads = np.concatenate([m.load for m in read])
        up = self._p(np.where(tested, z, -np.inf), seeds, loads, families, copies)
        down = self._p(np.where(tested, -z, -np.inf), seeds, loads, families, copies)
        bar = self.error * spent
        half = bar if self.looks == "any" else bar / 2  # a mixture minds both sides at once
        above = bar if self.claim == "helps" else half
        helps, hurts = up <= above, down <= half
        verdicts: list[Verdict] = [
            "helps" if h else "hurts" if d else "unclear"
            for h, d in zip(helps & tested, hurts & tested, strict=True)
        ]  # fmt: skip
        p = [max(LEAST, float(min(u, d))) if k else None for u, d, k in zip(up, down, tested, strict=True)]
        q = discoveries(_two_sided(z, tested))
        least = self._far(read, families, copies, np.where(helps, above, half), 1)
        change = np.concatenate([m.change for m in read])
        bounds = [_bound(v, float(c), float(far)) for v, c, far in zip(verdicts, change, least, strict=True)]
        halves = self._far(now, families, copies, bar, 2).tolist()
        return [Claim(*claim) for claim in zip(halves, verdicts, p, q, bounds, strict=True)]

    def _share(self, look: int | None) -> float:
        if not isinstance(self.looks, Looks):
            return 1.0
        return self.looks.share(look or self.looks.planned[0], self.error)

    def _p(
        self, z: Floats, seeds: NDArray[np.int64], loads: Floats, families: NDArray[np.int64], copies: float
    ) -> Floats:
        from scipy import special

        if self.looks == "any":
            return any_time(z, seeds, SHARPEST, copies * len(z))
        if copies * len(z) == 1:
            return np.asarray(special.ndtr(-z))
        return adjusted(z, loads, families, copies)

    def _far(
        self, of: Sequence[Measured], families: NDArray[np.int64], copies: float, bar: Floats, sides: int
    ) -> Floats:
        """How far each change may be from the true one, percent, of all pools at once; on both sides or on one."""
        from scipy import special

        loads, error = np.concatenate([m.load for m in of]), np.concatenate([m.error for m in of])
        df, seeds = np.concatenate([m.df for m in of]), np.concatenate([m.seeds for m in of])
        if self.looks == "any":
            far = any_time_reach(self.error, np.maximum(seeds, 1), SHARPEST, copies * len(seeds))
        elif copies * len(seeds) == 1:
            far = -special.ndtri(bar / sides)
        else:
            at = {b: reach(b, loads, families, copies, sides) for b in set(bar.tolist())}
            far = np.array([at[b] for b in bar.tolist()])
        with np.errstate(invalid="ignore"):
            return np.where(error > 0, -special.stdtrit(df, special.ndtr(-far)) * error, error)


def _bound(verdict: Verdict, change: float, far: float) -> float | None:
    """What a claim says at least. The test from the largest score down may say more than all bounds at once: then 0."""
    if verdict == "helps":
        return max(0.0, change - far)
    return min(0.0, change + far) if verdict == "hurts" else None


def _ratio(change: Floats, error: Floats) -> Floats:
    """t; endless where there is a change and no noise."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((error == 0) & (change == 0), 0.0, change / error)


def _two_sided(z: Floats, tested: NDArray[np.bool_]) -> list[float | None]:
    from scipy import special

    return [max(LEAST, float(2 * special.ndtr(-abs(x)))) if k else None for x, k in zip(z, tested, strict=True)]
