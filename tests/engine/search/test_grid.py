"""The paper's procedure: what it proposes from evidence whose answer is known."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from engine.evidence.answer import answer
from engine.loop.outcome import analyse
from engine.proposals import queue as proposal_queue
from engine.records.metric import Metric
from engine.records.pool import Layer
from engine.search import grid as paper
from engine.study.opened import OpenStudy, open_study
from tests.conftest import Tiny

OPS = {"text_length_filter": {}, "words_num_filter": {}, "special_characters_filter": {}}


@pytest.fixture
def opened(tiny: Tiny) -> OpenStudy:
    tiny.set(
        {"ops": OPS, "search": {"seeds": 2}, "combine": {"top": 2, "clusters": 2, "floor": 0.1}, "pools": {"size": 32}}
    )
    made = open_study(tiny.study, 1)
    made.metrics = [Metric("accuracy", True, 0, 1)]
    made.record()
    return made


def give(opened: OpenStudy, stage: str, score: Callable[[str, int], float]) -> None:
    """Store results for all trials of a stage's proposals: what the loop would have measured."""
    for proposal in paper.Paper(stage).propose(opened):
        proposal_queue.ensure_trials(opened, proposal)
    for t in opened.store.query(
        "SELECT t.id, t.seed, p.label FROM trials t JOIN pools p ON p.id = t.pool WHERE t.stage = ?", (stage,)
    ):
        value = score(t["label"], t["seed"])
        opened.store.put("metrics", {"trial": t["id"], "name": "accuracy", "value": value})
        opened.store.execute("UPDATE trials SET state = 'COMPLETE', seconds = 1 WHERE id = ?", (t["id"],))


def short_is_good(label: str, seed: int) -> float:
    gain = 0.0
    for part in label.split(" + "):
        gain += {"text_len low": 0.1, "num_words low": 0.06}.get(
            part.split(" ×")[0], 0.0 if part == "control" else -0.02
        )
    return 0.5 + gain + 0.001 * (seed % 3)


def test_the_probe_is_3n_plus_1_equal_pools_a_seed(opened: OpenStudy) -> None:
    first, second = paper.probe(opened)
    sound = [c for c in opened.cuts if c.reason is None]
    assert len(first.pools) == len(sound) + 1
    assert {p.to_pool().size for p in first.pools} == {32}
    assert len({p.samples for p in first.pools}) == 1
    assert (first.seeds, second.seeds) == ((0,), (1,))
    assert sum(p.to_pool().is_control for p in first.pools) == 1


def test_combinations_are_the_lattice_of_the_best_at_one_size(opened: OpenStudy) -> None:
    give(opened, "probe", short_is_good)
    first = paper.combine(opened)[0]
    pools = [p.to_pool() for p in first.pools]
    assert len({p.size for p in pools}) == 1
    labels = [p.label for p in first.pools]
    assert "text_len low + num_words low" in labels
    assert all("high" not in label for label in labels if label != "control")
    assert first.cites


def test_no_combination_without_a_second_slice_that_helps(opened: OpenStudy) -> None:
    give(opened, "probe", lambda label, seed: 0.6 if label == "text_len low" else 0.5 if label == "control" else 0.4)
    assert paper.combine(opened) == []


def test_nothing_is_confirmed_when_nothing_beats_the_control(opened: OpenStudy) -> None:
    give(opened, "probe", lambda label, seed: 0.5 if label == "control" else 0.4)
    assert paper.combine(opened) == []
    assert paper.confirm(opened) == []
    assert paper.scale(opened) == []


def test_a_stage_proposes_the_same_while_its_own_results_come_in(opened: OpenStudy) -> None:
    give(opened, "probe", short_is_good)
    before = [p.id for p in paper.combine(opened)]
    give(opened, "combine", lambda label, seed: 0.9 if "+" in label else 0.1)
    assert [p.id for p in paper.combine(opened)] == before


