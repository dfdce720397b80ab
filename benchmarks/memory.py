"""The engine's memory over an hour of very short trials.

    make bench-memory            # or: python benchmarks/memory.py --write [--minutes 60] [--trials 2000]

A study of task command whose trainer prints a hundred points and ends at once. The engine's resident memory is read
every few seconds, from its hundredth trial to its last.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.write import write_section

ROWS = 600
EVERY = 3.0  # seconds between two looks
FROM = 100  # trials after which the memory counts: all is imported then
ALLOWED = 20.0  # MB by which it may rise
OPS = ("alphanumeric", "character_repetition", "special_characters", "text_length", "words_num", "word_repetition")
DJSB = [sys.executable, str(ROOT / "djsb.py")]
TRAINER = """
import json, random, sys

pool, seed = sys.argv[1:]
rows = [json.loads(line) for line in open(pool)]
words = sum(len(row["text"].split()) for row in rows) / len(rows)
for step in range(1, 101):
    print(json.dumps({"step": step, "total": 100, "loss": words / step}))
print(json.dumps({"score": 0.9 - 0.02 * words + random.Random(seed).uniform(0, 0.01)}))
"""


@dataclass(frozen=True)
class Look:
    """trials: finished so far. minutes: since the start. size: resident memory of the engine in MB."""

    trials: int
    minutes: float
    size: float


def make_study(folder: Path, trials: int) -> None:
    """Rows of a few random words, the trainer, and a grid of at least so many trials."""
    rng = random.Random(0)
    folder.mkdir(parents=True)
    words = ["".join(rng.choices("abcdefghij- ,.", k=rng.randint(2, 9))) for _ in range(200)]
    texts = (" ".join(rng.choices(words, k=rng.randint(2, 20))) for _ in range(ROWS))
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "trainer.py").write_text(TRAINER)
    study: dict[str, Any] = {
        "name": "memory", "task": "command", "budget": "1000h", "dataset": {"path": "rows.jsonl", "text": "text"},
        "command": {
            "run": [sys.executable, "-I", "-S", "trainer.py", "{pool}", "{seed}"], "metrics": [{"name": "score"}],
            "expected": "1s",
        },
        "train": {"epochs": 1}, "search": {"strategy": "grid", "seeds": 1}, "ops": {f"{op}_filter": {} for op in OPS},
    }  # fmt: skip
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study, sort_keys=False))
    plan = subprocess.run([*DJSB, "plan", str(folder), "--json"], check=True, stdout=subprocess.PIPE)
    study["search"]["seeds"] = -(-trials // json.loads(plan.stdout)["stages"][0]["trials"])
    file.write_text(yaml.safe_dump(study, sort_keys=False))


def finished(folder: Path) -> int:
    """Finished trials of the study."""
    file = folder / ".djsb" / "study.db"
    if not file.exists():
        return 0
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as db:
        try:
            (count,) = db.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone()
        except sqlite3.OperationalError:  # no table yet
            return 0
    return int(count)


def resident(pid: int) -> float:
    """Resident memory of a process in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def watch(folder: Path, minutes: float, workers: int | None) -> list[Look]:
    """Run the study, for so long at most; what was seen from its hundredth trial on. Raises: SystemExit."""
    at_once = ["--workers", str(workers)] if workers else []
    command = [*DJSB, "auto", str(folder), "--until", "probe", *at_once]
    looks: list[Look] = []
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as engine:
        while engine.poll() is None and time.monotonic() - began < 60 * minutes:
            time.sleep(EVERY)
            count, size = finished(folder), resident(engine.pid)
            if count >= FROM and size:
                looks.append(Look(count, (time.monotonic() - began) / 60, size))
        if engine.poll() is None:
            engine.send_signal(signal.SIGINT)
        _, error = engine.communicate()
    if not looks:
        raise SystemExit(f"no {FROM} trials have finished; give it more minutes: {error.decode()[-500:]}")
    return looks


def report(looks: list[Look]) -> tuple[str, float]:
    """The table, and by how many MB the memory rose."""
    busy = [look for look in looks if look.trials < looks[-1].trials] or looks
    first, last = busy[0], busy[-1]
    most = max(look.size for look in busy)
    hourly = 60 * (last.trials - first.trials) / max(last.minutes - first.minutes, 1e-9)
    rows = [
        (f"after {first.trials:,} trials", f"{first.size:.1f} MB"),
        ("at most", f"{most:.1f} MB"),
        (f"at the end, after {last.trials:,} trials in {last.minutes:.1f} minutes", f"{last.size:.1f} MB"),
        ("with what is imported to judge all trials", f"{looks[-1].size:.1f} MB"),
        ("trials an hour", f"{hourly:,.0f}"),
    ]
    table = "\n".join(f"| {what} | {value} |" for what, value in rows)
    return f"| resident memory of the engine | |\n|---|---|\n{table}", most - first.size


def main() -> None:
    """Print the table; exit with 1 when the memory rose by more than is allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="longest run")
    parser.add_argument("--trials", type=int, default=2000, help="trials of the study")
    parser.add_argument("--workers", type=int, help="devices or cores to use; all by default")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "study"
        make_study(folder, asked.trials)
        looks = watch(folder, asked.minutes, asked.workers)
    text, rise = report(looks)
    print(text)
    print(f"\nrose by {rise:.1f} MB; {ALLOWED:.0f} MB are allowed")
    if asked.write:
        write_section("memory", "Memory of the engine (`make bench-memory`)", text)
    if rise > ALLOWED:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
