"""The study's answer: each sentence follows from what ran."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.base.paths import STATE_FOLDER, STUDY_FILE
from engine.evidence.answer import answer
from engine.evidence.ranking import rank
from engine.evidence.recipe import confirmed
from engine.evidence.recipe_file import write_recipe
from engine.journal import pools, results
from engine.journal.store import Store, now
from engine.records.answer import WITHHELD
from engine.records.leaderboard import Recipe
from engine.records.metric import Metric
from engine.records.pool import ALL_ROWS, Layer, Pool, Slice
from engine.records.proposal import Arm, Proposal
from engine.records.trial import FRESH
from engine.settings.study import Study, study_yaml
from engine.study.setting import earlier, shown
from engine.study.view import StudyView, view_study

OP = "text_length_filter"
LOW = Pool((Layer((Slice(OP, "text_len", high=10.0),)),), 100)
HIGH = Pool((Layer((Slice(OP, "text_len", low=10.0),)),), 100)
CONTROL, EVERY = Pool((Layer(),), 100), Pool(ALL_ROWS, 300)
NAMES = {LOW: ("text_len low", "single"), HIGH: ("text_len high", "single"), CONTROL: ("control", "control"),
         EVERY: ("all rows", "all")}  # fmt: skip
STEADY = (0.0, 0.004, -0.003, 0.002, -0.004)


class Made:
    """A study's database with results written by hand, one setup after another."""

    def __init__(self, folder: Path, **change: object) -> None:
        self.folder = folder
        self.store = Store(folder / STATE_FOLDER / "study.db")
        self.clock = 0
        self.begin("a" * 12, **change)

    def begin(self, setup: str, **change: object) -> None:
        """The engine records the study, perhaps with other settings than before."""
        content = {"name": "x", "task": "clip", "dataset": {"path": "d.jsonl", "images": "images"}, "ops": {OP: {}},
                   "evaluation": {"path": "e.jsonl"}, "confirm": {"seeds": 2, "candidates": 1}, **change}  # fmt: skip
        self.study, self.setup = Study.model_validate(content), setup
        (self.folder / STUDY_FILE).write_text(study_yaml(self.study))
        self.store.put("setups", {
            "setup": setup, "name": "x", "dataset": "d", "evaluation": "e", "version": "0", "at": now(),
            "config": self.study.model_dump_json(),
        })  # fmt: skip
        results.METRIC_SCALES.put(self.store, setup, (Metric("accuracy", True, 0, 1),))

    def trials(self, stage: str, pool: Pool, seeds: range, value: float | None, state: str = "COMPLETE") -> None:
        """Trials of a pool; those that are complete scored about `value`."""
        label, kind = NAMES[pool]
        with self.store.transaction():
            pools.add(self.store, pool, label, kind)
            for seed in seeds:
                self.clock += 1
                key = f"{pool.id[:6]}{self.setup[0]}{self.clock:05x}"
                done = state == "COMPLETE"
                self.store.put("trials", {
                    "id": key, "setup": self.setup, "pool": pool.id, "seed": seed, "samples": 100, "horizon": 100,
                    "stage": stage, "proposal": "d" * 12, "state": state, "seconds": 10.0 if done else None,
                    "finished": now() if state in ("COMPLETE", "FAIL") else None,
                    "error": "it broke" if state == "FAIL" else None,
                })  # fmt: skip
                if done and value is not None:
                    noise = STEADY[(seed + len(label)) % len(STEADY)]
                    self.store.put("metrics", {"trial": key, "name": "accuracy", "value": value + noise})

    def probe(self, low: float, high: float) -> None:
        """The search at two seeds: the pools against a control of 0.5."""
        for pool, value in ((CONTROL, 0.5), (LOW, low), (HIGH, high)):
            self.trials("probe", pool, range(2), value)

    def confirm(self, status: str, gate: str = "passes", every: bool = True) -> None:
        """The confirmation is proposed."""
        arms = [CONTROL, LOW, *([EVERY] if every else [])]
        told = [{"pool": p.to_json(), "label": NAMES[p][0], "kind": NAMES[p][1], "samples": 100} for p in arms]
        proposal = Proposal(
            origin="paper", kind="seeds", stage="confirm", pools=tuple(Arm.model_validate(t) for t in told),
            seeds=(FRESH, FRESH + 1), reason="r",
        )  # fmt: skip
        content = proposal.model_dump(mode="json") | {"gate": gate, "limit": 10.0}
        from engine.journal import proposals

        with self.store.transaction():
            proposals.put_content(self.store, "c" * 12, self.setup, "paper", "seeds", "confirm", status, 1.0, content)

    def fresh(self, low: float, every: float | None) -> None:
        """Its trials have run."""
        for pool, value in ((CONTROL, 0.5), (LOW, low), *(((EVERY, every),) if every is not None else ())):
            self.trials("confirm", pool, range(FRESH, FRESH + 2), value)

    def conclude(self, confirmed: bool) -> None:
        """The end of the stage."""
        recipe = None
        if confirmed:
            (first,) = [r for r in rank(self.view, fresh=True) if r.pool == LOW]
            recipe = Recipe(**first.entry().__dict__, samples=100, repetition=1, kept=90, rows=300)
        results.RECIPE.put(self.store, self.setup, recipe)

    @property
    def view(self) -> StudyView:
        return view_study(self.folder)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    study = Made(tmp_path)
    yield study
    study.store.close()


