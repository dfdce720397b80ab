"""The data path against Data-Juicer's Analyzer: `make bench-data`.

Captions × 6 text OPs → statistics, 18 pools, control, 7 combinations, duplications. Each run is a
process of its own; time, CPU time, memory (PSS) and bytes written of the whole process tree are measured
from outside. Parquet files of two sizes tell how cost and memory grow. `--write` puts the table into
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import combinations, islice
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
OPS = ("alphanumeric", "character_repetition", "special_characters", "text_length", "words_num", "word_repetition")
GOALS = (
    "goals: 12 s, 700 MB, 20 MB at 100,000 rows; within 2 GB at 1,000,000; from the smaller Parquet file to the larger "
    "one an exponent of CPU time of at most 1.05, and 12 bytes of memory a row and statistic"
)
BLOCK = 100_000  # rows of a row group


def captions(rows: int) -> Iterator[dict[str, object]]:
    """Web-like captions: words by a Zipf law, some with spam, digits and repetition."""
    rng = random.Random(0)
    words = [
        f"{a}{b}{c}"
        for a in ("ka", "lo", "mi", "ne", "ru", "to")
        for b in ("na", "r", "st")
        for c in ("a", "el", "ing", "o")
    ]
    weights = [1 / (i + 1) for i in range(len(words))]
    for i in range(rows):
        text = " ".join(rng.choices(words, weights, k=min(40, 2 + int(rng.expovariate(0.12)))))
        kind = rng.random()
        if kind < 0.1:
            text += " !!! http://x.test/" + "#" * rng.randrange(9)
        elif kind < 0.2:
            text = (text.split()[0] + " ") * rng.randrange(3, 15)
        yield {"id": i, "text": text.strip()}


def make_captions(file: Path, rows: int) -> None:
    """Captions as JSONL, or as Parquet by the suffix."""
    made = captions(rows)
    if file.suffix == ".jsonl":
        with file.open("w", encoding="utf-8") as f:
            f.writelines(json.dumps(row) + "\n" for row in made)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    with pq.ParquetWriter(file, schema) as writer:
        while block := list(islice(made, BLOCK)):
            writer.write_table(pa.Table.from_pylist(block, schema))


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
        pools = [c.pool for c in sound] + [Pool((Layer(),), size)]
        top = [next(c for c in sound if c.slice.op == f"{op}_filter") for op in OPS[3:5] + OPS[:1]]
        lattice = [c for k in (1, 2, 3) for c in combinations(top, k)]
        masks = [Pool((Layer(tuple(c.slice for c in chosen)),), 1) for chosen in lattice]
        floor = min(size, *(opened.kept(m) for m in masks))
        pools += [Pool((Layer(m.layers[0].slices),), floor) for m in masks if floor]
        pools += [Pool(masks[-1].layers, floor, rate) for rate in (1, 2, 4, 8) if floor]
        for pool in pools:
            opened.realise(pool)
    print(json.dumps({"pools": len(pools), "single": len(sound)}))


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


class Watch(threading.Thread):
    """Looks at a process and all that it starts: peak PSS, CPU seconds, and bytes written, of each to its last look."""

    def __init__(self, process: int) -> None:
        super().__init__()
        self.root, self.done, self.peak = psutil.Process(process), threading.Event(), 0
        self.cpu: dict[int, float] = {}
        self.bytes: dict[int, int] = {}

    def run(self) -> None:
        tree: list[psutil.Process] = []
        while not self.done.wait(0.2):
            total = 0
            with suppress(psutil.NoSuchProcess):
                tree = [self.root, *self.root.children(recursive=True)]
            for p in tree:
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it has ended meanwhile
                    self.cpu[p.pid] = sum(p.cpu_times()[:2])
                    self.bytes[p.pid] = p.io_counters().write_bytes
                    total += p.memory_full_info().pss
            self.peak = max(self.peak, total)


def measure(what: str, data: Path) -> dict[str, float]:
    """Wall and CPU seconds, peak PSS in MB, MB written, all of the process tree."""
    with tempfile.TemporaryDirectory() as scratch:
        env = {**os.environ, "HF_HOME": f"{scratch}/hf", "HF_DATASETS_CACHE": f"{scratch}/hf/d", "TQDM_DISABLE": "1"}
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, __file__, "--run", what, "--data", str(data), "--folder", scratch],
            env=env, cwd=scratch, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        watch = Watch(process.pid)
        watch.start()
        _, errors = process.communicate()
        seconds = time.perf_counter() - began
        watch.done.set()
        watch.join()
        if process.returncode:
            raise SystemExit(f"{what} failed: {errors[-2000:]}")
        left = sum(f.stat().st_size for f in Path(scratch).rglob("*") if f.is_file())
    written = max(left, sum(watch.bytes.values()))  # a disk in memory counts no writes
    cpu = sum(watch.cpu.values())
    return {"seconds": seconds, "cpu": cpu, "peak_mb": watch.peak / 1e6, "written_mb": written / 1e6}


def row(name: str, rows: int, runs: list[dict[str, float]]) -> str:
    """One line of the table: median and range."""
    cells = []
    for key, digits in (("seconds", 1), ("cpu", 1), ("peak_mb", 0), ("written_mb", 1)):
        values = [r[key] for r in runs]
        cells.append(f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})")
    return f"| {name} | {rows:,} | {' | '.join(cells)} | {len(runs)} |"


def growth(sizes: list[int], runs: list[dict[str, float]]) -> str:
    """How CPU time and memory grow from the smallest to the largest of the sizes."""
    factor = sizes[-1] / sizes[0]
    exponent = math.log(runs[-1]["cpu"] / runs[0]["cpu"]) / math.log(factor)
    grown = 1e6 * (runs[-1]["peak_mb"] - runs[0]["peak_mb"]) / (sizes[-1] - sizes[0]) / len(OPS)
    return (
        f"Parquet, {sizes[0]:,} to {sizes[-1]:,} rows: CPU time grows with the exponent {exponent:.2f}, memory by "
        f"{grown:.1f} bytes a row and statistic."
    )


def main() -> None:
    """Run everything, print the table, write it on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", choices=("ours", "analyzer"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--parquet", type=int, nargs="*", default=[1_000_000, 10_000_000])
    parser.add_argument("--analyzer", type=int, default=1_000_000, help="rows up to which the Analyzer runs")
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
            if rows <= args.analyzer:
                runs = [measure("analyzer", data) for _ in range(1 if rows > 10_000 else repeats)]
                lines.append(row("Data-Juicer Analyzer: statistics only", rows, runs))
                print(lines[-1], flush=True)
        grown: list[dict[str, float]] = []
        for rows in args.parquet:
            data = Path(scratch) / f"{rows}.parquet"
            make_captions(data, rows)
            grown.append(measure("ours", data))
            data.unlink()
            lines.append(row("djsb: the same of Parquet", rows, grown[-1:]))
            print(lines[-1], flush=True)
    told = growth(args.parquet, grown) if len(grown) > 1 else ""
    print(told)
    if args.write:
        from benchmarks.write import write_section

        names = ("what", "rows", "seconds", "CPU seconds", "peak MB (PSS, process tree)", "written MB", "runs")
        head = f"| {' | '.join(names)} |\n|{'---|' * len(names)}"
        table = "\n".join([head, *lines])
        write_section("data", "Data path (`make bench-data`)", f"{table}\n\nMedian (range); {GOALS}. {told}")


if __name__ == "__main__":
    main()
