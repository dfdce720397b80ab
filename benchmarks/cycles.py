"""Three cycles on the demo: what each confirms, how the ranking moves, and the last checkpoint against the first.

    make bench-cycles            # or: python benchmarks/cycles.py --write [--study FOLDER]

Results hang on no timing: the budget is far beyond what the run takes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from write import write_section

from app.lineage import moves_text
from app.start import write_demo
from engine.budget import format_seconds

DJSB = Path(__file__).resolve().parents[1] / "djsb.py"
CYCLES = 3
# a short training leaves the next cycle something to learn; few pools, and more seeds for the one recipe
OPS = ("text_length_filter", "word_repetition_filter", "special_characters_filter")
SETTINGS: dict[str, dict[str, Any]] = {
    "evaluation": {"metrics": ["likelihood"]},
    "train": {"epochs": 2},
    "search": {"top": 2},
    "combine": {"clusters": 0, "max": 4},
    "scale": {"rates": []},
    "confirm": {"candidates": 1, "seeds": 20},
}
Row = dict[str, Any]


def run(folder: Path) -> list[Row]:
    """The demo with cycles, run to its end; its lineage."""
    study = write_demo(folder)
    file = study / "study.yaml"
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    settings |= {name: {**settings[name], **change} for name, change in SETTINGS.items()}
    settings |= {"cycles": CYCLES, "budget": "8h", "ops": {op: settings["ops"][op] for op in OPS}}
    file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    subprocess.run([sys.executable, str(DJSB), "auto", str(study)], check=True, stdout=subprocess.DEVNULL)
    shown = subprocess.run(
        [sys.executable, str(DJSB), "show", "lineage", str(study), "--json"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: list[Row] = json.loads(shown.stdout)["lineage"]
    return found


def table(lineage: list[Row]) -> list[str]:
    """The cycles as Markdown, and what became of the ranking."""
    head = [
        "cycle", "recipe", "against its control", "against cycle 1", *sorted(lineage[0]["scores"]), "trials",
        "device time",
    ]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for c in lineage:
        scores = [f"{c['scores'][m]:.3f}" if m in c["scores"] else "–" for m in sorted(lineage[0]["scores"])]
        cells = [
            str(c["cycle"]), c["recipe"]["label"] if c["recipe"] else "none", change(c["recipe"]),
            change(c["against_first"]), *scores, str(c["trials"]), format_seconds(c["seconds"]),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- Cycle {c['cycle']}: {moves_text(c['moves'])}." for c in lineage if c["moves"])]
    width = max(len(c["standing"]) for c in lineage)
    named = [f"cycle {c['cycle']}, change %" for c in lineage]
    lines += ["", f"| place | {' | '.join(named)} |", f"|{'---|' * (len(lineage) + 1)}"]
    for i in range(min(width, 10)):
        cells = [
            f"{s['label']} {s['change']:+.1f}" if i < len(c["standing"]) and (s := c["standing"][i]) else "–"
            for c in lineage
        ]
        lines.append(f"| {i + 1} | {' | '.join(cells)} |")
    return lines


def change(found: Row | None) -> str:
    """A change with its interval."""
    if found is None:
        return "–"
    return f"{found['change']:+.1f} % [{found['ci_low']:+.1f}, {found['ci_high']:+.1f}]"


def main() -> None:
    """Print, and with --write put into the docs, the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--study", type=Path, help="folder that keeps the study; an interrupted run goes on there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        lineage = run((options.study or Path(scratch) / "demo").resolve())
    last = lineage[-1]["against_first"]
    changed = ", ".join(f"{s}.{k}: {v}" for s, change in SETTINGS.items() for k, v in change.items())
    lines = [
        *table(lineage),
        "",
        f"The demo with {len(OPS)} OPs and {changed}. "
        "Scores are means of the recipe's checkpoints over the fresh seeds. Each cycle's control goes on from the same "
        "checkpoint as its pools; the change against cycle 1 includes what the longer training does by itself. The "
        "second table is Table 14's: statistics by their best bucket, as far as the race compared them.",
        "",
        f"The last checkpoint {'beats' if last and last['ci_low'] > 0 else 'does not beat'} the first: {change(last)}.",
    ]
    print("\n".join(lines))
    if options.write:
        write_section("cycles", f"{CYCLES} cycles on the demo (`make bench-cycles`)", "\n".join(lines))


if __name__ == "__main__":
    main()
