"""The target of a study: probes that repeat their rows as it will, and how far it lies beyond them.

Where repetition differs between probe and target, what is found of one need not hold for the other. Probes train on as
many samples as without a target, drawn from fewer rows, so that a row is seen as often as there.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.settings.study import Study

FAR_MODEL = 30.0  # times the parameters of the reference model
FAR_SAMPLES = 100.0  # times the trained samples of a probe
APART = 1.5  # times that repetition may differ


@dataclass(frozen=True)
class Probe:
    """What a probe trains on. rows: of its pool. samples: in all. common: rows without a target."""

    rows: int
    samples: int
    common: int

    @property
    def matched(self) -> bool:
        """True where it has fewer rows, and repeats them more, as the target does."""
        return self.rows < self.common

    @property
    def epochs(self) -> float:
        """How often it sees a row."""
        return self.samples / self.rows


def probe_of(study: Study, common: int, fewest: int) -> Probe:
    """Probes of one bucket. common: rows of a pool without a target. fewest: that can be trained on."""
    samples = int(common * study.train.epochs)
    rows = rows_for(study, samples, 1 / study.pools.buckets, fewest)
    return Probe(min(common, rows or common), samples, common)


def rows_for(study: Study, samples: int, share: float, fewest: int) -> int | None:
    """Rows of which so many samples repeat each as the target does under a recipe that keeps this share."""
    times = study.target.repetition(share)
    return None if times is None else max(fewest, round(samples / times))


def remarks(study: Study, probe: Probe, parameters: int | None) -> list[str]:
    """What of the target lies far beyond the probes, a line each. parameters: of the reference model, where known."""
    target, found = study.target, []
    if target.model and parameters and target.model > FAR_MODEL * parameters:
        found.append(
            f"the target's model has {target.model:,} parameters, {target.model / parameters:,.0f} times the "
            f"{parameters:,} of the reference model: the order of recipes may not hold there; compare the recipe on a "
            "larger model before it is used (kind transfer, djsb show scaling)"
        )
    share = 1 / study.pools.buckets
    times = target.repetition(share)
    samples = target.samples or (times * share * target.rows if times and target.rows else None)
    if samples and samples > FAR_SAMPLES * probe.samples:
        found.append(
            f"the target trains on {samples:,.0f} samples, {samples / probe.samples:,.0f} times the {probe.samples:,} "
            "of a probe: effects may fade with more training; give the search longer trials, or compare at more (kind "
            "transfer)"
        )
    if times and not 1 / APART < probe.epochs / times < APART:
        found.append(
            f"a probe sees each row {probe.epochs:.3g} times, and the target {times:.3g} times under a recipe that "
            f"keeps 1/{study.pools.buckets} of the rows: lower train.epochs, or give more rows"
        )
    return found
