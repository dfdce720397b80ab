"""Keys are blacked out of whatever is written or shown, however it comes."""

from __future__ import annotations

import pytest

from engine.base.secrets import redact, redacted

KEY = "sk-abcabcabd-0123456789"


@pytest.mark.parametrize("size", [1, 2, 5, 23, 60])
def test_a_key_that_comes_in_pieces_is_blacked_out(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    text = f"it is sk-abc, no: sk-abcabc{KEY}, then {KEY[:-1]} and {KEY}"
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert "".join(redacted(pieces)) == redact(text)
    assert KEY not in "".join(redacted(pieces))


@pytest.mark.parametrize("size", [1, 2, 5, 23, 60])
@pytest.mark.parametrize(
    "key", ["sk-proj-0123456789abcdefghij-and_more", "http://someone:a-password@host/x", "AKIA0123456789ABCDEF"]
)
def test_what_looks_like_a_key_is_blacked_out_in_pieces_too(size: int, key: str) -> None:
    text = f"it is {key} or ({key}), no: sk-learn and http://host/x."
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert "".join(redacted(pieces)) == redact(text)
    assert key not in redact(text)
    assert "sk-learn and http://host/x." in redact(text)


def test_what_cannot_begin_a_key_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert list(redacted(["an answer, ", "in two"])) == ["an answer, ", "in two", ""]
