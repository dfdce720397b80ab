"""The contract of a device: a slot that runs one worker."""

from __future__ import annotations

import queue
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from engine.base.lines import Lines
from engine.base.thinning import Thinning
from engine.journal.results import Allocated
from engine.journal.trials import QueuedTrial
from engine.runner.messages import Bad, Beat, Gone, Message, Point, Usage, parse

CHUNK = 2**16  # bytes that are read of a worker at once
QUEUE = 1000  # messages that wait for the scheduler; a worker that says more has to wait
POINTS = 4000  # of a curve, before the scheduler gets every second one only


class Arrival(NamedTuple):
    """A worker's message. life: of the slot, when the worker was started. at: when it arrived, by `time.monotonic`."""

    slot: Slot
    life: int
    at: float
    message: Message


class Bill(NamedTuple):
    """What others account for devices that were given to a run, whether they worked or not.

    taken: key of its charge, job, and device-seconds in all. used: of them, what is charged to trials and the like.
    final: it will not rise any more.
    """

    taken: Allocated
    device: str
    used: float
    final: bool


Events = queue.Queue[Arrival]


def new_events() -> Events:
    """A queue for the messages of several workers."""
    return queue.Queue(QUEUE)


class Slot(ABC):
    """A device, or several that train one trial together, and the worker on it.

    device: its unique name. devices: those that it has. log: file of the worker's standard error. ready: the worker
    waits for jobs. heard: when its last message came. lost: the device is gone for good; why: what it lacks. life:
    another one for each worker, so that the last words of an earlier one are told from its own. trials: what runs on it
    now, by id; dropped: those of them that it was asked to leave. began: when it was given its job; seconds: of the
    job, that are charged for each device. beats: of all its workers so far. notes: lines for the log that this worker
    has sent. leaving: why the device is left soon, and takes no more trials; empty where it is not. taken: the device
    was taken away, which is no fault of what ran there; it may come back. spent: device-seconds charged so far.
    Messages arrive on one queue, Gone when the worker is.
    """

    def __init__(self, device: str, log: Path, events: Events, devices: Sequence[str] = ()) -> None:
        self.device, self.log, self.events = device, log, events
        self.devices = tuple(devices) or (device,)
        self.ready, self.lost, self.heard, self.life = False, False, 0.0, 0
        self.trials: dict[str, QueuedTrial] = {}
        self.dropped: set[str] = set()
        self.began = self.seconds = 0.0
        self.beats = self.notes = 0
        self.why = self.leaving = ""
        self.taken, self.spent = False, 0.0

    @property
    def is_wanted(self) -> bool:
        """It was started, and its worker does not serve yet."""
        return self.started and not self.ready

    @property
    def width(self) -> int:
        """How many devices are charged for its time."""
        return len(self.devices)

    @property
    @abstractmethod
    def started(self) -> bool:
        """True while there is a worker, ready or not."""

    @abstractmethod
    def start(self) -> None:
        """Start the worker, with its own threads and device."""

    @abstractmethod
    def send(self, message: dict[str, Any]) -> None:
        """Give the worker a job; a worker that has just died is found by its last event."""

    @abstractmethod
    def kill(self) -> None:
        """End the worker at once."""

    @abstractmethod
    def died(self) -> str | None:
        """How a worker that was started has ended, or None."""

    def is_stopped(self) -> bool:
        """True when the worker's process is known to stand still, by SIGSTOP or a debugger."""
        return False

    def spend(self, seconds: float) -> None:
        """So many device-seconds of it are charged to what it ran."""
        self.spent += seconds

    def reborn(self) -> Listener:
        """A worker starts, or the one there was is gone: who listens to it. What others still say is left aside."""
        self.life += 1
        self.notes = 0
        self.ready, self.heard = False, time.monotonic()
        return Listener(self)


