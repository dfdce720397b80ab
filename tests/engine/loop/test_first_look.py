"""What `djsb init` makes of a few timed steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from engine.base.amounts import parse_budget
from engine.journal import results
from engine.journal.results import Calibration
from engine.loop import first_look
from engine.runner.accounts import Accounts
from engine.study.opened import OpenStudy, open_study
from engine.study.rows import silent
from tests.conftest import SETTINGS, Tiny

SETTING = {name: value for name, value in SETTINGS.items() if name != "search"}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Two devices by a clock that is not there. each: seconds of a trained sample."""
    told = SimpleNamespace(each=0.001)

    @contextmanager
    def timer(opened: OpenStudy, limit: float, _workers: int | None) -> Iterator[Any]:
        def calibrate(charge: bool) -> None:
            assert not charge
            results.CALIBRATION.put(opened.store, opened.setup, Calibration(told.each, 0.5, {1: told.each}, 1, "cpu0"))

        slots = [SimpleNamespace(width=1), SimpleNamespace(width=1)]
        yield SimpleNamespace(calibrate=calibrate, slots=slots, accounts=Accounts(opened, limit))

    monkeypatch.setattr(first_look, "scheduler", timer)
    return told


def write(tiny: Tiny) -> None:
    """The tiny study as `djsb init` leaves it: with its sizes open, and many epochs."""
    content = {**SETTING, "design": "auto", "train": {"epochs": 8, "batch_size": 16}, "budget": "8gpu-hours"}
    (tiny.study / "study.yaml").write_text(yaml.safe_dump(content))


def test_a_first_study_ends_within_half_an_hour_and_keeps_its_epochs_where_it_can(
    tiny: Tiny, clock: SimpleNamespace
) -> None:
    write(tiny)
    quick = first_look.size(tiny.study, silent)
    assert (quick.epochs, quick.budget, quick.note) == (8, "50min", "")
    assert "8 epochs takes" in quick.lines[0] and quick.lines[-1].startswith("A budget of 50 min buys ")


def test_where_steps_are_slow_there_are_fewer_epochs_and_what_was_timed_stays(
    tiny: Tiny, clock: SimpleNamespace
) -> None:
    write(tiny)
    clock.each = 0.3
    slow = first_look.size(tiny.study, silent)
    assert slow.epochs == 2 and "train.epochs: 2, so that enough of them fit" in slow.lines
    assert parse_budget(slow.budget) == 2 * first_look.WALL
    content = yaml.safe_load((tiny.study / "study.yaml").read_text())
    content["train"]["epochs"] = slow.epochs
    (tiny.study / "study.yaml").write_text(yaml.safe_dump(content))
    with (opened := open_study(tiny.study, 1)).store:
        assert results.CALIBRATION.get(opened.store, opened.setup) is not None


def test_large_data_are_not_scanned_for_it(tiny: Tiny, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tiny)
    monkeypatch.setattr(first_look, "MOST_ROWS", 100)
    kept = first_look.size(tiny.study, silent)
    assert (kept.epochs, kept.budget, kept.note) == (8, "8gpu-hours", "240 rows are not scanned for it")
