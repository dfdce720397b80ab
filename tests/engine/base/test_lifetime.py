"""What a killed command leaves, processes and scratch, is ended and removed by the next; nothing else is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.base import lifetime
from engine.base.errors import DjsbError
from engine.base.program_guard import MARK
from engine.base.scratch import HERE, LOCK, scratch, sweep, tidy

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process of this mark that sleeps."""
    all_: list[subprocess.Popen[str]] = []

    def start(owner: str, command: list[str] = SLEEP) -> subprocess.Popen[str]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, MARK: owner})
        all_.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    yield start
    for process in all_:
        process.kill()
        process.wait()


@pytest.fixture
def dead() -> str:
    """The mark of a process that has ended."""
    code = "from engine.base.lifetime import mark; print(mark())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_only_orphans_are_ended(started: Callable[..., subprocess.Popen[str]], dead: str) -> None:
    number, began, namespace = dead.split(":")
    ours = started(lifetime.mark())
    elsewhere = started(f"{number}:{began}:1")  # in another container the number may be of a living process
    unclear = started("no mark at all")
    reused = started(f"{os.getpid()}:1:{namespace}")  # its owner's number is ours now
    orphan = started(dead)
    lifetime.sweep()  # or that of another command, a moment before
    assert orphan.wait(5) == reused.wait(5) == -signal.SIGTERM
    assert all(p.poll() is None for p in (ours, elsewhere, unclear))


def test_an_orphan_that_is_stopped_or_ignores_sigterm_is_ended_too(
    started: Callable[..., subprocess.Popen[str]], dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifetime, "GRACE", 0.3)
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    deaf, stopped = started(dead, [sys.executable, "-c", code]), started(dead)
    stopped.send_signal(signal.SIGSTOP)
    lifetime.sweep()
    assert deaf.wait(5) == -signal.SIGKILL
    assert stopped.wait(5) < 0


def test_a_child_ends_with_its_owner_even_while_it_is_stopped(tmp_path: Path) -> None:
    child = f"from engine.base.lifetime import end_with_owner as end; end(); {SLEEP[-1]}"
    parent = (
        "import subprocess, sys; from engine.base import lifetime; lifetime.begin();"
        f"c = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE);"
        "c.stdout.readline(); print(c.pid, flush=True); c.wait()"
    )
    owner = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    os.kill(pid, signal.SIGSTOP)
    owner.kill()
    owner.wait()
    until(lambda: lifetime.state(pid) in ("", "Z"), 5)


def test_scratch_is_removed_at_its_end_and_where_its_owner_was_killed(tmp_path: Path) -> None:
    root = tmp_path / HERE
    code = (
        "import sys, time; from pathlib import Path; from engine.base.scratch import scratch\n"
        "with scratch(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'f').write_text('x'); print(folder, flush=True); time.sleep(600)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    theirs = Path(other.stdout.readline().strip())
    with scratch(root) as mine:
        (mine / "g").write_text("x")
        sweep(root)
        assert mine.exists() and (theirs / "f").exists()
    assert not mine.exists() and theirs.exists()
    other.kill()
    other.wait()
    with scratch(root) as mine:
        assert sorted(root.iterdir()) == [mine, mine.with_name(mine.name + LOCK)]
    assert not root.exists()


def test_what_a_library_leaves_in_the_folder_of_temporary_files_goes_with_a_killed_command(tmp_path: Path) -> None:
    code = (
        "import tempfile, time; from engine.base.scratch import of_process\n"
        "of_process(); print(tempfile.mkdtemp(prefix='hf_datasets-'), flush=True); time.sleep(600)"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env)
    assert other.stdout is not None
    left = Path(other.stdout.readline().strip())
    assert left.is_dir() and left.is_relative_to(tmp_path)
    other.kill()
    other.wait()
    subprocess.run([sys.executable, "-c", "from engine.base.scratch import sweep; sweep()"], env=env, check=True)
    assert not left.parent.exists()


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    for name in ("theirs/x.lock", "theirs/x/kept", "data/rows.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    root = tmp_path / "data" / HERE
    root.symlink_to(tmp_path / "theirs")
    sweep(root)
    with pytest.raises(DjsbError, match="is a link; remove it"), scratch(root):
        pass
    assert (tmp_path / "theirs" / "x" / "kept").exists()
    root.unlink()
    root.mkdir()
    (root / "y.lock").touch()
    (root / "y").symlink_to(tmp_path / "theirs")
    (root / "z.lock").symlink_to(tmp_path / "theirs" / "x.lock")
    sweep(root)
    assert (tmp_path / "theirs" / "x" / "kept").exists() and (tmp_path / "theirs" / "x.lock").exists()


def test_a_folder_that_is_moved_away_is_no_scratch_any_more(tmp_path: Path) -> None:
    with scratch(tmp_path / "s") as folder:
        (folder / "f").write_text("x")
        folder.replace(tmp_path / "done")
    assert (tmp_path / "done" / "f").exists() and not (tmp_path / "s").exists()


def test_the_systems_folder_is_the_users_own_and_made_only_when_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sweep()
    assert list(tmp_path.iterdir()) == []
    with scratch() as folder:
        assert folder.parent == tmp_path / f"djsb-{os.geteuid()}"
        assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    (tmp_path / "djsb-4711").mkdir()
    with pytest.raises(DjsbError, match="is not yours; set TMPDIR"), scratch():
        pass


def test_tidy_removes_what_is_half_made_and_old_but_follows_no_link(tmp_path: Path) -> None:
    state, outside = tmp_path / ".djsb", tmp_path / "outside"
    for file in (state / "cache" / ".unpack-x" / "a", state / "states" / "t.tmp", state / "cache" / "kept.npy",
                 state / "media" / ".unpack-1" / "b", outside / "c.tmp", state / "cache" / "new.tmp"):  # fmt: skip
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
        if file.name != "new.tmp":
            os.utime(file, (1, 1))
    for folder in (state / "cache" / ".unpack-x", state / "media" / ".unpack-1"):
        os.utime(folder, (1, 1))
    (state / "link").symlink_to(outside)
    (state / ".unpack-link").symlink_to(outside)
    os.utime(state / ".unpack-link", (1, 1), follow_symlinks=False)
    tidy(state)
    left = sorted(str(f.relative_to(state)) for f in state.rglob("*") if not f.is_dir() or f.is_symlink())
    assert left == ["cache/kept.npy", "cache/new.tmp", "link"]
    assert (outside / "c.tmp").exists()
