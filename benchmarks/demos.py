"""The demo of every task, run as its users do: how long it takes, what it confirms, what of the planted is gone.

    make bench-demos             # or: python benchmarks/demos.py --write [--task lm …]

A defect counts by the demo's truth, which the study never reads: its share of all training rows beside its share of
the rows that the confirmed recipe keeps, by `djsb apply`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.write import write_section
from engine.demo.worlds import with_demo

SHOWN = 3  # defects of a row of the table
HEAD = [
    "task",
    "time",
    "trials",
    "recipe",
    "on fresh seeds",
    "rows kept",
    "worst pool",
    "planted: of all rows → of those kept",
]
Row = dict[str, Any]


def djsb(*arguments: object) -> str:
    """What a command prints. Raises: CalledProcessError."""
    command = [sys.executable, str(ROOT / "djsb.py"), *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def one(task: str, folder: Path) -> list[str]:
    """Run a demo to its end; its row of the table."""
    began = time.monotonic()
    djsb("auto", folder, "--demo", "--task", task)
    took = time.monotonic() - began
    status = json.loads(djsb("status", folder, "--json"))
    trials = sum(s["trials"].get("COMPLETE", 0) for s in status["stages"])
    board: list[Row] = json.loads(djsb("rank", folder, "--json"))
    worst = min((r for r in board if r["change"] is not None), key=lambda r: float(r["change"]))
    found: Row = json.loads(djsb("show", "recipe", folder, "--json"))
    return [
        f"`{task}`", f"{took / 60:.1f} min", str(trials), found["label"],
        f"{found['change']:+.1f} % [{found['ci_low']:+.1f}, {found['ci_high']:+.1f}], {found['verdict']}",
        f"{found['kept']:,} of {found['rows']:,}", f"{worst['label']} {worst['change']:+.1f} %", planted(folder),
    ]  # fmt: skip


def planted(folder: Path) -> str:
    """The defects whose share fell most, of all rows → of those that the recipe keeps."""
    kept = folder / "kept.jsonl"
    djsb("apply", folder / "recipe.yaml", "--data", folder / "data" / "train.jsonl", "--out", kept)
    left = {row["id"] for row in _rows(kept)}
    truth = _rows(folder / "data" / "truth.jsonl")
    every = Counter(d for t in truth for d in t["defects"])
    those = Counter(d for t in truth if t["id"] in left for d in t["defects"])
    share = {d: (100 * n / len(truth), 100 * those[d] / len(left)) for d, n in every.items()}
    fallen = sorted(share, key=lambda d: share[d][1] / share[d][0])[:SHOWN]
    return ", ".join(f"{d} {share[d][0]:.0f} → {share[d][1]:.0f} %" for d in fallen)


def _rows(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Run the demos one after the other, print the table, write it on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--task", action="append", choices=with_demo())
    args = parser.parse_args()
    lines = [f"| {' | '.join(HEAD)} |", "|" + " --- |" * len(HEAD)]
    with tempfile.TemporaryDirectory() as scratch:
        for task in args.task or with_demo():
            lines.append(f"| {' | '.join(one(task, Path(scratch) / task))} |")
            print(lines[-1], flush=True)
    if args.write:
        notes = (
            "`djsb auto DIR --demo --task TASK`, one after the other, each from nothing. The change is that of the "
            "confirmed recipe against the control on seeds that no stage before had used; the worst pool is of the "
            "probe's leaderboard, where those that were dropped early have one seed."
        )
        write_section("demos", "Demos (`make bench-demos`)", "\n".join(lines) + f"\n\n{notes}")


if __name__ == "__main__":
    main()
