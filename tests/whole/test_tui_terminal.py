"""The UI in a real terminal, from nothing to a finished study: keys are sent, the screen is read."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.study.lock import engine_pid
from tests.conftest import DJSB, Tiny, make_tiny, run_djsb

PATIENCE = 150.0  # seconds for one thing to be seen; other work may hold the cores

pytestmark = [
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed: apt-get install tmux"),
    pytest.mark.flaky(reruns=2),  # real processes on a busy machine
]


class Terminal:
    """A tmux server of the test's own, 110 × 32, that runs `djsb tui`."""

    def __init__(self, socket: Path, study: Path) -> None:
        self.socket = socket
        environment = {k: v for k, v in os.environ.items() if k not in ("TMUX", "NO_COLOR")}
        subprocess.run(
            ["tmux", "-S", str(socket), "-f", "/dev/null", "new-session", "-d", "-x", "110", "-y", "32",
             f"exec '{DJSB}' tui '{study}'"],
            check=True, env={**environment, "TERM": "xterm-256color", "LANG": "C.UTF-8"},
        )  # fmt: skip

    def tmux(self, *args: str) -> str:
        """Run a tmux command; what it says."""
        done = subprocess.run(["tmux", "-S", str(self.socket), *args], capture_output=True, text=True, check=False)
        return done.stdout

    def press(self, *keys: str) -> None:
        """Send keys by their tmux names."""
        self.tmux("send-keys", *keys)

    def write(self, text: str) -> None:
        """Type a text."""
        self.tmux("send-keys", "-l", text)

    def screen(self) -> str:
        """What is to be read now."""
        return self.tmux("capture-pane", "-p")

    def next_line(self) -> None:
        """Press Tab, and wait until the cursor is elsewhere: what is typed at once would still go to the old line."""
        before = self.tmux("display-message", "-p", "#{cursor_y}")
        self.press("Tab")
        self.until(lambda _: self.tmux("display-message", "-p", "#{cursor_y}") != before, "another line")

    def see(self, *parts: str) -> str:
        """Wait until all of these are on the screen; the screen."""
        return self.until(lambda seen: all(p in seen for p in parts), " and ".join(parts))

    def until(self, good: Callable[[str], bool], what: str, seconds: float = PATIENCE) -> str:
        """Wait until the screen is as it should be; the screen."""
        end = time.monotonic() + seconds
        while not good(seen := self.screen()):
            assert time.monotonic() < end, f"{what} never came; the screen:\n{seen}"
            assert "Traceback" not in seen, seen
            time.sleep(0.1)
        return seen


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[tuple[Terminal, Tiny]]:
    """The UI on a folder without a study, beside data of 150 rows."""
    tiny = make_tiny(tmp_path, 150, 30)
    made = Terminal(tmp_path / "tmux", tmp_path / "fresh")
    try:
        yield made, tiny
    finally:
        made.tmux("kill-server")
        if (pid := engine_pid(tmp_path / "fresh" / ".djsb")) is not None:  # leaving the UI stops no engine
            os.kill(pid, signal.SIGTERM)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_from_the_wizard_to_an_approved_proposal_and_a_finished_study(terminal: tuple[Terminal, Tiny]) -> None:
    at, tiny = terminal
    at.see("A new study in", "step 1 of 4")
    at.press("Down", "Enter")
    at.see("step 2 of 4")
    at.write(str(tiny.train_file))
    at.see("train.jsonl")
    at.next_line()
    at.write(str(tiny.test_file))
    at.see("test.jsonl")
    at.press("Enter")
    at.see("step 3 of 4", "text_length_filter")
    at.press("C-a")
    at.see("text_length_filter  (out)", "words_num_filter  (out)")
    at.press("Space")
    at.until(lambda s: "text_length_filter  (out)" not in s and "words_num_filter  (out)" in s, "one operator")
    at.press("C-n")
    at.see("step 4 of 4", "approve", "auto: what passes")
    at.press("Tab", "Enter")
    at.see("hold: every proposal waits")
    at.press("Down", "Enter")
    at.until(lambda s: "auto: what passes" not in s, "the choice")
    at.press("C-n")
    at.see("Overview", "fresh")
    at.see("to decide")
    at.press("4")
    at.see("Proposals", "to decide", "queued")
    at.press("C-a")
    at.see("marked")
    at.press("a")
    at.see("why?")
    at.write("looks cheap")
    at.press("Enter")
    at.until(lambda s: "● approved" in s and "queued" not in s, "an approved proposal")
    at.see("no engine")
    study = tiny.root / "fresh" / "study.yaml"
    held = study.read_text()
    assert "approve: hold" in held
    study.write_text(held.replace("approve: hold", "approve: auto"))  # the rest without a person
    at.press("s")
    at.see("running")
    at.until(lambda s: "■ no engine · confirm" in s, "the end of the last stage", 3 * PATIENCE)
    at.press("1")
    at.see("Overview", "text_len mid")
    at.press("q")
    end = time.monotonic() + PATIENCE
    while at.tmux("list-sessions") and time.monotonic() < end:
        time.sleep(0.1)
    assert not at.tmux("list-sessions"), "q does not leave"
    found = json.loads(run_djsb("status", tiny.root / "fresh", "--json").stdout)
    assert {s["stage"]: set(s["trials"]) for s in found["stages"]}["confirm"] == {"COMPLETE"}, found
    log = json.loads(run_djsb("log", tiny.root / "fresh", "--json").stdout)
    assert any("looks cheap" in str(line) for line in log)
