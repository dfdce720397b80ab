"""The survey's list: every work is there with its tags, and is found by words and tags."""

from __future__ import annotations

import json

import pytest

from agent.literature import all_papers, search
from tests.conftest import run_djsb


def test_every_work_has_an_id_a_title_and_tags() -> None:
    works = all_papers()
    assert len(works) == 147
    assert len({w["id"] for w in works}) == 147
    assert all(w["title"] and w["tags"] for w in works)


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
