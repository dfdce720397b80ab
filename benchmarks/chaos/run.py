"""What a study loses when it is killed, stopped, locked out, out of space, or finds damaged files.

    make bench-chaos             # or: python benchmarks/chaos/run.py --write [--only kills …] [--seed N] [--quick]

Studies of three tasks are run undisturbed once, then attacked; each must end like the undisturbed one. The engine alone
is killed: its workers must end by themselves. Full disks need the right to mount a file system in memory.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.chaos import kills, others
from benchmarks.chaos.patient import Patient, whole_run
from benchmarks.chaos.worlds import WORLDS
from benchmarks.write import write_section

SECTIONS = ("kills", "stops", "locks", "disks", "read-only", "damage")
HARM = (
    "finished trials lost", "charged twice or not", "rankings that differ", "orphans", "scratch left",
    "internal errors", "runs that failed", "runs ended by a lock", "healthy trials that were run again",
    "unclear errors", "hung",
)  # fmt: skip


def jobs(base: Path, only: set[str], seed: int, quick: bool) -> list[Callable[[], Patient]]:
    """The attacks, each a call that gives its patient. Runs the undisturbed studies first."""
    whole = {}
    for name, make in WORLDS.items():
        began = time.monotonic()
        whole[name] = whole_run(make(base / f"whole-{name}"))
        print(f"{name}, undisturbed: {len(whole[name][1])} trials in {time.monotonic() - began:.0f} s", flush=True)
    draw = lambda name: random.Random(f"{seed} {name}")  # noqa: E731
    n = 1 if quick else 4
    rounds = dict.fromkeys(WORLDS, 1) if quick else {"command": 4, "lm": 3, "clip": 3}
    most = 5 if quick else 21
    every: dict[str, list[Callable[[], Patient]]] = {
        "kills": [
            *(
                lambda w=w: kills.rounds(w, base / f"kills-{w}", rounds[w], draw(w), whole[w]) for w in WORLDS
            ),
            lambda: kills.beside(base / "beside", n, draw("beside"), base / "whole-command"),
            lambda: kills.migrations(base / "old", 2 * n, draw("old")),
        ],
        "stops": [
            lambda: others.stops("command", base / "stops-command", 3 * n, draw("stops"), whole["command"]),
            lambda: others.stops("lm", base / "stops-lm", 2 * n, draw("stops lm"), whole["lm"]),
        ],
        "locks": [
            lambda: others.locks("command", base / "locks-command", [3.0] * 2 * n + [70.0] * (n > 1), whole["command"]),
            lambda: others.locks("lm", base / "locks-lm", [5.0] * n + [70.0] * (n > 1), whole["lm"]),
        ],
        "disks": [
            lambda w=w: others.full_disks(w, base / f"disk-{w}", [60, 300, 1200], whole[w])
            for w in (["command"] if quick else WORLDS)
        ],
        "read-only": [lambda: others.read_only(base / "read-only", base / "whole-command")],
        "damage": [
            lambda w=w: others.corruptions(w, base / f"damage-{w}", most, draw(w), whole[w], base / f"whole-{w}")
            for w in WORLDS
        ],
    }  # fmt: skip
    return [job for name, some in every.items() if name in only for job in some]


def table(attacks: Counter[str], harm: Counter[str], budgets: tuple[float, float]) -> str:
    """What was done and what it did, as the document has it."""
    lines = ["| attack | times |", "|---|---|", *(f"| {what} | {n} |" for what, n in sorted(attacks.items()))]
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
    parser.add_argument("--keep", type=Path, help="folder to work in, which is kept")
    args = parser.parse_args()
    base = args.keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    base.mkdir(parents=True, exist_ok=True)
    attacks: Counter[str] = Counter()
    harm: Counter[str] = Counter()
    began = time.monotonic()
    with ThreadPoolExecutor(args.jobs) as pool:
        futures = [pool.submit(job) for job in jobs(base, set(args.only or SECTIONS), args.seed, args.quick)]
        for future in as_completed(futures):
            patient = future.result()
            attacks += patient.attacks
            harm += patient.harm
            print(f"{patient.folder.name}: {dict(patient.attacks)}; {dict(patient.harm) or 'no harm'}", flush=True)
            print("".join(f"  {' '.join(note.split())[:400]}\n" for note in patient.notes), end="", flush=True)
    text = table(attacks, harm, kills.budget(base / "budget"))
    print(f"{text}\n{(time.monotonic() - began) / 60:.0f} min")
    if args.write:
        write_section("chaos", "Kills, stops and damage (`make bench-chaos`)", text)
    if not args.keep:
        shutil.rmtree(base)
    sys.exit(1 if harm.total() else 0)


if __name__ == "__main__":
    main()
