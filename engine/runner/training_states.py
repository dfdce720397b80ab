"""Training states: a trial that ends before its schedule saves one, and a longer trial resumes from it.

Nothing but time hangs on these files: without one, the longer trial starts anew and ends the same.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from engine.base.durable import discard, is_whole
from engine.base.ids import content_id
from engine.records.trial import Trial
from engine.study.opened import OpenStudy


class TrainingStates:
    """The folder of training states of a study, kept below `search.pause_gb`."""

    def __init__(self, opened: OpenStudy) -> None:
        self.folder = opened.state / "paused"
        self.setup = opened.setup
        self.limit = opened.study.search.pause_gb * 1e9 if opened.can_pause else 0.0

    def _key(self, trial: Trial) -> str:
        """What all parts of one training have in common."""
        return content_id([self.setup, trial.pool, trial.seed, trial.horizon, trial.init], 12)

    def _files(self, trial: Trial) -> dict[int, Path]:
        """Samples → state, of the training that the trial is a part of."""
        found = {f: f.stem.split("-")[1:] for f in self.folder.glob(f"{self._key(trial)}-*.safetensors")}
        own: tuple[list[str], ...] = ([], [str(trial.samples)])  # of a trial that was broken off it is for no other
        return {int(samples): f for f, (samples, *of) in found.items() if of in own and is_whole(f)}

    def had(self, trial: Trial) -> int:
        """Samples of the trial that are trained already."""
        return max((n for n in self._files(trial) if n < trial.samples), default=0)

    def before(self, trial: Trial) -> str | None:
        """The state to go on from, or None."""
        had = self.had(trial)
        return str(self._files(trial)[had]) if had else None

    def after(self, trial: Trial) -> str | None:
        """Where to leave the state; None when the schedule ends with the trial, or the disk's share is used up."""
        if trial.samples >= trial.horizon or not self._has_room():
            return None
        return str(self.folder / f"{self._key(trial)}-{trial.samples}.safetensors")

    def within(self, trial: Trial) -> str | None:
        """Beginning of the name of the state of a trial that is broken off; None where it is not to leave one."""
        return str(self.folder / self._key(trial)) if self._has_room() else None

    def _has_room(self) -> bool:
        if self.limit <= 0:
            return False
        self.folder.mkdir(exist_ok=True)
        used = [f.stat().st_size for f in self.folder.glob("*.safetensors")]
        return sum(used) + max(used, default=0) <= self.limit

    def supersede(self, trial: Trial) -> None:
        """A finished trial's own state replaces the shorter ones."""
        files = self._files(trial)
        for samples, file in files.items():
            broken_off = file.stem.count("-") > 1
            if broken_off or (samples < trial.samples and (trial.samples in files or trial.whole)):
                discard(file)

    def forget(self, trial: Trial) -> None:
        """Delete all states of the training."""
        for file in self._files(trial).values():
            discard(file)

    def clear(self, but: Collection[Trial] = ()) -> None:
        """Delete every state: no trial will go on, but for these."""
        kept = {self._key(trial) for trial in but}
        for file in self.folder.glob("*") if self.folder.exists() else ():
            if file.name.split("-")[0] not in kept:
                discard(file)
