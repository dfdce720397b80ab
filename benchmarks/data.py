"""The data path against Data-Juicer's Analyzer: `make bench-data`.

Captions × 6 text OPs → statistics, 18 pools, control, 7 combinations, duplications. Each run is a
process of its own; time, memory of the whole process tree (PSS) and bytes written are measured from
outside. `--write` puts the table into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from itertools import combinations
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
OPS = ("alphanumeric", "character_repetition", "special_characters", "text_length", "words_num", "word_repetition")
GOALS = "goals: 12 s, 700 MB, 20 MB at 100,000 rows; within 2 GB at 1,000,000"


def make_captions(file: Path, rows: int) -> None:
    """Web-like captions: words by a Zipf law, some with spam, digits and repetition."""
    rng = random.Random(0)
    words = [
        f"{a}{b}{c}"
        for a in ("ka", "lo", "mi", "ne", "ru", "to")
        for b in ("na", "r", "st")
        for c in ("a", "el", "ing", "o")
    ]
    weights = [1 / (i + 1) for i in range(len(words))]
    with file.open("w", encoding="utf-8") as f:
        for i in range(rows):
            text = " ".join(rng.choices(words, weights, k=min(40, 2 + int(rng.expovariate(0.12)))))
            kind = rng.random()
            if kind < 0.1:
                text += " !!! http://x.test/" + "#" * rng.randrange(9)
            elif kind < 0.2:
                text = (text.split()[0] + " ") * rng.randrange(3, 15)
            f.write(json.dumps({"id": i, "text": text.strip()}) + "\n")


def ours(data: Path, folder: Path) -> None:
    """The whole data path, in this process and its workers."""
    from engine.records.pool import Layer, Pool
    from engine.study.opened import open_study

    ops = "".join(f"  {op}_filter: {{}}\n" for op in OPS)
    (folder / "study.yaml").write_text(f"name: bench\ndataset: {{path: {data}, id: id}}\nops:\n{ops}")
    with open_study(folder, 2).store:
        opened = open_study(folder, 2)
        sound = [c for c in opened.cuts if c.reason is None]
        size = opened.pool_size
        made = [opened.realise(c.pool) for c in sound] + [opened.realise(Pool((Layer(),), size))]
        top = [next(c for c in sound if c.slice.op == f"{op}_filter") for op in OPS[3:5] + OPS[:1]]
        lattice = [c for k in (1, 2, 3) for c in combinations(top, k)]
        masks = [Pool((Layer(tuple(c.slice for c in chosen)),), 1) for chosen in lattice]
        floor = min(size, *(opened.kept(m) for m in masks))
        made += [opened.realise(Pool((Layer(m.layers[0].slices),), floor)) for m in masks if floor]
        made += [opened.realise(Pool(masks[-1].layers, floor, rate)) for rate in (1, 2, 4, 8) if floor]
    print(json.dumps({"pools": len(made), "single": len(sound)}))


def analyzer(data: Path, folder: Path) -> None:
    """Data-Juicer's Analyzer on the same OPs: statistics only."""
    from engine.data import datajuicer

    datajuicer.prepare()
    from data_juicer.config import init_configs
    from data_juicer.core import Analyzer

    config = {
        "dataset_path": str(data), "export_path": str(folder / "out.jsonl"), "np": 2, "use_cache": False,
        "process": [{f"{op}_filter": {}} for op in OPS],
    }  # fmt: skip
    (folder / "c.yaml").write_text(json.dumps(config))
    Analyzer(init_configs(["--config", str(folder / "c.yaml")])).run()


def measure(what: str, data: Path) -> dict[str, float]:
    """Wall seconds, peak PSS of the process tree in MB, bytes left on disk in MB."""
    with tempfile.TemporaryDirectory() as scratch:
        env = {**os.environ, "HF_HOME": f"{scratch}/hf", "HF_DATASETS_CACHE": f"{scratch}/hf/d", "TQDM_DISABLE": "1"}
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, __file__, "--run", what, "--data", str(data), "--folder", scratch],
            env=env, cwd=scratch, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        peak, done = [0], threading.Event()

        def watch() -> None:
            parent = psutil.Process(process.pid)
            while not done.wait(0.3):
                total = 0
                try:
                    for p in [parent, *parent.children(recursive=True)]:
                        total += p.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
                peak[0] = max(peak[0], total)

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, errors = process.communicate()
        seconds = time.perf_counter() - began
        done.set()
        watcher.join()
        if process.returncode:
            raise SystemExit(f"{what} failed: {errors[-2000:]}")
        written = sum(f.stat().st_size for f in Path(scratch).rglob("*") if f.is_file())
    return {"seconds": seconds, "peak_mb": peak[0] / 1e6, "written_mb": written / 1e6}


def row(name: str, rows: int, runs: list[dict[str, float]]) -> str:
    """One line of the table: median and range."""
    cells = []
    for key, digits in (("seconds", 1), ("peak_mb", 0), ("written_mb", 1)):
        values = [r[key] for r in runs]
        cells.append(f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})")
    return f"| {name} | {rows:,} | {' | '.join(cells)} | {len(runs)} |"


def main() -> None:
    """Run everything, print the table, write it on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", choices=("ours", "analyzer"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    args = parser.parse_args()
    if args.run:
        {"ours": ours, "analyzer": analyzer}[args.run](args.data, args.folder)
        return
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        for rows in args.rows:
            data = Path(scratch) / f"{rows}.jsonl"
            make_captions(data, rows)
            repeats = args.repeats if rows <= 100_000 else 1
            runs = [measure("ours", data) for _ in range(repeats)]
            lines.append(row("djsb: statistics, 18 pools, control, 7 combinations, duplications", rows, runs))
            print(lines[-1], flush=True)
            if rows <= 100_000:
                runs = [measure("analyzer", data) for _ in range(1 if rows > 10_000 else repeats)]
                lines.append(row("Data-Juicer Analyzer: statistics only", rows, runs))
                print(lines[-1], flush=True)
    if args.write:
        from benchmarks.write import write_section

        head = "| what | rows | seconds | peak MB (PSS, process tree) | written MB | runs |\n|---|---|---|---|---|---|"
        table = "\n".join([head, *lines])
        write_section("data", "Data path (`make bench-data`)", f"{table}\n\nMedian (range); {GOALS}.")


if __name__ == "__main__":
    main()
