"""Items in packs: found again, made again when they are damaged, within the bound, whoever is killed or stopped."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine.base.paths import HOME
from engine.data import packs as module
from engine.data.packs import Packs, count_damaged

BOUND = 32 << 20
FILL = """
import sys
from pathlib import Path
from engine.data.packs import Packs
packs = Packs(Path(sys.argv[1]), 32 << 20)
print("on", flush=True)
for item in range(int(sys.argv[2]), 10**6, 2):
    packs.put(item % 5000, (item % 5000).to_bytes(2, "little") * 400)
"""


def content(item: int) -> bytes:
    return item.to_bytes(2, "little") * 400


def total(root: Path) -> int:
    return sum(file.stat().st_size for file in root.rglob("*.pack"))


def test_what_was_put_is_found_by_others(tmp_path: Path) -> None:
    one, other = (Packs(tmp_path / "a", BOUND) for _ in range(2))
    assert one.get(7) is None
    for item in range(0, 100, 2):
        one.put(item, content(item))
        other.put(item + 1, content(item + 1))
    assert all(p.get(item) == content(item) for p in (one, other) for item in range(100))
    assert one.get(100) is None and len(list(tmp_path.glob("a/*.pack"))) == 2  # each appends to its own
    one.close()
    again = Packs(tmp_path / "a", BOUND)
    again.put(100, content(100))
    assert again.get(100) == content(100) and len(list(tmp_path.glob("a/*.pack"))) == 2  # or goes on with one


def test_a_damaged_item_is_none_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    packs = Packs(tmp_path / "a", BOUND)
    for item in range(9):
        packs.put(item, content(item))
    (file,) = tmp_path.glob("a/*.pack")
    with file.open("r+b") as opened:
        opened.seek(3 * 800 + 5)
        opened.write(b"?")
    assert packs.get(3) is None and packs.get(4) == content(4)
    assert [r.message for r in caplog.records] == ["a in the media cache has a damaged item (3); it is made again"]
    assert count_damaged(tmp_path / "a") == (8, 1)
    packs.put(3, content(3))
    assert packs.get(3) == content(3) and count_damaged(tmp_path / "a") == (9, 0)
    os.truncate(file, 5 * 800 + 1)
    assert packs.get(4) == content(4) and packs.get(5) is None


def test_the_bound_holds_for_all_folders_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = 64_000
    one, other = Packs(tmp_path / "a", bound), Packs(tmp_path / "b", bound)
    for item in range(60):
        one.put(item, content(item))
    for item in range(60):
        other.put(item, content(item))
    assert total(tmp_path) <= bound and sum(other.get(i) is not None for i in range(60)) < 60
    assert all(one.get(item) == content(item) for item in range(60))  # it was used a moment ago, so it stays
    monkeypatch.setattr(module, "IDLE", 0.0)
    monkeypatch.setattr(module, "STAMP", 0.0)
    third = Packs(tmp_path / "c", bound)
    for item in range(70):
        third.put(item, content(item))
    assert total(tmp_path) <= bound and all(third.get(item) == content(item) for item in range(60, 70))
    assert sum(one.get(item) is None for item in range(60)) > 30
    one.put(0, content(0))
    assert one.get(0) == content(0)


def test_a_full_disk_is_told_once_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    packs = Packs(tmp_path / "a", BOUND)
    packs.put(0, content(0))
    write = os.write

    def full(file: int, data: Any) -> int:
        if len(data) < 500:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, bytes(data)[:400])

    monkeypatch.setattr(os, "write", full)
    for item in range(1, 5):
        packs.put(item, content(item))
    monkeypatch.undo()
    assert packs.get(0) == content(0) and packs.get(1) is None
    (told,) = caplog.records
    assert "the disk is full" in told.message and "cache.max_gb" in told.message
    other = Packs(tmp_path / "a", BOUND)
    packs.close()
    other.put(1, content(1))  # behind what was half-written
    assert other.get(1) == content(1) and other.get(0) == content(0)


def test_killed_while_filling(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(HOME)}
    running = [
        subprocess.Popen([sys.executable, "-c", FILL, str(tmp_path / "a"), str(n)], env=env, stdout=subprocess.PIPE)
        for n in range(2)
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    time.sleep(0.3)
    for process in running:
        process.send_signal(signal.SIGKILL)
        process.wait()
    packs = Packs(tmp_path / "a", BOUND)
    found = [packs.get(item) for item in range(5000)]
    assert any(found) and all(f in (None, content(item)) for item, f in enumerate(found))
    assert total(tmp_path) <= BOUND
    packs.put(1, content(1))
    assert packs.get(1) == content(1)
