"""The tree of recipes: mixtures of sources, what is expected of each, and the response over two weights."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter
from textual.widgets import Tree

from app.tui.recording.shape import Surface as Recorded
from app.tui.screens.recipes import _mixtures
from engine.records.mixture import Surface, Tried

FOUND = Surface(
    ["laion", "cc3m"], [0.6, 0.4], 0.83, 
    [Tried("aaaaaa", [0.2, 0.8], 4.0, 3.5), Tried("bbbbbb", [0.9, 0.1], -2.0, 1.0)],
    [[(0.0, 1.0), (1.0, 2.0)], [(0.0, 1.0), (1.0, 2.0)]], (1, 0), [0.0, 0.5, 1.0],
    [[1.0, None, 12.5], [None, -3.25, None], [-7.0, None, None]],
)  # fmt: skip
BOARD = {
    "aaaaaa": {
        "pool": "aaaaaa", "change": 4.0, "ci_low": None, "ci_high": None, "verdict": "unclear",
        "label": "cc3m 80 % + laion 20 %",
    }
}  # fmt: skip


def labels(found: dict[str, Any]) -> list[str]:
    tree: Tree[str] = Tree("recipes")
    _mixtures(tree, found, BOARD)
    return [str(node.label) for top in tree.root.children for node in (top, *top.children)] + [
        str(leaf.label) for top in tree.root.children for node in top.children for leaf in node.children
    ]


def test_mixtures_stand_with_what_is_expected_of_them_and_the_response() -> None:
    lines = labels(json.loads(json.dumps(FOUND.to_json())))
    assert lines[0] == "mixtures (2), rank correlation out of fold +0.83"
    assert "cc3m 80 % + laion 20 %" in lines[1] and "expected +3.5 %" in lines[1]
    assert lines[2] == "expected change %: weight of cc3m →, of laion ↓"
    assert lines[3].split() == ["0.0", "0.5", "1.0"]
    assert lines[4].split() == ["0.0", "+1.0", "+12.5"] and lines[6].split() == ["1.0", "-7.0"]


def test_a_recording_holds_it_and_one_from_anywhere_breaks_nothing() -> None:
    found = TypeAdapter(Recorded).validate_json(json.dumps(FOUND.to_json()))
    assert found["rank"] == 0.83 and len(found["tried"]) == 2
    assert len(labels({**FOUND.to_json(), "across": [0, 9]})) == 2
