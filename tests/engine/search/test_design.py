"""What a design costs, and what it can name."""

from __future__ import annotations

import math
from dataclasses import replace

from engine.search.design import Design, chance, price, smallest_effect
from engine.settings.search import MEDIUM, SearchSection

LOW = Design(60, *SearchSection(effort="low").course, all_data=False)


def test_the_price_of_a_design() -> None:
    """Of 60 pools: 34 whole trainings at most for the race, then candidates and control."""
    plain = price(LOW)
    assert (plain.race, plain.screen, plain.confirm) == (34.0, 0.0, 2 * 5 + 7)
    screened = price(replace(LOW, screen=8, seeds=10))
    assert screened.race == plain.race
    assert screened.screen == 9 * (4 - 0.5 * 2)  # they go on from two halves
    assert price(replace(LOW, all_data=True)).total == plain.total + 5
    course = SearchSection(effort="medium").course
    assert price(Design(60, *course)).race > 2 * plain.race
    assert price(Design(60, *course, screen=10)).screen == 0  # its last rung is one


def test_what_a_design_can_name() -> None:
    """More of each names smaller effects; a chance falls to the error where nothing differs."""
    plain = chance(LOW, 2.0)
    assert 0.6 < plain < 0.95
    screened = replace(LOW, screen=8, seeds=10)
    assert chance(screened, 1.0) > chance(LOW, 1.0) + 0.2
    assert chance(screened, 2.0) > 0.95
    assert smallest_effect(screened) < smallest_effect(LOW) < 3
    assert chance(LOW, 0.0) == 0
    assert chance(replace(LOW, noise=3.0), 2.0) < plain
    assert math.isfinite(smallest_effect(Design(5, *SearchSection().course, seeds=2, candidates=1)))


def test_effort_sets_the_rungs() -> None:
    """`low` and `auto` are what stands by default; without effort the rungs hold as they stand."""
    assert SearchSection(effort="low").course == SearchSection().course == SearchSection(effort="auto").course
    rungs, keeps = SearchSection(effort="medium").course
    assert rungs == MEDIUM and len(keeps) == len(rungs)
    mine = SearchSection(rungs=((1.0, 2),), keep=0.3)
    assert mine.course == (((1.0, 2),), (0.3,))
