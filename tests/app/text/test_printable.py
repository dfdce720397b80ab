"""Nothing in data can drive the terminal."""

from __future__ import annotations

from app.text.printable import printable
from tests.conftest import TEXT_ONLY, Tiny, run_djsb, write_jsonl


def test_control_characters_are_written_out() -> None:
    assert printable("a\x1b[31mb\x07\x9b\u202e") == "a\\x1b[31mb\\x07\\x9b\\u202e"
    assert printable("é 猫 x\ty\n") == "é 猫 x\ty\n"


def test_a_hostile_id_does_not_reach_the_terminal(tiny: Tiny) -> None:
    evil = "\x1b]0;owned\x07"
    rows = [{"id": f"{i}", "text": f"caption {i}"} for i in range(40)] + [
        {"id": evil, "text": "a"},
        {"id": evil, "text": "b"},
    ]
    write_jsonl(tiny.train_file, rows)
    tiny.set({**TEXT_ONLY})
    done = run_djsb("check", tiny.study)
    assert "duplicated id" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
