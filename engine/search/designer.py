"""Fits a study to its budget: how many pools of what size race how far, and how many fresh seeds confirm.

The confirmation, with the arm of all rows, is paid for first. Of what is affordable the designer takes that which most
likely names a truly better recipe (`design.py`), where of more pools the best lies higher.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.base.amounts import budget_text, format_seconds, parse_budget
from engine.records.design import StudyDesign
from engine.search.control import control_seeds
from engine.search.design import Design, chance, smallest_effect
from engine.search.units import confirming, probed, recipes, units
from engine.settings.study import Study, with_fields
from engine.study.opened import OpenStudy

SAFE = 0.85  # of a budget that is planned with: estimates are of a few steps; what is left confirms more surely
STEPS = 100  # of a training, at least, where the study's own has as many
SHRINK = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08)  # sizes of pools that are tried, of the common size
POOLS = (6, 9, 12, 18, 24, 36, 48)  # and numbers of pools, beside all
MOST_SEEDS = 40  # fresh, of a candidate
LARGE, CLEAR, FAIR = 2.0, 4.0, 0.5  # effects in standard deviations of a seed; the chance that the least budget gives
BETTER = 0.8  # of the smallest effect: that a larger budget is told for

Estimate = Callable[[float], float]  # trained samples → device-seconds of a trial


@dataclass(frozen=True)
class Level:
    """How much is done. combine: top, clusters, max. screen: recipes, seeds."""

    effort: str
    combine: tuple[int, int, int]
    screen: tuple[int, int]
    candidates: int
    seeds: int
    rates: tuple[int, ...] = ()


LEVELS = (
    Level("low", (1, 0, 1), (0, 4), 1, 3),
    Level("low", (1, 0, 1), (0, 4), 1, 5),
    Level("low", (2, 0, 1), (0, 4), 1, 7),
    Level("low", (2, 0, 1), (0, 4), 2, 7),
    Level("low", (2, 0, 1), (3, 3), 1, 8),
    Level("low", (2, 2, 2), (4, 3), 2, 8),
    Level("low", (3, 2, 4), (6, 4), 2, 10),
    Level("low", (3, 2, 4), (8, 4), 2, 12),
    Level("low", (3, 3, 8), (10, 4), 3, 16, (2,)),
    Level("low", (3, 3, 12), (12, 6), 2, 20, (2, 4)),
    Level("medium", (3, 3, 12), (12, 6), 3, 32, (2, 4, 8)),
)


@dataclass(frozen=True)
class Option:
    """A design with its price. study: with its sizes. full: the common size over the option's, 1 or more."""

    study: Study
    fields: dict[str, Any]
    pools: int
    every: int
    ops: int
    size: int
    full: float
    seconds: dict[str, float]

    @property
    def total(self) -> float:
        """Device-seconds of all stages."""
        return sum(self.seconds.values())


def sizes_of(study: Study, pools: int, ops: int, rungs: tuple[tuple[float, int], ...]) -> Design:
    """The model of a study's search."""
    _, several = recipes(study, ops) if study.search.strategy != "mixtures" else (0, 0)
    made = Design.of(study, pools, several)
    if study.search.strategy == "race":
        return replace(made, rungs=rungs, keeps=made.keeps[: len(rungs)])
    seeds = 1 if study.search.strategy == "mixtures" else study.search.seeds
    return replace(made, rungs=((1.0, seeds),), keeps=(0.5,))


def worth(option: Option, opened: OpenStudy) -> float:
    """P that a better recipe is named, times how high the best of so many pools lies among all."""
    model = sizes_of(option.study, option.pools, option.ops, _at(opened, option.study).rungs)
    named = [chance(model, effect / math.sqrt(option.full)) for effect in (LARGE / 2, LARGE)]
    return sum(named) * math.sqrt(math.log1p(option.pools) / math.log1p(option.every))


def effect_of(option: Option, opened: OpenStudy) -> float | None:
    """The smallest effect that is named with 80 %, in standard deviations of a seed; None where there is none."""
    return effect_at(_at(opened, option.study), option.pools)


def effect_at(opened: OpenStudy, pools: int) -> float | None:
    """The same of a study as it is now."""
    found = smallest_effect(sizes_of(opened.study, pools, len(opened.op_plan[0]), opened.rungs))
    return found if math.isfinite(found) else None


