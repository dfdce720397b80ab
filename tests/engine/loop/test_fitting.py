"""The budget in the loop: refused where it cannot end in an answer, reserved for the confirmation, spent to its end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import yaml

from engine.base.amounts import budget_text
from engine.evidence.answer import answer
from engine.journal import proposals, results, trials
from engine.journal.results import Calibration
from engine.loop import fitting
from engine.loop.outcome import analyse
from engine.proposals import queue
from engine.records.metric import Metric
from engine.runner.accounts import Accounts
from engine.search.designer import SAFE
from engine.search.grid import Paper, confirm
from engine.study.opened import OpenStudy, open_study
from tests.conftest import SETTINGS, Tiny, run_djsb, the_error

OPS = {"text_length_filter": {}, "words_num_filter": {}, "special_characters_filter": {}}
LIMIT = 4000.0


def write(tiny: Tiny, **change: object) -> None:
    """The tiny study with its sizes left open."""
    plain = {name: value for name, value in SETTINGS.items() if name != "search"}
    tiny.study.mkdir(exist_ok=True)
    (tiny.study / "study.yaml").write_text(yaml.safe_dump({**plain, "design": "auto", "ops": OPS, **change}))


@pytest.fixture
def opened(tiny: Tiny) -> Iterator[OpenStudy]:
    """A study in which a trial takes two seconds a row and epoch, and ten beside those."""
    write(tiny)
    with (found := open_study(tiny.study, 1)).store:
        found.metrics = [Metric("accuracy", True, 0, 1)]
        found.record()
        results.CALIBRATION.put(found.store, found.setup, Calibration(2.0, 10.0, {1: 2.0}, 1, "cpu0"))
        yield found


def give(opened: OpenStudy, stage: str, gain: float, seconds: float, seeds: int = 99) -> None:
    """Results of a stage: texts that are short are better by `gain`; every trial has taken so long."""
    for proposal in Paper(stage).propose(opened):
        queue.ensure_trials(opened, proposal)
        key, notes = queue.stored_id(opened, proposal), {"gate": "passes", "limit": LIMIT}
        proposals.put(opened.store, key, opened.setup, proposal, "approved", None, notes)
    for t in trials.of_setup(opened.store, opened.setup):
        if t.stage == stage and t.state != "COMPLETE" and t.seed % 1000 < seeds:
            value = 0.5 + (gain if t.label == "text_len low" else 0.0) + 0.004 * ((t.seed * 7 + len(t.label)) % 5)
            opened.store.put("metrics", {"trial": t.id, "name": "accuracy", "value": value})
            opened.store.execute("UPDATE trials SET state = 'COMPLETE', seconds = ? WHERE id = ?", (seconds, t.id))
            opened.store.put("costs", {"id": t.id, "kind": "trial", "trial": t.id, "stage": stage, "device": "cpu0",
                                       "samples": t.samples, "seconds": seconds, "at": "2026"})  # fmt: skip


def search(opened: OpenStudy, gain: float = 0.2, seconds: float = 20.0) -> Accounts:
    """The design of a budget, and a search of one seed a pool."""
    accounts = Accounts(opened, LIMIT)
    fitting.begin(opened, accounts, anyway=False)
    opened.record()
    give(opened, "probe", gain, seconds)
    return accounts


def test_exploring_stops_where_the_confirmation_is_paid_for(opened: OpenStudy) -> None:
    accounts = Accounts(opened, LIMIT)
    told = fitting.begin(opened, accounts, anyway=False)
    design = results.DESIGN.get(opened.store, opened.setup)
    assert design is not None and told[0].startswith("A budget of 66.7 min buys ")
    assert accounts.until("probe") <= accounts.until("combine") <= accounts.until("scale") <= accounts.until("screen")
    assert accounts.until("screen") <= LIMIT - SAFE * design.seconds["confirm"]
    assert accounts.until("confirm") == LIMIT
    assert accounts.until("probe") >= design.seconds["probe"]
    assert opened.study.confirm.seeds == design.planned
    fitting.begin(opened, Accounts(opened, 2 * LIMIT), anyway=False)  # resumed with more: nothing that ran is stranded
    again = results.DESIGN.get(opened.store, opened.setup)
    assert again == replace(design, limit=2 * LIMIT)


def test_a_confirmation_gets_as_many_seeds_as_what_is_left_pays_for(opened: OpenStudy) -> None:
    accounts = search(opened)
    fitting.fit(opened, accounts)
    design = results.DESIGN.get(opened.store, opened.setup)
    assert design is not None and design.fitted == (opened.study.confirm.candidates, opened.study.confirm.seeds)
    each = accounts.estimate(confirm(opened)[0].pools[0].samples) or 0.0
    left = LIMIT - accounts.spent()
    asked = sum(len(p.runs) for p in confirm(opened)) * each
    assert asked <= left and (asked > 0.7 * left or opened.study.confirm.seeds == fitting.MOST_SEEDS)


def test_a_confirmation_that_the_budget_ends_is_read_at_the_seeds_that_all_have(opened: OpenStudy) -> None:
    accounts = search(opened)
    fitting.fit(opened, accounts)
    assert opened.study.confirm.seeds > 3
    give(opened, "confirm", 0.2, 20.0, seeds=3)
    assert fitting.read_what_ran(opened)
    assert opened.study.confirm.seeds == 3
    analyse(opened, "confirm")
    recipe = results.RECIPE.get(opened.store, opened.setup)
    assert recipe is not None and recipe.label.startswith("text_len low") and recipe.seeds == 3
    assert results.LOOKS.get(opened.store, opened.setup) == [3] and fitting.has_concluded(opened)


def test_what_seemed_too_dear_goes_on_once_what_has_run_says_otherwise(opened: OpenStudy) -> None:
    accounts = search(opened)
    slow = accounts.limit = accounts.spent() + 90.0  # by the search a trial takes far more than a tenth of that
    opened.store.execute("UPDATE trials SET seconds = 400")
    fitting.fit(opened, accounts)
    assert (opened.study.confirm.candidates, opened.study.confirm.seeds) == (1, 2)
    statuses = [queue.submit(opened, p, accounts)[0] for p in confirm(opened)]
    assert statuses == ["refused", "refused"] and not fitting.fits_now(opened, accounts)
    opened.store.execute("UPDATE trials SET seconds = 5")  # the machine is free again
    assert slow == accounts.limit and fitting.fits_now(opened, accounts)
    assert opened.study.confirm.seeds >= 3
    assert [queue.submit(opened, p, accounts)[0] for p in confirm(opened)] == ["queued"] * opened.study.confirm.seeds


def test_one_seed_is_not_read_and_nothing_is_claimed_of_it(opened: OpenStudy) -> None:
    accounts = search(opened)
    fitting.fit(opened, accounts)
    give(opened, "confirm", 0.2, 20.0, seeds=1)
    assert not fitting.read_what_ran(opened)
    opened.store.event("budget", "it is spent", "confirm", "warning")
    analyse(opened, "confirm")
    assert not fitting.has_concluded(opened)
    told = answer(opened)
    assert told.kind == "open" and "ended in the confirmation" in told.text and "djsb auto --budget" in told.remedy


def test_what_is_left_after_nothing_was_confirmed_pays_for_more_seeds(opened: OpenStudy) -> None:
    accounts = search(opened, gain=0.004)
    fitting._use(opened, 1, 2, "as it happens")
    give(opened, "confirm", 0.0, 20.0)
    analyse(opened, "confirm")
    assert fitting.has_concluded(opened) and results.RECIPE.get(opened.store, opened.setup) is None
    assert fitting.extend(opened, accounts)
    assert opened.study.confirm.seeds > 4 and results.LOOKS.get(opened.store, opened.setup) == [2]
    accounts.limit = accounts.spent() * 1.05
    assert not fitting.extend(opened, accounts)


def test_a_search_that_a_person_wants_anyway_may_use_the_whole_budget(opened: OpenStudy) -> None:
    few = Accounts(opened, 60.0)
    with pytest.raises(fitting.TooLittle, match=r"the least that can is \d+min"):
        fitting.begin(opened, few, anyway=False)
    assert "searched only" in fitting.begin(opened, few, anyway=True)[0]
    assert few.until("probe") == few.until("confirm") == 60.0
    give(opened, "probe", 0.2, 15.0)
    fitting.fit(opened, few)
    for proposal in confirm(opened):
        queue.submit(opened, proposal, few)
    analyse(opened, "confirm")
    told = answer(opened)
    assert (told.kind, "ended before the confirmation" in told.text) == ("open", True)
    least = results.DESIGN.get(opened.store, opened.setup)
    assert least is not None and budget_text(least.least) in told.remedy
    fitting.begin(opened, Accounts(opened, LIMIT), anyway=False)  # with more it is confirmed
    fitting.fit(opened, Accounts(opened, LIMIT))
    assert Accounts(opened, LIMIT).until("probe") < LIMIT and opened.study.confirm.seeds > 3


def test_a_budget_that_cannot_end_in_an_answer_is_refused_with_the_least_that_can(tiny: Tiny) -> None:
    write(tiny, train={"epochs": 4, "batch_size": 16, "micro_batch": 8})
    error = the_error(run_djsb("auto", tiny.study, "--budget", "2s", "--workers", 1))
    assert "cannot end in a confirmed answer here; the least that can is " in error
    assert "or --anyway to search without a confirmation" in error
    assert not (tiny.study / "report").exists()
