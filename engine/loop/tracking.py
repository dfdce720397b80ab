"""Trackers that are told while the study runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.loop.beside import Faults, after_events
from engine.runner.scheduler import Scheduler
from engine.study.opened import OpenStudy
from engine.track.process import Trackers
from engine.track.targets import lacking, targets


@contextmanager
def tracked(opened: OpenStudy) -> Iterator[Callable[[Scheduler], None]]:
    """The study's trackers beside its run; gives what lets them see the scheduler. What they miss is a warning.

    At the end they are waited for, as long as they go on.
    """
    faults = Faults(opened.store, "track", "results may be missing in a tracker, djsb track exports them")
    chosen = []
    for target in targets(opened.study, opened.folder) if opened.study.track.kinds else ():
        if problem := lacking(target.kind):
            faults.put(problem)
        else:
            chosen.append(target)
    faults.write()
    ended = list[Callable[[], bool]]()
    trackers = Trackers(chosen, faults.put)

    def watch(scheduler: Scheduler) -> None:
        ended.append(lambda: scheduler.aborting)
        after_events(scheduler, lambda _: faults.write())

    try:
        yield watch
    finally:
        try:
            trackers.close(lambda: any(asked() for asked in ended))
        finally:
            faults.write()