class Designer:
    """All designs of a study with their prices. estimate: of a trial."""

    def __init__(self, opened: OpenStudy, estimate: Estimate) -> None:
        self.opened, self.estimate = opened, estimate
        bare = with_fields(opened.study, {} if "pools.most" in opened.own else {"pools.most": None})
        whole = _at(opened, bare)
        self.pools, self.ops = probed(whole)
        self.common = whole.probe.common
        self.options = list(self._options())

    def _options(self) -> Iterator[tuple[int, Option]]:
        """(level, option): every size, number of pools and level."""
        for size in self._sizes():
            for pools in dict.fromkeys([n for n in POOLS if n < 0.8 * self.pools] + [self.pools]):
                for number, level in enumerate(LEVELS):
                    yield number, self._option(size, pools, level)

    def _sizes(self) -> list[int]:
        if "pools.size" in self.opened.own:
            return [self.common]
        train = self.opened.study.train
        least = min(self.common, math.ceil(STEPS * train.batch_size / train.epochs))
        least = max(least, min(self.common, self.opened.fewest_rows))
        return list(dict.fromkeys(max(least, round(self.common * part)) for part in SHRINK))

    def _option(self, size: int, pools: int, level: Level, seeds: int | None = None) -> Option:
        top, clusters, most = level.combine
        fields = {
            "pools.size": size, "pools.most": max(2, pools) if pools < self.pools else None,
            "search.top": max(2, min(5, pools // 3)), "search.effort": level.effort,
            "search.screen.top": min(level.screen[0], pools), "search.screen.seeds": level.screen[1],
            "combine.top": top, "combine.clusters": clusters, "combine.max": most, "scale.rates": list(level.rates),
            "confirm.candidates": level.candidates, "confirm.seeds": seeds or level.seeds,
        }  # fmt: skip
        own = {*self.opened.own}
        if own & {"search.rungs", "search.keep"}:
            own.add("search.effort")
        fields = {name: value for name, value in fields.items() if name not in own}
        study = with_fields(self.opened.study, fields)
        probe = min(self.pools, study.pools.most or self.pools)
        made = Option(study, fields, probe, self.pools, self.ops, size, self.common / size, {})
        return replace(made, seconds=self._price(made))

    def _price(self, option: Option) -> dict[str, float]:
        """Stage → device-seconds."""
        per_trial = option.size * option.study.train.epochs
        found: dict[str, float] = {}
        for u in units(_at(self.opened, option.study), (option.pools, self.ops)):
            if u.trials:
                seconds = u.trials * self.estimate(per_trial * u.length / u.trials)
                found[u.stage] = found.get(u.stage, 0.0) + seconds
        return found

    def best(self, limit: float) -> Option | None:
        """The design that a budget buys, with as many fresh seeds as it has room for; None where it buys none."""
        highest: dict[tuple[int, int], tuple[int, Option]] = {}
        for number, option in self.options:
            if option.total <= SAFE * limit:
                highest[option.size, option.pools] = (number, option)
        if not highest:
            return None
        number, chosen = max(highest.values(), key=lambda found: worth(found[1], self.opened))
        if "confirm.seeds" in self.opened.own:
            return chosen
        for seeds in range(chosen.study.confirm.seeds + 1, MOST_SEEDS + 1):
            more = self._option(chosen.size, chosen.pools, LEVELS[number], seeds)
            if more.total > SAFE * limit:
                break
            chosen = more
        return chosen

    def least(self) -> tuple[float, Option]:
        """(the smallest budget that can end in a confirmed answer, its design)."""
        ordered = sorted((o for _, o in self.options), key=lambda o: o.total)
        for option in ordered:
            model = sizes_of(option.study, option.pools, option.ops, _at(self.opened, option.study).rungs)
            if chance(model, CLEAR / math.sqrt(option.full)) >= FAIR:
                return option.total / SAFE, option
        return ordered[-1].total / SAFE, ordered[-1]

    def step(self, limit: float, now: Option) -> tuple[float, str] | None:
        """(budget, what it would buy) of the next larger one that buys clearly more; None where none does."""
        effect = effect_of(now, self.opened) or math.inf
        for factor in (1.25, 1.5, 2, 3, 4, 6, 10):
            more = self.best(factor * limit)
            if more is None or more.total <= now.total:
                continue
            found = effect_of(more, self.opened) or math.inf
            if found <= BETTER * effect or (more.pools >= 1.4 * now.pools and found <= effect):
                return parse_budget(budget_text(factor * limit)), bought(
                    more.pools, more.size, effect_of(more, self.opened), None
                )
        return None

    def design(self, limit: float, anyway: bool = False) -> StudyDesign | None:
        """The design for a budget, as it is stored. anyway: below the least, that of the least; else None there."""
        least, cheapest = self.least()
        chosen = self.best(limit) if limit >= least else cheapest if anyway else None
        if chosen is None:
            return None
        n = confirming(chosen.study)
        fewest = confirming(with_fields(chosen.study, _fewest(self.opened)))
        return StudyDesign(
            limit, chosen.fields, self.opened.own, chosen.pools, chosen.size, chosen.seconds, (n, min(n, fewest)),
            chosen.study.confirm.seeds, effect_of(chosen, self.opened), least, self.step(max(limit, least), chosen),
            limit < least,
        )  # fmt: skip


def _fewest(opened: OpenStudy) -> dict[str, Any]:
    """The smallest confirmation, as far as study.yaml leaves it open."""
    smallest = {"confirm.candidates": 1, "confirm.seeds": LEVELS[0].seeds}
    return {name: value for name, value in smallest.items() if name not in opened.own}


def _at(opened: OpenStudy, study: Study) -> OpenStudy:
    """The study with other sizes, to ask what they come to."""
    other = copy.copy(opened)
    other.adopt(study)
    return other


def bought(pools: int, size: int, effect: float | None, noise: float | None) -> str:
    """`14 pools of 3,000 rows, an effect of ≥ 1.3 standard deviations of a seed at 80 % power; confirmed at the end`.

    noise: a seed's standard deviation in percent, where it was measured.
    """
    if effect is None:
        told = "no effect is sure to be named"
    elif noise is None:
        told = f"an effect of ≥ {effect:.1f} standard deviations of a seed at 80 % power"
    else:
        told = f"an effect of ≥ {effect * noise:.2g} % at 80 % power (a seed's standard deviation is {noise:.2g} %)"
    return f"{pools} pools of {size:,} rows, {told}; confirmed at the end"


def told(design: StudyDesign, study: Study, noise: float | None) -> list[str]:
    """What a design is, what it buys, what more would buy, and what the least is, in sentences."""
    search, confirm = study.search, study.confirm
    rest = ", and all your data" if confirm.all_data else ""
    control = control_seeds(confirm.seeds, confirm.candidates)
    parts = [f"{search.strategy} over {design.pools} pools"]
    if "combine" in design.seconds:
        parts.append(f"at most {study.combine.max} combination{'s' * (study.combine.max != 1)}")
    if "scale" in design.seconds:
        parts.append(f"repetition × {', '.join(map(str, study.scale.rates))}")
    if search.screen.top:
        parts.append(f"the best {search.screen.top} at full length on {search.screen.seeds} seeds")
    parts.append(
        f"{confirm.candidates} candidate{'s' * (confirm.candidates != 1)} on {confirm.seeds} fresh seeds against a "
        f"random sample on {control}{rest}"
    )
    limit, reserve = format_seconds(design.limit), format_seconds(design.seconds.get("confirm", 0.0))
    lines = [
        f"A budget of {limit} buys {bought(design.pools, design.size, design.effect, noise)}."
        if not design.unreserved
        else f"A budget of {limit} is below the least that can end in a confirmed answer: it is searched only.",
        f"Design: {'; '.join(parts)}. About {format_seconds(design.total)}, of which {reserve} are reserved for the "
        "confirmation.",
    ]
    if design.explicit:
        lines.append(f"As study.yaml says: {', '.join(_shown(study, name) for name in design.explicit)}.")
    if design.step:
        lines.append(f"With {budget_text(design.step[0])}: {design.step[1]}.")
    lines.append(f"The least that can end in a confirmed answer is {budget_text(design.least)}.")
    return lines


def _shown(study: Study, name: str) -> str:
    value: Any = study
    for part in name.split("."):
        value = getattr(value, part)
    return f"{name} {list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value}"
