"""The survey's list: every work is there with its tags, and is found by words and tags."""

from __future__ import annotations

import json
import re

import pytest

from agent.literature import BECOMES, all_papers, search
from engine.data.ops.table import OPS
from engine.settings.study import Study
from tests.conftest import run_djsb

NAMED = ["RegMix", "CLIMB", "Olmix", "QuaDMix", "FLYT", "BETR", "Group-MATES", "DataRater", "ICONS", "COINCIDE", "JEST"]
NAMED += ["DataDecide", "EcoDatum", "s-CLIPLoss"]
SMALL = {"name": "s", "dataset": {"path": "d.jsonl"}, "ops": {}}


def test_every_work_has_an_id_a_title_and_tags() -> None:
    works = all_papers()
    assert len([w for w in works if "method" not in w]) > 100 and len(works) > 170
    assert len({w["id"] for w in works}) == len({w["title"].lower() for w in works}) == len(works)
    assert all(w["title"] and w["tags"] for w in works)


def test_every_card_says_what_the_method_needs_and_becomes() -> None:
    cards = [w for w in all_papers() if "method" in w]
    for card in cards:
        assert card["short"] and card["needs"] and card["how"] and set(card["becomes"]) <= set(BECOMES), card["short"]
        assert re.fullmatch(r"2[0-9]{3}\.[0-9]{5}", card.get("arxiv", "2000.00000")), card["short"]
    assert {kind for card in cards for kind in card["becomes"]} == set(BECOMES)
    fields = {
        name
        for card in cards
        for name in re.findall(r"\b(?:dataset|mixtures|pools|scale|search)\.[a-z_]+", card["how"])
    }
    for field in fields:
        section, name = field.split(".")
        assert name in type(getattr(Study.model_validate(SMALL), section)).model_fields, field
    assert {name for card in cards for name in re.findall(r"\w+_filter", card["how"]) if "*" not in name} <= set(OPS)


@pytest.mark.parametrize("name", NAMED)
def test_a_method_is_found_by_its_name(name: str) -> None:
    first = search(name)[0]
    assert first["short"] == name and first["arxiv"]


def test_what_methods_become_is_a_tag_too() -> None:
    assert {"RegMix", "CLIMB"} <= {w.get("short") for w in search("", "mixture")}
    assert "LaCLIP" in {w.get("short") for w in search("rewrite captions", "mapper")}


def test_words_and_tags_find_works() -> None:
    assert search("DataComp next generation")[0]["title"].startswith("DataComp")
    assert search("prune")[0]["title"].lower().count("prun")
    tagged = search("", "packing")
    assert tagged
    assert all(any("Packing" in t for t in w["tags"]) for w in tagged)
    assert search("zzzz") == search("data", "no such tag") == []


@pytest.mark.parametrize("query", ['"', "a AND (", "title:", "*", "'; DROP TABLE papers", "NEAR(a b)", "–", "x" * 5000])
def test_search_syntax_is_only_words(query: str) -> None:
    assert isinstance(search(query), list)


def test_people_search_it_without_a_study() -> None:
    done = run_djsb("papers", "scaling laws", "--tag", "Acquisition", "--json")
    assert done.returncode == 0, done.stderr
    assert all(w["id"].startswith("paper:") for w in json.loads(done.stdout))
    assert "no work fits" in run_djsb("papers", "zzzz").stdout
