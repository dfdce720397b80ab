"""What fits a GPU's memory, found by trying before anything is timed, so that all trials are trained alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from engine.base.errors import MachineError
from engine.base.machine import lacks_memory
from engine.settings.study import Study
from engine.tasks.contract import WORTH
from engine.tasks.shared.batches import evict

USED = 0.9  # of a GPU's memory that a training may take: the rest is the driver's, and lost between blocks
ENOUGH = 8  # rows at once that keep a GPU busy: auto makes activations again before it goes below


def changed(study: Study, **train: Any) -> Study:
    """The study with other fields of `train`."""
    return study.model_copy(update={"train": study.train.model_copy(update=train)})


def candidates(study: Study, rows: int) -> Iterator[Study]:
    """The ways to train batches of so many rows, in the order in which they are tried.

    Rows at once are halved; where the study leaves it open, activations are made again before fewer than ENOUGH go at
    once.
    """
    asked = min(rows, study.train.micro_batch or rows)
    is_open = study.train.activation_checkpointing == "auto"
    for again in ("off", "on") if is_open else (study.train.activation_checkpointing,):
        micro = asked
        while micro and not (is_open and again == "off" and micro < min(ENOUGH, asked)):
            yield changed(study, micro_batch=micro, activation_checkpointing=again)
            micro //= 2


def fit_memory(study: Study, rows: int, attempt: Callable[[Study], bool], advice: Callable[[], str]) -> Study:
    """The study as it fits this worker's device.

    attempt: trains a little; False, or an error for want of memory, where that takes too much. advice: what else would
    make it fit. Raises: MachineError.
    """
    for candidate in candidates(study, rows):
        if attempted(candidate, attempt):
            return candidate
    raise MachineError(misfit(advice()))


def misfit(advice: str) -> str:
    """That nothing fits, and what would."""
    return f"a training of the study does not fit the GPU, with 1 row at once either; {advice}"


def pays(alone: float, compiled: float, cost: float, samples: int) -> bool:
    """Whether a trial of so many samples gets shorter with compiled blocks, by WORTH at least.

    alone, compiled: seconds of a sample. cost: seconds of the compilation, in every trial.
    """
    return compiled * samples + cost < (1 - WORTH) * alone * samples


def attempted(candidate: Study, attempt: Callable[[Study], bool]) -> bool:
    """Whether it fits, once data that lie on the device have made room."""
    for _ in range(2):
        try:
            return attempt(candidate)
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
        if not evict():
            return False
    return False
