"""Tables of the leaderboard: what a person acts on at first, the rest on request or where there is room."""

from __future__ import annotations

from typing import Any

import pytest

from app.commands import rank
from app.text import printable
from app.text.evidence import evidence_lines
from engine.records.leaderboard import NEAR_ZERO, bound_text
from tests.app.tui.sample import BOARD


def shown(capsys: pytest.CaptureFixture[str], rows: list[dict[str, Any]], every: bool = False) -> list[str]:
    rank.show_rank(rows, every)
    return capsys.readouterr().out.splitlines()


def test_what_is_dropped_is_folded_away_unless_something_is_said_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(shown(capsys, list(BOARD)))
    assert "▼ hurts" in text and "char_rep_ratio high" in text  # dropped, and worth knowing
    assert "num_words high" not in text and "aspect_ratio high" not in text
    assert "not shown: 1 dropped by the race, 1 left out: djsb rank --all" in text
    assert "num_words high" in "\n".join(shown(capsys, list(BOARD), every=True))


def test_p_q_bounds_and_values_stand_with_all_and_on_wide_terminals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, every = shown(capsys, list(BOARD)), shown(capsys, list(BOARD), every=True)
    assert plain[1].split()[:6] == ["rank", "verdict", "pool", "change", "%", "expected"] and " p " not in plain[1]
    assert " bound %  p " in every[1] and "zero_shot 0.527 / 0.4" in every[2]
    assert (
        sum(line.startswith("expected: ") for line in plain) == sum(line.startswith("bound: ") for line in every) == 1
    )
    monkeypatch.setattr(rank, "terminal_width", lambda: 200)
    monkeypatch.setattr(printable, "terminal_width", lambda: 200)
    assert " q " in shown(capsys, list(BOARD))[1]


def test_a_narrow_terminal_leaves_columns_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank, "terminal_width", lambda: 96)
    monkeypatch.setattr(printable, "terminal_width", lambda: 96)
    lines = [line for line in shown(capsys, list(BOARD)) if not line.startswith(("expected: ", "not shown: "))]
    assert max(map(len, lines)) <= 96
    assert (
        all(name in lines[1] for name in ("verdict", "pool", "change %", "interval", "id")) and "note" not in lines[1]
    )


def test_a_control_near_zero_is_warned_of_once_and_values_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**r, "skipped": [f"zero_shot: {NEAR_ZERO}; see the values, not the percent"]} for r in BOARD[:3]]
    lines = shown(capsys, rows)
    assert sum(NEAR_ZERO in line for line in lines) == 1 and lines[5].startswith("all of them: zero_shot: ")
    assert "values" in lines[1] and "zero_shot 0.527 / 0.4" in lines[2]


def test_all_that_is_known_of_a_pool_is_a_line_each() -> None:
    lines = list(evidence_lines(BOARD[10]))
    assert lines[0] == "hurts: -43.0 % against the control over 2 seeds, interval [-55.2, -30.8]"
    assert lines[1] == "by the test that says so it is at most -30.8 %"
    assert lines[-1].startswith("dropped by the race: ")
    assert list(evidence_lines(BOARD[11])) == ["! fewer than 50 distinct values"]
    assert (bound_text("helps", 0.01), bound_text("hurts", -0.0)) == ("above 0", "below 0")
