"""The same data with 5, 10, 20 and 40 minutes: what each budget buys, what of it was spent, what it ended in.

    make bench-budgets           # or: python benchmarks/budgets.py --data DIR --write [--budget 5min …]

DIR has train.jsonl and test.jsonl. Each study is made by `djsb init` and run by `djsb auto`, as a new user would.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.write import write_section

HEAD = ["budget", "time", "what it buys, as told beforehand", "fresh seeds", "spent", "answer"]
Row = dict[str, Any]


def djsb(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A command that may end early."""
    command = [sys.executable, str(ROOT / "djsb.py"), *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def one(data: Path, budget: str, folder: Path) -> list[str]:
    """Run a study with a budget to its end; its row of the table."""
    made = djsb("init", folder, "--data", data / "train.jsonl", "--eval", data / "test.jsonl")
    made.check_returncode()
    began = time.monotonic()
    done = djsb("auto", folder, "--budget", budget)
    took = f"{(time.monotonic() - began) / 60:.1f} min"
    if done.returncode not in (0, 4):
        return [budget, took, "–", "–", "–", done.stderr.splitlines()[-1]]
    status: Row = json.loads(djsb("status", folder, "--json").stdout)
    log: list[Row] = json.loads(djsb("log", folder, "--json", "--last", 10_000).stdout)
    told = next(e["text"] for e in log if e["kind"] == "design")
    fresh = next((e["text"] for e in reversed(log) if e["text"].startswith("confirmation: ")), "as designed")
    spent = 100 * status["spent"] / status["limit"]
    return [budget, took, told, fresh.removeprefix("confirmation: "), f"{spent:.0f} %", status["answer"]["text"]]


def main() -> None:
    """Run the budgets one after the other, print the table, write it on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "cifar-web")
    parser.add_argument("--budget", action="append")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    lines = [f"| {' | '.join(HEAD)} |", "|" + " --- |" * len(HEAD)]
    with tempfile.TemporaryDirectory() as scratch:
        for budget in args.budget or ("5min", "10min", "20min", "40min"):
            lines.append(f"| {' | '.join(one(args.data, budget, Path(scratch) / budget))} |")
            print(lines[-1], flush=True)
    if args.write:
        notes = (
            "12,000 photographs with web-like captions, 2,000 to judge by, task `clip`, study files as `djsb init` "
            "writes them. Budgets are of device time: on two cores they last half as long, and statistics and start "
            "come on top."
        )
        write_section("budgets", "Budgets (`make bench-budgets`)", "\n".join(lines) + f"\n\n{notes}")


if __name__ == "__main__":
    main()
