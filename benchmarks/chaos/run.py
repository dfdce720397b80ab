"""What a study loses when it is killed, stopped, locked out, out of space, or finds damaged files.

    make bench-chaos             # or: python benchmarks/chaos/run.py --write [--only kills …] [--seed N] [--quick]

Studies of three tasks are run undisturbed once, then attacked; each must end like the undisturbed one. The engine alone
is killed: its workers must end by themselves. Full disks need the right to mount a file system in memory.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.chaos import kills, others
from benchmarks.chaos.patient import Patient, whole_run
from benchmarks.chaos.worlds import WORLDS
from benchmarks.write import write_section

SECTIONS = ("kills", "stops", "locks", "disks", "read-only", "damage")
INTRO = """Studies of tasks command, lm and clip, attacked in every phase and run to their end; each must end as the
undisturbed one. Stops last twice as long as a worker may be silent, here 8 s in place of 5 min."""
HARM = (
    "finished trials lost", "charged twice or not", "rankings that differ", "orphans", "scratch left",
    "internal errors", "runs that failed", "runs ended by a lock", "healthy trials that were run again",
    "unclear errors", "hung",
)  # fmt: skip


def undisturbed(base: Path) -> dict[str, tuple[str, set[str]]]:
    """Run each study in peace, unless that was done in this folder before: its ranking and trials by task."""
    whole = {}
    for name, make in WORLDS.items():
        file = base / f"whole-{name}.json"
        if not file.exists():
            shutil.rmtree(base / f"whole-{name}", ignore_errors=True)
            ranking, trials = whole_run(make(base / f"whole-{name}"))
            file.write_text(json.dumps([ranking, sorted(trials)]), encoding="utf-8")
            print(f"{name}, undisturbed: {len(trials)} trials", flush=True)
        ranking, ids = json.loads(file.read_text(encoding="utf-8"))
        whole[name] = ranking, set(ids)
    return whole


def jobs(base: Path, only: Sequence[str], seed: int, quick: bool) -> dict[str, Callable[[], Patient]]:
    """The attacks by name, each a call that gives its patient. Runs the undisturbed studies first."""
    whole = undisturbed(base)

    def draw(name: str) -> random.Random:
        return random.Random(f"{seed} {name}")

    n = 1 if quick else 4
    rounds = dict.fromkeys(WORLDS, 1) if quick else {"command": 4, "lm": 3, "clip": 3}
    most = 5 if quick else 21
    long = [70.0] * (n > 1)
    every: dict[str, dict[str, Callable[[Path], Patient]]] = {
        "kills": {
            **{f"kills-{w}": lambda at, w=w: kills.rounds(w, at, rounds[w], draw(w), whole[w]) for w in WORLDS},
            "beside": lambda at: kills.beside(at, n, draw("beside"), base / "whole-command"),
            "old": lambda at: kills.migrations(at, 2 * n, draw("old")),
        },
        "stops": {
            "stops-command": lambda at: others.stops("command", at, 3 * n, draw("stops"), whole["command"]),
            "stops-lm": lambda at: others.stops("lm", at, 2 * n, draw("stops lm"), whole["lm"]),
        },
        "locks": {
            "locks-command": lambda at: others.locks("command", at, [3.0] * 2 * n + long, whole["command"]),
            "locks-lm": lambda at: others.locks("lm", at, [5.0] * n + long, whole["lm"]),
        },
        "disks": {
            f"disk-{w}": lambda at, w=w: others.full_disks(w, at, [60, 300, 1200], whole[w])
            for w in (["command"] if quick else WORLDS)
        },
        "read-only": {"read-only": lambda at: others.read_only(at, base / "whole-command")},
        "damage": {
            f"damage-{w}": lambda at, w=w: others.corruptions(w, at, most, draw(w), whole[w], base / f"whole-{w}")
            for w in WORLDS
        },
    }
    return {name: partial(job, base / name) for part in only for name, job in every[part].items()}


def attacked(base: Path, name: str, job: Callable[[], Patient]) -> tuple[Counter[str], Counter[str]]:
    """(attacks, harm) of one study; what an earlier run in this folder has done to its end is not done again."""
    file = base / f"{name}.result.json"
    if not file.exists():
        for left in base.glob(f"{name}*"):  # of a run that was ended
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        patient = job()
        file.write_text(json.dumps([patient.attacks, patient.harm]), encoding="utf-8")
        print(f"{name}: {dict(patient.attacks)}; {dict(patient.harm) or 'no harm'}", flush=True)
        print("".join(f"  {' '.join(note.split())[:400]}\n" for note in patient.notes), end="", flush=True)
    attacks, harm = json.loads(file.read_text(encoding="utf-8"))
    return Counter(attacks), Counter(harm)


def table(attacks: Counter[str], harm: Counter[str], budgets: tuple[float, float]) -> str:
    """What was done and what it did, as the document has it."""
    lines = [INTRO, "", "| attack | times |", "|---|---|"]
    lines += [f"| {what} | {n} |" for what, n in sorted(attacks.items())]
    lines += ["", "| harm | cases; goal: 0 |", "|---|---|", *(f"| {what} | {harm[what]} |" for what in HARM)]
    limit, spent = budgets
    lines += ["", f"Budget: {spent:.2f} device-s charged of {limit:.0f}, two workers, trials of 9 s."]
    return "\n".join(lines)


def main() -> None:
    """Attack, print what came of it, write the table on request; exit code 1 when there was any harm."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", action="append", choices=SECTIONS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a quarter of the attacks")
    parser.add_argument("--jobs", type=int, default=2, help="studies that are attacked at once")
    parser.add_argument("--keep", type=Path, help="folder to work in, which is kept: a run goes on there")
    args = parser.parse_args()
    base = args.keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    base.mkdir(parents=True, exist_ok=True)
    attacks: Counter[str] = Counter()
    harm: Counter[str] = Counter()
    began = time.monotonic()
    with ThreadPoolExecutor(args.jobs) as pool:
        every = jobs(base, args.only or SECTIONS, args.seed, args.quick)
        futures = [pool.submit(attacked, base, name, job) for name, job in every.items()]
        for future in as_completed(futures):
            did, hurt = future.result()
            attacks, harm = attacks + did, harm + hurt
    text = table(attacks, harm, kills.budget(base / "budget"))
    print(f"{text}\n{(time.monotonic() - began) / 60:.0f} min")
    if args.write:
        write_section("chaos", "Kills, stops and damage (`make bench-chaos`)", text)
    if not args.keep:
        shutil.rmtree(base)
    sys.exit(1 if harm.total() else 0)


if __name__ == "__main__":
    main()
