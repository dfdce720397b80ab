"""The strategy `mixtures`: what it asks in rounds, what it refuses, and a small study from its data to its answer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from engine.base.errors import StudyError
from engine.data.readers.sources import SOURCE
from engine.evidence.mixtures import promising, response, surface
from engine.loop.run import run_loop
from engine.proposals import queue as proposal_queue
from engine.proposals.kinds.registry import read_suggestion
from engine.proposals.suggest import suggest
from engine.records.metric import Metric
from engine.runner.accounts import Accounts
from engine.search.mixtures import Mixtures
from engine.study.opened import OpenStudy, open_study
from tests.conftest import Tiny, run_djsb, the_error, write_jsonl

SOURCES = {"good": "../data/good.jsonl", "mixed_up": "../data/mixed_up.jsonl", "plain": "../data/plain.jsonl"}
WORTH = {"good": 0.3, "plain": 0.0, "mixed_up": -0.2}


@pytest.fixture
def mixing(tiny: Tiny) -> Tiny:
    """240 rows as three sources; the captions of one belong to other images."""
    data = tiny.train_file.parent
    write_jsonl(data / "good.jsonl", tiny.rows[:60])
    wrong = [{**row, "text": other["text"]} for row, other in zip(tiny.rows[60:160], tiny.rows[61:161], strict=True)]
    write_jsonl(data / "mixed_up.jsonl", wrong)
    write_jsonl(data / "plain.jsonl", tiny.rows[160:])
    tiny.set(mixtures())
    return tiny


def mixtures(**more: Any) -> dict[str, Any]:
    return {
        "dataset": {"path": "", "sources": SOURCES}, "search": {"strategy": "mixtures"}, "ops": {},
        "pools": {"size": 64}, "mixtures": {"max": 12}, "confirm": {"candidates": 1, "seeds": 2}, **more,
    }  # fmt: skip


def opened_at(tiny: Tiny) -> OpenStudy:
    made = open_study(tiny.study, 1)
    made.metrics = [Metric("accuracy", True, 0, 1)]
    made.record()
    proposal_queue.record_cuts(made)
    return made


def give(opened: OpenStudy) -> int:
    """Store the results of a round: what the loop would have measured; how many mixtures it asked for."""
    asked = Mixtures("probe").propose(opened)
    for proposal in asked:
        assert proposal_queue.examine(opened, proposal, Accounts(opened, 1e9))[0].reason == "passes"
        proposal_queue.ensure_trials(opened, proposal)
    for t in opened.store.query(
        "SELECT t.id, t.seed, p.content FROM trials t JOIN pools p ON p.id = t.pool WHERE t.state = 'WAITING'"
    ):
        weights = {layer.get("source"): layer["weight"] for layer in json.loads(t["content"])["layers"]}
        worth = 0.0 if None in weights else sum(w * (WORTH[n] + 0.017) for n, w in weights.items())
        noise = np.random.default_rng(int(t["id"], 16) % 2**32).normal(0, 0.003)
        opened.store.put("metrics", {"trial": t["id"], "name": "accuracy", "value": 0.4 * (1 + worth) + noise})
        opened.store.execute("UPDATE trials SET state = 'COMPLETE', seconds = 1 WHERE id = ?", (t["id"],))
    return len({p.label for proposal in asked for p in proposal.pools if p.kind == "mixture"})


def test_rounds_end_at_the_best_mixture_that_the_cap_allows(mixing: Tiny) -> None:
    mixing.set(mixtures(mixtures={"max": 14, "max_repeats": 1}))
    with (opened := opened_at(mixing)).store:
        assert Mixtures("combine").propose(opened) == [] == Mixtures("scale").propose(opened)
        assert [give(opened) for _ in range(4)] == [8, 4, 2, 0]
        found = response(opened)
        assert found is not None and found.fit is not None and found.rows == (60, 100, 80)
        assert found.fit.rank is not None and found.fit.rank > 0.7
        best = promising(opened)[0]
        weights = {layer.source: layer.weight or 0 for layer in best.pool.layers}
        assert weights["good"] > 0.85 and weights.get("mixed_up", 0) < 0.05  # 60 of 64 rows at most
        assert opened.kept(best.pool) < 240
        drawn = surface(found)
        assert drawn is not None
        assert [line[-1][0] for line in drawn.along] == pytest.approx([60 / 64, 1, 1], abs=0.001), "60 rows of 64"
        good = found.names.index("good")
        assert good in drawn.across
        beyond = [row[-1] for row in drawn.grid] if drawn.across[0] == good else drawn.grid[-1]
        assert beyond == [None] * len(drawn.steps), "all of the pool from a source of 60 rows"


def test_a_resumed_run_asks_the_same(mixing: Tiny) -> None:
    with (opened := opened_at(mixing)).store:
        give(opened)
        asked = [p.id for p in Mixtures("probe").propose(opened)]
    with (again := opened_at(mixing)).store:
        assert [p.id for p in Mixtures("probe").propose(again)] == asked


def test_a_person_may_propose_a_mixture_and_the_gate_says_what_is_too_much(mixing: Tiny) -> None:
    with (opened := opened_at(mixing)).store:

        def ask(**experiment: Any) -> tuple[str, str]:
            content = {"experiment": {"kind": "mixture", **experiment}, "reason": "I want to know"}
            _, status, reason = suggest(opened, read_suggestion(content), "person", Accounts(opened, 1e9))
            return status, reason

        assert ask(weights={"good": 0.25, "plain": 0.75}) == ("queued", "passes")
        status, reason = ask(weights={"good": 1.0}, max_repeats=1)
        assert status == "refused"
        assert "wants 64 rows of good, which has 60 good rows and repeats each 1 times at most" in reason
        assert "give it a weight of 0.937 or less, or raise max_repeats to 2" in reason
        assert ask(weights={"good": 1.0}, max_repeats=2)[0] == "queued"
        status, reason = ask(weights={"laion": 0.5, "good": 0.5})
        assert (status, "'laion' is no source and no bucket of this study; it has good" in reason) == ("refused", True)
        with pytest.raises(ValueError, match=r"the weights add up to 0\.9; they must add up to 1"):
            ask(weights={"good": 0.5, "plain": 0.4})


def test_buckets_may_be_mixed_as_well(mixing: Tiny) -> None:
    over = {"over": ["text_len low", "text_len high"], "max": 6}
    mixing.set(mixtures(ops={"text_length_filter": {}}, mixtures=over))
    with (opened := opened_at(mixing)).store:
        (asked,) = Mixtures("probe").propose(opened)
        assert {layer["source"] for p in asked.pools for layer in p.pool["layers"] if "source" in layer} == set()
        assert give(opened) == 6
        found = response(opened)
        assert found is not None and found.names == ("text_len high", "text_len low") and len(found.entries) == 6


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"dataset": {"path": "../data/train.jsonl", "sources": {}}},
            "needs two sources or more under dataset.sources",
        ),
        ({"mixtures": {"over": ["good"]}}, "name two or more, each once"),
    ],
)
def test_a_study_with_nothing_to_mix(mixing: Tiny, change: dict[str, Any], says: str) -> None:
    mixing.set(mixtures(**change))
    with pytest.raises(StudyError, match=says):
        open_study(mixing.study, 1)


def test_a_study_of_mixtures_from_its_data_to_its_answer(mixing: Tiny) -> None:
    checked = run_djsb("check", mixing.study)  # no OP is needed
    assert checked.returncode == 0 and "60 rows of good, 100 rows of mixed_up, 80 rows of plain" in checked.stdout
    with (opened := open_study(mixing.study, 1)).store:
        ended = run_loop(opened, workers=1)
        assert ended.how == "done", ended
        found = response(opened)
        assert found is not None and len(found.entries) == 12 and found.fit is not None
    board = json.loads(run_djsb("rank", mixing.study, "--json").stdout)
    assert {r["kind"] for r in board} == {"mixture"}
    out = mixing.root / "pool.jsonl"
    done = run_djsb("export", "pool", board[0]["pool"], "--dir", mixing.study, "--out", out)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 64 and {row[SOURCE] for row in rows} <= set(SOURCES)
    said = the_error(run_djsb("export", "recipe", mixing.study, "--pool", board[0]["pool"]))
    assert "is a mixture, which no recipe keeps; write its rows: djsb export pool" in said
    assert run_djsb("report", mixing.study).returncode == 0
    assert (mixing.study / "report" / "figures" / "mixtures.png").stat().st_size > 10_000
    assert "12 mixtures of good, mixed_up, plain ran" in (mixing.study / "report" / "report.html").read_text()
