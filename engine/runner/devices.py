"""The study's devices: of this machine, or of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from engine.runner.device import Events, Slots
from engine.runner.local import LocalSlot, devices
from engine.settings.running import ExecutorSection


@contextmanager
def open_slots(
    executor: ExecutorSection, workers: int | None, logs: Path, events: Events, tell: Callable[[str], None],
    extra: Mapping[str, str] | None = None,
) -> Iterator[Slots]:  # fmt: skip
    """The slots of a study's executor; their workers end with the block.

    tell: takes what a person should know of nodes that join. extra: what the environment of local workers holds
    besides; those of a Ray node have the node's own.
    """
    if executor.kind == "ray":
        from engine.runner.ray_cluster import ray_slots

        with ray_slots(executor.address, workers, logs, events, tell) as found:
            yield found
        return
    slots = Slots(LocalSlot(d, logs / f"worker-{d}.log", events, extra) for d in devices(workers))
    try:
        yield slots
    finally:
        for slot in slots:
            slot.kill()
