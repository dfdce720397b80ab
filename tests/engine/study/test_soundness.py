"""Whatever of a study's disk is damaged is told in its log and made anew: its pools and caches are as undisturbed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.base.durable import SEAL
from engine.journal import caches, events
from engine.study.opened import OpenStudy, held, open_study
from engine.study.soundness import Verified
from tests.conftest import Tiny, run_djsb

PARTS = ("cache", "paused", "checkpoints")


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def become_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def another_shape(file: Path) -> None:
    """As long as before, and readable where it was an array."""
    content = file.read_bytes()
    if file.suffix == ".npy":
        np.save(file, np.load(file).reshape(-1)[::-1])
        content = file.read_bytes()[: len(content)]
    else:
        content = content[::-1]
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda f: f.write_bytes(f.read_bytes()[:-1]),
    "flipped": flip,
    "emptied": lambda f: f.write_bytes(b""),
    "missing": Path.unlink,
    "garbage": lambda f: f.write_bytes(np.random.default_rng(0).bytes(300)),
    "a folder": become_folder,
    "another shape": another_shape,
}


def files(study: Path) -> list[Path]:
    """All files of caches, training states and checkpoints, without seals."""
    found = [f for part in PARTS for f in (study / ".djsb" / part).rglob("*") if f.is_file()]
    return sorted(f for f in found if not f.name.endswith(SEAL))


def told(opened: OpenStudy) -> list[str]:
    return [e.text for e in events.last(opened.store, 1000) if e.kind == "cache"]


def use(study: Path, deep: bool = False) -> tuple[Verified, list[str], list[tuple[str, list[int]]]]:
    """What is found as the study is opened, what its log says of it, and its pools with their rows."""
    with (opened := open_study(study, 1)).store, held(opened, deep) as found:
        _ = opened.prepared
        opened.comparison.overlaps()
        pools = [(cut.pool.id, opened.realise(cut.pool).tolist()) for cut in opened.cuts if cut.pool]
        return found, told(opened), pools


@pytest.fixture
def whole(probed: Tiny) -> Tiny:
    """A probed study with every kind of its caches."""
    use(probed.study)
    return probed


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damaged_cache_is_told_and_made_anew(whole: Tiny, damage: str) -> None:
    found, lines, pools = use(whole.study)
    assert found.damaged == () and lines == [] and found.files == len(files(whole.study))
    before = {f: f.read_bytes() for f in files(whole.study)}
    assert {"scan", "train-images.npy", "tokenizer.json", "meta.json"} <= {f.name.split("-")[0] for f in before} | {
        f.name for f in before
    }
    for file in before:
        DAMAGES[damage](file)
    found, lines, again = use(whole.study)
    assert again == pools
    assert {f: f.read_bytes() for f in files(whole.study)} == before
    assert sorted(found.damaged) == sorted(lines)
    things = {f.parent.name if f.parent.parent.name == "cache" and f.suffix != ".npy" else f.name for f in before}
    assert 3 <= len(lines) <= len(things)
    assert use(whole.study)[0].damaged == ()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "missing", "garbage", "a folder"])
def test_a_damaged_seal_costs_the_cache_only(whole: Tiny, damage: str) -> None:
    _, _, pools = use(whole.study)
    seals = [f for f in (whole.study / ".djsb" / "cache").rglob(f"*{SEAL}") if f.is_file()]
    assert seals
    for file in seals:
        DAMAGES[damage](file)
    found, lines, again = use(whole.study)
    assert again == pools and len(lines) == len(found.damaged) >= len(seals)
    assert use(whole.study)[0].damaged == ()


def test_a_truncated_column_is_not_filled_up_with_zeros(whole: Tiny) -> None:
    """Memory-mapping a file for writing makes it as long as its header says."""
    _, _, pools = use(whole.study)
    columns = sorted((whole.study / ".djsb" / "cache" / "statistics").iterdir())
    columns[0].write_bytes(columns[0].read_bytes()[:-800])
    _, (line,), again = use(whole.study)
    assert again == pools and "bytes in place of" in line and "is computed again" in line, line


def test_only_the_damaged_part_of_a_column_is_computed_again(whole: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.data.statistics.CHUNK", 50)
    shutil.rmtree(whole.study / ".djsb" / "cache" / "statistics")
    _, _, pools = use(whole.study)
    with open_study(whole.study, 1).store as store:
        (run, *_) = caches.statistic_runs(store)
        chunks = caches.chunks(store, run.id)
        assert len(chunks) == 5
    file = whole.study / ".djsb" / "cache" / "statistics" / f"{run.id}.npy"
    column = np.lib.format.open_memmap(file, mode="r+")
    column[0, 120] += 1
    column.flush()
    found, _, again = use(whole.study)
    (line,) = found.damaged
    assert again == pools and "1 of 5 parts" in line, line
    with open_study(whole.study, 1).store as store:
        assert caches.chunks(store, run.id) == chunks


def test_a_cache_of_an_older_djsb_is_made_anew(whole: Tiny) -> None:
    """Without seals, and without sums of statistics."""
    _, _, pools = use(whole.study)
    for mark in (whole.study / ".djsb" / "cache").rglob(f"*{SEAL}"):
        mark.unlink()
    with open_study(whole.study, 1).store as store:
        store.execute("UPDATE statistic_chunks SET sum = NULL")
    _, lines, again = use(whole.study)
    assert again == pools
    assert sum("it has no seal" in line for line in lines) >= 3
    assert sum("that was noted; an older djsb wrote it" in line for line in lines) == 2, lines


def test_after_an_engine_was_killed_all_sums_are_compared(whole: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.base.durable.QUICK", 0)
    monkeypatch.setattr("engine.data.stat_files.QUICK", 0)
    images = next((whole.study / ".djsb" / "cache").glob("clip-*/train-images.npy"))
    content = images.read_bytes()
    flip(images)
    assert use(whole.study)[0].damaged == ()  # as it would take long
    assert (whole.study / ".djsb" / "engine.lock").read_text() == ""
    (whole.study / ".djsb" / "engine.lock").write_text("12345")  # as a killed engine leaves it
    assert len(use(whole.study)[0].damaged) == 1
    assert images.read_bytes() == content
    flip(images)
    assert len(use(whole.study, deep=True)[0].damaged) == 1


def test_a_checkpoint_that_is_gone_is_told(whole: Tiny) -> None:
    """Its trial's results stay."""
    with open_study(whole.study, 1).store as store:
        trial = whole.trials()[0][0]
        store.put("checkpoints", {"trial": trial, "path": "x", "bytes": 1, "kept": 1, "at": ""})
    _, (line,), _ = use(whole.study)
    assert f"checkpoints/{trial} is damaged" in line and "its trial's results stay" in line
    folder = whole.study / ".djsb" / "checkpoints" / trial
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"of an older djsb, without a seal")
    with open_study(whole.study, 1).store as store:
        store.execute("UPDATE checkpoints SET kept = 1")
    use(whole.study)
    assert (folder / SEAL).exists() and folder.is_dir()


def test_the_engine_goes_on_over_damaged_caches_and_check_says_what_it_saw(whole: Tiny) -> None:
    rank = run_djsb("rank", whole.study, "--json").stdout
    sound = run_djsb("check", whole.study, "--deep")
    assert re.search(r"ok +disk: \d+ files of [\d.]+ MB are as they were written, 0 damaged", sound.stdout), (
        sound.stdout
    )
    whole.set({"search": {"seeds": 2}})  # no language model
    damaged = files(whole.study)
    for file in damaged:
        flip(file)
    done = run_djsb("auto", whole.study, "--until", "probe", "--workers", 1, "--approve", "auto")
    assert done.returncode == 0, done.stderr
    assert run_djsb("rank", whole.study, "--json").stdout == rank
    log = run_djsb("log", whole.study, "--last", 100).stdout
    assert log.count("is damaged") >= 4, log
    flip(damaged[0])
    found = json.loads(run_djsb("check", whole.study, "--deep", "--json").stdout)
    assert found["problems"] == [] and found["verified"]["deep"] and len(found["verified"]["damaged"]) == 1