def test_a_study_without_a_finished_trial_claims_nothing(made: Made) -> None:
    for state, said in (("WAITING", "djsb auto goes on"), ("FAIL", "1 of 2")):
        made.trials("probe", CONTROL, range(1), None, state)
        told = answer(made.view)
        assert told.kind == "open" and told.text.startswith("No answer yet: no trial has finished")
        assert said in " ".join(told.lines)
        assert "beat" not in " ".join(told.lines) and "better" not in " ".join(told.lines)


def test_a_study_without_a_task_says_so(tmp_path: Path) -> None:
    made = Made(tmp_path, task=None)
    assert "no task" in answer(made.view).text


def test_a_search_that_goes_on_names_its_leader_and_confirms_nothing(made: Made) -> None:
    made.probe(0.6, 0.45)
    told = answer(made.view)
    assert told.kind == "open" and "nothing is confirmed before it ends" in told.text
    assert told.reasons[0].startswith("text_len low leads the search (100 rows): +20.0 %")


def test_no_pool_beat_the_control_is_said_only_where_that_happened(made: Made) -> None:
    made.probe(0.45, 0.4)
    made.conclude(False)
    told = answer(made.view)
    assert told.kind == "none" and "no pool did better" in told.text
    made.trials("probe", LOW, range(2, 9), 0.9)
    made.trials("probe", CONTROL, range(2, 9), 0.5)
    assert "no pool did better" not in answer(made.view).text


@pytest.mark.parametrize("ran", [False, True])
def test_a_budget_that_ends_before_the_confirmation_is_the_reason(made: Made, ran: bool) -> None:
    made.probe(0.6, 0.45)
    made.confirm("refused", "budget: it would take 60 s and 3 s may be spent on this stage")
    if ran:
        made.trials("confirm", CONTROL, range(FRESH, FRESH + 1), 0.5)
    made.conclude(False)
    told = answer(made.view)
    when = "in" if ran else "before"
    assert told.kind == "open" and told.text.endswith(f"ended {when} the confirmation.")
    assert "no pool" not in " ".join(told.lines) and "none of" not in " ".join(told.lines)
    assert f"takes about {30 if ran else 40} s: djsb auto --budget" in told.remedy


@pytest.mark.parametrize(("every", "said"), [
    (0.5, "It beats all your data"), (0.9, "It does not beat all your data"), (None, "it was not compared with all"),
])  # fmt: skip
def test_a_recipe_is_told_against_a_random_sample_and_against_all_rows(
    made: Made, every: float | None, said: str
) -> None:
    made.probe(0.6, 0.45)
    made.confirm("approved", every=every is not None)
    made.fresh(0.6, every)
    made.conclude(True)
    told = answer(made.view)
    assert told.kind == "recipe" and told.recipe and told.recipe.label == "text_len low"
    assert "Recipe: text_len low. Against a random sample of the same size: +20.0 %, at least +" in told.text
    assert "“At least” is a one-sided bound at 95 %" in " ".join(told.reasons)
    assert said in " ".join(told.lines)
    assert (told.against_all is None) == (every is None)
    assert told.blind == [WITHHELD]


def test_a_confirmation_that_confirms_nothing_says_what_it_measured(made: Made) -> None:
    made.probe(0.6, 0.45)
    made.confirm("approved")
    made.fresh(0.5, 0.55)
    made.conclude(False)
    told = answer(made.view)
    assert told.kind == "none" and "none of 1 candidate is shown to beat" in told.text
    assert "against all your data -" in told.reasons[0]
    assert told.blind == [WITHHELD]


def test_a_candidate_that_was_left_at_one_fresh_seed_is_none_any_more(made: Made) -> None:
    """The search went on after a budget had ended, and chose others."""
    made.probe(0.6, 0.45)
    made.confirm("approved")
    made.fresh(0.6, 0.55)
    made.trials("confirm", HIGH, range(FRESH, FRESH + 1), 0.7)
    assert [r.label for r in confirmed(made.view)] == ["text_len low"]
    made.trials("confirm", HIGH, range(FRESH + 1, FRESH + 2), 0.7)
    assert len(confirmed(made.view)) == 2


def test_results_of_an_earlier_setting_are_marked_until_there_are_new_ones(made: Made) -> None:
    made.probe(0.6, 0.45)
    before = made.setup
    assert shown(made.view)[1] == ""
    changed = made.study.model_copy(update={"train": made.study.train.model_copy(update={"epochs": 3.0})})
    (made.folder / STUDY_FILE).write_text(study_yaml(changed))
    assert "study.yaml has changed since (train.epochs" in answer(made.view).reasons[0]
    made.begin("b" * 12, train={"epochs": 3.0})
    view, said = shown(made.view)
    assert view.setup == before and "of an earlier setting (train.epochs" in said
    assert answer(made.view).reasons[0] == said
    made.probe(0.45, 0.4)
    view, said = shown(made.view)
    assert view.setup == "b" * 12 and not said
    assert [s.view.setup for s in earlier(made.view)] == [before]


def test_a_recipe_of_an_earlier_setting_stays_and_says_so_until_there_are_new_results(made: Made) -> None:
    made.probe(0.6, 0.45)
    made.confirm("approved")
    made.fresh(0.6, 0.55)
    made.conclude(True)
    file = write_recipe(made.folder)
    assert file and "earlier setting" not in file.read_text()
    assert "+20.0 %, at least +" in file.read_text() and "(one-sided, at 95 %; two-sided interval [" in file.read_text()
    made.begin("b" * 12, train={"epochs": 3.0})
    assert write_recipe(made.folder) == file
    assert "of an earlier setting (train.epochs 4.0 → 3.0)" in file.read_text()
    assert answer(made.view).recipe
    made.probe(0.45, 0.4)
    assert write_recipe(made.folder) is None and not file.exists() and answer(made.view).recipe is None
