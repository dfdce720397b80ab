"""The accounting of an input: its line, and what refuses it."""

from __future__ import annotations

import pytest

from engine.base.errors import DataError
from engine.records.accounting import Accounting, accounting_from_json, refuse_gaps


def test_all_of_an_input_is_used_or_left_out_for_a_reason() -> None:
    whole = Accounting("training rows", 10, 7, (("no text", 2), ("duplicated id", 1)), "text from caption")
    assert whole.line == (
        "training rows: 7 of 10 rows; left out: 2 no text, 1 duplicated id; text from caption"
    )  # fmt: skip
    assert whole.problem is None
    assert accounting_from_json(whole.to_json()) == whole
    refuse_gaps([whole])


def test_what_is_not_accounted_for_refuses_the_input() -> None:
    for used, missing in ((6, 1), (8, -1)):
        gap = Accounting("benchmark mmbench", 10, used, (("no image", 3),), unit="lines")
        assert gap.missing == missing
        with pytest.raises(DataError, match=rf"benchmark mmbench: .*; {missing} lines are not accounted for"):
            refuse_gaps([gap])


def test_a_note_alone_counts_nothing() -> None:
    assert Accounting("metric loss", 1, 1, note="lower is better", unit="").line == "metric loss: lower is better"