def test_scaling_adds_looser_layers_below_the_recipe(opened: OpenStudy) -> None:
    give(opened, "probe", short_is_good)
    give(opened, "combine", lambda label, seed: 0.9 if "+" in label else short_is_good(label, seed))
    proposal = paper.scale(opened)[0]
    by_kind = {p.kind: p.to_pool() for p in proposal.pools}
    recipe = by_kind["repetition"].slices
    layers = by_kind["layers"].layers
    assert layers[0].slices == recipe
    assert layers[-1] == Layer()
    assert all(set(layer.slices) < set(recipe) for layer in layers[1:-1])
    assert by_kind["layers"].size == by_kind["control"].size == 2 * by_kind["repetition"].size
    assert len({p.samples for p in proposal.pools}) == 1


def test_confirmation_uses_fresh_seeds_of_the_best_and_the_control(opened: OpenStudy) -> None:
    give(opened, "probe", short_is_good)
    proposals = paper.confirm(opened)
    seeds = opened.study.confirm.seeds
    assert [p.seeds for p in proposals] == [(1000 + i,) for i in range(seeds)]
    more = sorted(s for p in proposals for s in p.control_seeds)
    assert more == [1000 + seeds + i for i in range(len(more))]
    assert more  # the control has more
    assert proposals[0].pools[0].kind == "control"
    assert proposals[0].pools[1].label == "text_len low"


def arms_of_all_rows(opened: OpenStudy) -> list[tuple[int, int]]:
    """(rows, samples) of the arms of all rows, at every seed of the confirmation."""
    return [(p.to_pool().size, p.samples) for x in paper.confirm(opened) for p in x.pools if p.kind == "all"]


def test_the_confirmation_trains_on_all_rows_at_the_candidates_samples(opened: OpenStudy) -> None:
    give(opened, "probe", short_is_good)
    seeds = opened.study.confirm.seeds
    samples = {p.samples for p in paper.confirm(opened)[0].pools if p.kind == "control"}
    assert arms_of_all_rows(opened) == [(int(opened.scan.good.sum()), n) for n in sorted(samples)] * seeds
    (first, *_) = paper.confirm(opened)
    every = next(p.to_pool() for p in first.pools if p.kind == "all")
    assert not every.is_control and len(opened.realise(every)) == opened.scan.good.sum()


def test_a_confirmation_that_began_without_all_rows_goes_on_without(opened: OpenStudy) -> None:
    give(opened, "probe", short_is_good)
    plain, confirm = opened.study, opened.study.confirm
    opened.study = plain.model_copy(update={"confirm": confirm.model_copy(update={"all_data": False})})
    assert not arms_of_all_rows(opened)
    proposal_queue.ensure_trials(opened, paper.confirm(opened)[0])
    before = opened.store.query("SELECT id FROM trials ORDER BY id")
    opened.study = plain
    assert not arms_of_all_rows(opened)
    for proposal in paper.confirm(opened)[:1]:
        proposal_queue.ensure_trials(opened, proposal)
    assert opened.store.query("SELECT id FROM trials ORDER BY id") == before


def test_a_recipe_that_is_worse_than_all_rows_is_called_that(opened: OpenStudy) -> None:
    give(opened, "probe", short_is_good)
    give(
        opened,
        "confirm",
        lambda label, seed: 0.9 + seed % 3 / 1e3 if label == "all rows" else short_is_good(label, seed),
    )
    analyse(opened, "confirm")
    told = answer(opened)
    assert told.kind == "recipe" and told.against_all and told.against_all.verdict == "hurts"
    assert "It does not beat all your data: at as many trained samples all rows do better." in told.lines


def test_proposals_survive_json(opened: OpenStudy) -> None:
    from engine.records.proposal import Proposal

    for proposal in paper.probe(opened):
        again = Proposal.model_validate(json.loads(proposal.model_dump_json()))
        assert again.id == proposal.id
        assert [p.to_pool().id for p in again.pools] == [p.to_pool().id for p in proposal.pools]