class Slots(list[Slot]):
    """The devices of a run. There may be more of them later.

    eager: all are started as soon as a trial waits; else as many as trials wait for.
    """

    eager = True

    def tend(self, busy: bool) -> list[str]:
        """Keep house, time and again; lines for the log. busy: something waits for a device, or is about to run."""
        return []

    def bills(self) -> list[Bill]:
        """What is charged beside the time of trials."""
        return []

    def accounted(self, taken: Allocated) -> float | None:
        """Device-seconds in all that others have accounted for a run of a job; None where they do not say."""
        return None

    def close(self) -> list[str]:
        """End all workers, once; lines for the log."""
        for slot in self:
            slot.kill()
        return []

    def joined(self) -> list[Slot]:
        """Those that have come since this was asked last; they are among the others now."""
        return []


class Listener:
    """Hears one worker, in a thread of its own, and passes on what the scheduler has to know.

    Beats go no further; of many points of a curve some do. After a bad message nothing more does: the scheduler will
    end the worker.
    """

    def __init__(self, slot: Slot) -> None:
        self._slot, self._life = slot, slot.life
        self._lines, self._thinning, self._garbled = Lines(), Thinning(POINTS), False

    def feed(self, data: bytes) -> None:
        """Some of the worker's output."""
        for line in self._lines.feed(data):
            if self._garbled or self._slot.life != self._life:
                return
            self._slot.heard = time.monotonic()
            self._take(parse(line))

    def _take(self, message: Message) -> None:
        if isinstance(message, Beat):
            self._slot.beats += 1
            return
        if isinstance(message, Point):
            values = self._thinning.keep(message.trial, message.step, message.values)
            if values:
                self.post(Point(trial=message.trial, step=message.step, values=values))
            return
        if isinstance(message, Usage):
            self.post(message)
            return
        self._post_last_points()
        self._garbled = isinstance(message, Bad)
        self.post(message)

    def end(self) -> None:
        """The worker has ended. Half a line is none."""
        self._post_last_points()
        self.post(Gone())

    def _post_last_points(self) -> None:
        for trial, step, values in self._thinning.rest():
            self.post(Point(trial=trial, step=step, values=values))

    def post(self, message: Message) -> None:
        """Hand a message to the scheduler; waits while the queue is full and the worker is still the slot's."""
        arrival = Arrival(self._slot, self._life, time.monotonic(), message)
        while self._slot.life == self._life:
            with suppress(queue.Full):
                self._slot.events.put(arrival, timeout=0.5)
                return


def grouped(names: Sequence[str], each: int) -> list[tuple[str, ...]]:
    """The devices by slots of `each`; those at the end that fill none are left out."""
    return [tuple(names[at : at + each]) for at in range(0, len(names) - each + 1, each)]


def joint(names: Sequence[str]) -> str:
    """What several devices are called together: `gpu0-3`, or `gpu0+2` where they do not follow each other."""
    if len(names) == 1:
        return names[0]
    kind, numbers = names[0][:3], [name[3:] for name in names]
    first = int(numbers[0]) if numbers[0].isdigit() else 0
    follow = numbers == [str(first + at) for at in range(len(numbers))]
    return f"{kind}{numbers[0]}-{numbers[-1]}" if follow else kind + "+".join(numbers)


def left_over(names: Sequence[str], each: int) -> str | None:
    """Which devices stay idle, as they are too few for one more slot of `each`; in one line, or None."""
    idle = names[len(names) // each * each :]
    return f"{', '.join(idle)} stay idle: devices_per_trial is {each}, of {len(names)} devices" if idle else None


def worker_env(devices: Sequence[str]) -> dict[str, str]:
    """What a worker's environment adds: its devices and its threads (one on a CPU core, four beside a GPU)."""
    on_gpu = devices[0].startswith("gpu")
    threads = "4" if on_gpu else "1"
    return {
        "PYTHONUNBUFFERED": "1", "DJSB_THREADS": threads, "OMP_NUM_THREADS": threads,
        "CUDA_VISIBLE_DEVICES": ",".join(d[3:] for d in devices) if on_gpu else "",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as nvidia-smi and NVML count
        "DJSB_DEVICE": joint(devices), "DJSB_DEVICES": " ".join(devices),
    }  # fmt: skip
