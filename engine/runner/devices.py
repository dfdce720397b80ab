"""The study's devices: of this machine, of a Ray cluster, or of Slurm's jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from engine.base.errors import StudyError
from engine.runner.device import Events, Slots, grouped, joint, left_over
from engine.runner.local import LocalSlot, devices
from engine.settings.running import ExecutorSection
from engine.tasks.contract import BARE


@contextmanager
def open_slots(
    executor: ExecutorSection, workers: int | None, logs: Path, events: Events, tell: Callable[[str], None],
    extra: Mapping[str, str] | None = None, each: int = 1,
) -> Iterator[Slots]:  # fmt: skip
    """The slots of a study's executor, of `each` devices; their workers end with the block.

    tell: takes what a person should know of devices that stay idle, and of nodes that join. extra: what the
    environment of local workers holds besides; those of other nodes have the node's own.
    Raises: StudyError when there are too few devices for a slot.
    """
    if executor.kind == "ray":
        from engine.runner.ray_cluster import ray_slots

        with ray_slots(executor.address, workers, logs, events, tell, each, BARE in (extra or {})) as found:
            yield found
        return
    if executor.kind == "slurm":
        from engine.runner.slurm_cluster import slurm_slots

        with slurm_slots(executor, workers, logs, events, each, BARE in (extra or {})) as jobs:
            yield jobs
        return
    names = devices(workers)
    if len(names) < each:
        raise StudyError(f"devices_per_trial is {each}, and there is {', '.join(names)} only; lower it")
    if idle := left_over(names, each):
        tell(idle)
    slots = Slots(
        LocalSlot(joint(some), logs / f"worker-{joint(some)}.log", events, extra, some) for some in grouped(names, each)
    )
    try:
        yield slots
    finally:
        slots.close()
