"""Statistics on two local Ray nodes beside two processes: `make bench-cluster`.

Rows of text and three OPs: wall-clock time with the start of workers and without, and whether the columns are the same
bytes. `--write` puts the table into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
STUDY = """name: bench
task: null
dataset: {path: train.jsonl, text: text, id: id}
ops: {word_repetition_filter: {}, words_num_filter: {}, special_characters_filter: {}}
"""


def measure(root: Path, rows: int, address: str | None) -> tuple[float, str]:
    """Seconds of all columns of the rows, in a new study; and a hash of the columns."""
    from engine.base.parallel import warm_up
    from engine.study.opened import open_study

    root.mkdir()
    with (root / "train.jsonl").open("w", encoding="utf-8") as lines:
        for i in range(rows):
            lines.write(json.dumps({"id": i, "text": f"{'a photo of a dog! ' * (1 + i % 30)}{i % 977}"}) + "\n")
    executor = f"executor: {{kind: ray, address: '{address}'}}\n" if address else ""
    (root / "study.yaml").write_text(STUDY + executor, encoding="utf-8")
    warm_up()
    with (opened := open_study(root, 2)).store:
        _ = opened.scan
        began = time.perf_counter()
        _ = opened.columns
        seconds = time.perf_counter() - began
    files = sorted((root / ".djsb" / "cache" / "statistics").glob("*.npy"))
    return seconds, hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()


def table(folder: Path, rows: int) -> str:
    """The measured table."""
    from ray.cluster_utils import Cluster

    few = 20_000  # mostly the start of workers
    made: Any = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    made.add_node(**NODE)
    lines, sums = [], set()
    for what, address in (("two processes here", None), ("two Ray nodes of one CPU", made.address)):
        name = "ray" if address else "here"
        start, _ = measure(folder / f"{name}-few", few, address)
        whole, content = measure(folder / name, rows, address)
        sums.add(content)
        lines.append(f"| {what} | {start:.1f} s | {whole:.1f} s | {(rows - few) / (whole - start):,.0f} |")
    made.shutdown()
    assert len(sums) == 1
    return "\n".join([
        f"Three text OPs; both columns are the same bytes. Rows a second: of what {rows:,} take more than {few:,}.",
        "", f"| by | {few:,} rows | {rows:,} rows | rows a second |", "|---|---|---|---|", *lines,
    ])  # fmt: skip


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        text = table(Path(made), options.rows)
    print(text)
    if options.write:
        from benchmarks.write import write_section

        write_section("cluster", "Two Ray nodes (`make bench-cluster`)", text)


if __name__ == "__main__":
    main()
