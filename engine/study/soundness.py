"""Whether what lies on disk is as it was written: looked at before an engine opens a study, and by `djsb check --deep`.

What is damaged is removed with a line in the log, and made anew when it is next opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.base.durable import PART, SEAL, Damaged, check, discard, seal_folder, sealed
from engine.data import stat_files
from engine.data.packs import count_damaged
from engine.journal import caches, checkpoints
from engine.journal.store import Store

PLACES = ("cache", "media", "paused", "checkpoints")
# what an engine trusts, whether or not it has a seal
TRUSTED = (
    "cache/*.np[yz]",
    "cache/*.json",
    "cache/*/meta.json",
    "cache/rewritten/*/*.jsonl",
    "media/*",
    "paused/*.safetensors",
)


@dataclass(frozen=True)
class Verified:
    """What was compared with its seals. deep: every byte of it. damaged: a line each."""

    deep: bool
    files: int
    bytes: int
    damaged: tuple[str, ...]


def verify(state: Path, store: Store, notice: Callable[[str, int, int], None], deep: bool) -> Verified:
    """Compare all caches, checkpoints and training states with their seals. Call while no other engine runs.

    deep: all their sums. The database itself was compared when it was opened.
    """
    for place in PLACES:
        for left in list((state / place).rglob(PART + "*")):
            discard(left)
    kept = checkpoints.every_kept(store)
    _adopt(state, kept)
    files = size = 0
    damaged: list[str] = []
    things = list(_things(state, kept))
    for number, thing in enumerate(things):
        if deep:
            notice("check of the caches", number, len(things))
        try:
            count, content = check(thing, deep)
        except Damaged as error:
            damaged.append(_remove(thing, state, store, str(error)))
        else:
            files, size = files + count, size + content
    for run in caches.statistic_runs(store):
        content, why = stat_files.verify(run, state, store, deep)
        files, size = files + (content > 0), size + content
        if why:
            damaged.append(_tell(store, f"cache/statistics/{run.id}.npy", why, f"{run.op} is computed again"))
    for folder in sorted((state / "cache" / "packs").glob("*/index")) if deep else ():
        count, bad = count_damaged(folder.parent)
        files += count
        if bad:
            name = str(folder.parent.relative_to(state))
            damaged.append(_tell(store, name, f"{bad} of its media", "they are made anew"))
    return Verified(deep, files, size, tuple(damaged))


def _things(state: Path, kept: set[str]) -> Iterator[Path]:
    """All that has a seal or should have one."""
    found = {thing: None for place in PLACES for thing in sealed(state / place)}
    found |= {state / "checkpoints" / trial: None for trial in kept}
    for pattern in TRUSTED:
        for thing in sorted(state.glob(pattern)):
            whole = thing.parent if thing.name == "meta.json" else thing
            if thing.suffix != SEAL and whole not in found:
                found[thing] = None
    yield from found


def _adopt(state: Path, kept: set[str]) -> None:
    """Seal the checkpoints that an older djsb wrote: they cannot be made anew at no cost."""
    for trial in kept:
        folder = state / "checkpoints" / trial
        if folder.is_dir() and not (folder / SEAL).exists():
            seal_folder(folder)


def _remove(thing: Path, state: Path, store: Store, why: str) -> str:
    """Remove what is damaged; the line that says so."""
    discard(thing.parent if thing.name == "meta.json" else thing)
    name = str(thing.relative_to(state))
    if thing.parent.name != "checkpoints":
        return _tell(store, name, why, "it is made anew")
    checkpoints.deleted(store, thing.name)
    return _tell(
        store, name, why, "it is removed, and its trial's results stay; what needs the checkpoint trains it again"
    )


def _tell(store: Store, name: str, why: str, then: str) -> str:
    text = f"{name} is damaged ({why}); {then}"
    store.event("cache", text, name, "warning")
    return text
