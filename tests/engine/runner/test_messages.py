"""What a worker says is read, or refused in one line; never anything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.runner.messages import Bad, Beat, Done, Failed, Gone, Message, Point, Ready, parse
from tests.conftest import FUZZ
from tests.engine.base.test_lines import anything

HUGE = b"9" * 401
KINDS = ("ready", "beat", "curve", "done", "failed")
FIELDS = ("event", "trial", "step", "values", "results", "calibration", "scores", "error", "memory", "seconds", "total")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"event": "ready"}', Ready()),
        (b'{"event": "beat", "seconds": 1e308}', Beat()),
        (b'{"event": "curve", "trial": "t", "step": 3, "total": 9, "values": {"loss": 1}}',
         Point(trial="t", step=3, values={"loss": 1.0})),
        (b'{"event": "curve", "trial": "t", "step": 3, "values": {"loss": ' + HUGE + b"}}",
         Point(trial="t", step=3, values={"loss": float("inf")})),
        (b'{"event": "done", "results": {"t": {"score": 0.5}}, "seconds": -1}', Done(results={"t": {"score": 0.5}})),
        (b'{"event": "failed", "error": "bad\\nluck \\ud800", "memory": true}',
         Failed(error="bad luck ?", memory=True)),
    ],
    ids=["ready", "beat", "curve", "huge", "done", "failed"],
)  # fmt: skip
def test_a_message_is_read(line: bytes, message: Message) -> None:
    assert parse(line) == message


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (None, "a line of more than 1,048,576 bytes"),
        (b"", "what is no JSON object: ''"),
        (b'{"event": "curve", "trial": "t1", "ste', "what is no JSON object: '{\"event\""),
        (b"Traceback (most recent call last):", "what is no JSON object"),
        (b"{}", "whose event is wrong"),
        (b'{"event": "explode"}', "whose event is wrong"),
        (b'{"event": "curve", "trial": "t", "step": ' + HUGE + b', "values": {}}', "whose step is wrong"),
        (b'{"event": "curve", "trial": "t", "step": true, "values": {}}', "whose step is wrong"),
        (b'{"event": "curve", "trial": 3, "step": 1, "values": {}}', "whose trial is wrong"),
        (b'{"event": "curve", "trial": "t", "step": 1, "values": {"loss": "low"}}', "whose values.loss is wrong"),
        (b'{"event": "done", "results": {"t": 0.5}}', "whose results.t is wrong"),
        (b'{"event": "done", "calibration": {"per_sample": NaN}}', "whose calibration.per_sample is wrong"),
        (b'{"event": "failed"}', "whose error is wrong"),
    ],
    ids=range(13),
)  # fmt: skip
def test_what_is_none_is_refused_in_one_line(line: bytes | None, says: str) -> None:
    bad = parse(line)
    assert isinstance(bad, Bad) and says in bad.why
    assert "\n" not in bad.why and len(bad.why) < 400


def storable(message: Message) -> None:
    """Raises where something in it is not to be written."""
    text = message.model_dump_json()
    assert not isinstance(message, Gone)
    text.encode()
    if isinstance(message, Point):
        assert abs(message.step) < 2**63


@pytest.mark.fuzz
@FUZZ
@given(st.binary(max_size=100))
def test_any_bytes_are_a_message_or_refused(line: bytes) -> None:
    storable(parse(line))


@pytest.mark.fuzz
@FUZZ
@given(
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(FIELDS), anything, max_size=6),
    st.dictionaries(st.text(st.characters(), max_size=3), st.integers() | st.floats() | anything, max_size=3),
    st.integers(0, 300),
)
def test_anything_like_a_message_is_one_or_refused(
    kind: str, content: dict[str, object], values: dict[str, object], cut: int
) -> None:
    message = {"event": kind, "trial": "t", "step": 1, "values": values, "error": "", "results": {"t": values}}
    storable(parse(json.dumps(message).encode()))
    storable(parse(json.dumps({**message, **content}).encode()))
    storable(parse(json.dumps({**message, **content}).encode()[:cut]))
