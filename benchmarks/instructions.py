"""Memory that instructions take while a study is prepared: `make bench-instructions`.

The demo of task vlm with as many conversations of five turns as LLaVA-1.5's mixture has, 665,000. A process prepares
it, from the files to token ids and images; its largest resident memory is read, beside that with a hundred of them.

    python benchmarks/instructions.py --write [--conversations 665000] [--code ANOTHER_CHECKOUT]
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
WORDS = ("what", "is", "the", "colour", "of", "left", "right", "shape", "circle", "green", "red", "behind", "small")
CHILD = """
import resource, sys, time
from engine.study.opened import open_study
began = time.process_time()
with (study := open_study(sys.argv[1], 1)).store:
    study.prepared
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, time.process_time() - began)
"""


def make_study(folder: Path, conversations: int) -> Path:
    """The demo, with so many conversations about its pictures."""
    from app.commands.init import write_demo

    study = write_demo(folder, "vlm", {})
    (file,) = folder.rglob("instructions.jsonl")
    images = [json.loads(line)["image"] for line in file.read_text(encoding="utf-8").splitlines()]
    rng = random.Random(0)
    with file.open("w", encoding="utf-8") as out:
        for number in range(conversations):
            turns = []
            for turn in range(5):
                asked, said = (" ".join(rng.choices(WORDS, k=rng.randint(*k))) for k in ((6, 16), (1, 40)))
                turns.append({"from": "human", "value": "<image>\n" * (turn == 0) + asked + "?"})
                turns.append({"from": "gpt", "value": said})
            out.write(json.dumps({"image": images[number % len(images)], "conversations": turns}) + "\n")
    return study


def prepared(conversations: int, code: Path) -> tuple[int, float, int]:
    """(bytes of memory at most, seconds of a core, bytes of the file) of a study's preparation."""
    with tempfile.TemporaryDirectory() as scratch:
        study = make_study(Path(scratch) / "study", conversations)
        (file,) = Path(scratch).rglob("instructions.jsonl")
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(study)], check=True, capture_output=True, text=True, cwd=code
        )
        most, seconds = done.stdout.split()[-2:]
        return int(most), float(seconds), file.stat().st_size


def main() -> None:
    """Print the table, and write it on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=665_000)
    parser.add_argument("--code", type=Path, default=ROOT, help="checkout whose engine prepares the study")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    lines = ["| conversations | file, MB | memory at most, MB | seconds of a core |", "|---|---|---|---|"]
    for count in (100, asked.conversations):
        most, seconds, size = prepared(count, asked.code.resolve())
        lines.append(f"| {count:,} | {size / 1e6:,.0f} | {most / 1e6:,.0f} | {seconds:,.0f} |")
        print(lines[-1], flush=True)
    if asked.write:
        from benchmarks.write import write_section

        body = "Task `vlm`, preset `tiny`, conversations of five turns about the demo's pictures; one process.\n\n"
        write_section("instructions", "Memory of instructions (`make bench-instructions`)", body + "\n".join(lines))


if __name__ == "__main__":
    main()
