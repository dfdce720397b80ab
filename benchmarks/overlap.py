"""Near-duplicates of evaluation rows among training rows, against MinHash with LSH: `make bench-overlap`.

Texts of 30 words from 20,000 by a Zipf law against 10,000 evaluation texts, and small JPEGs against 2,000. Among the
training rows stand copies of evaluation rows: texts with other words in them, whose similarity to theirs is known, and
images at three quarters of the size, of lower quality. Each run is a process of its own, watched with all that it
starts. The other side is datasketch's MinHash (128 permutations) and MinHashLSH, where DATASKETCH names a folder that
has it: `pip install --target FOLDER datasketch`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
WORDS, LENGTH, WINDOW, SIMILARITY = 20_000, 30, 5, 0.7
HELD = {"text": 10_000, "images": 2_000}
PLANTED = {"text": 2_000, "images": 500}
SIDE = 64  # pixels
BLOCK = 50_000
Truth = dict[int, float]  # row of a copy → how alike it is to its evaluation row


def texts(rng: np.random.Generator, count: int) -> Iterator[list[str]]:
    """Texts as words."""
    odds = np.cumsum(1 / np.arange(1, WORDS + 1))
    for start in range(0, count, BLOCK):
        many = min(BLOCK, count - start)
        for row in np.searchsorted(odds, rng.random((many, LENGTH)) * odds[-1]):
            yield [f"w{word}" for word in row.tolist()]


def runs(words: list[str]) -> set[str]:
    """A text's shingles."""
    return {" ".join(words[at : at + WINDOW]) for at in range(len(words) - WINDOW + 1)}


def make_texts(folder: Path, rows: int) -> Truth:
    """Write train.jsonl and held.jsonl."""
    rng = np.random.default_rng(0)
    held = list(texts(rng, HELD["text"]))
    copies = dict(zip(rng.choice(rows, PLANTED["text"], replace=False).tolist(), held, strict=False))
    truth: Truth = {}
    with (folder / "train.jsonl").open("w") as out:
        for row, words in enumerate(texts(rng, rows)):
            if row in copies:
                own = runs(words := copies[row])
                words = list(words)
                for at in rng.choice(LENGTH, int(rng.integers(4)), replace=False).tolist():
                    words[at] = f"other{rng.integers(1000)}"
                truth[row] = len(own & runs(words)) / len(own | runs(words))
            out.write(json.dumps({"text": " ".join(words)}) + "\n")
    (folder / "held.jsonl").write_text("".join(json.dumps({"text": " ".join(words)}) + "\n" for words in held))
    return truth


def picture(rng: np.random.Generator) -> Image.Image:
    """Soft colours with some noise."""
    small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = np.asarray(small).astype(np.float32) + rng.normal(0, 6, (SIDE, SIDE, 3)).astype(np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def make_images(folder: Path, rows: int) -> Truth:
    """The same of rows with an image each."""
    rng = np.random.default_rng(0)
    held = [picture(rng) for _ in range(HELD["images"])]
    copies = dict(zip(rng.choice(rows, PLANTED["images"], replace=False).tolist(), held, strict=False))
    for name, count in (("train", rows), ("held", len(held))):
        (folder / name).mkdir()
        with (folder / f"{name}.jsonl").open("w") as out:
            for row in range(count):
                file, quality = f"{name}/{row:06d}.jpg", 90
                image = held[row] if name == "held" else copies.get(row) or picture(rng)
                if name == "train" and row in copies:
                    image, quality = image.resize((SIDE * 3 // 4,) * 2), 70
                image.save(folder / file, quality=quality)
                out.write(json.dumps({"images": [file]}) + "\n")
    return dict.fromkeys(copies, 1.0)


def ours(by: str, folder: Path) -> list[int]:
    """Rows that djsb takes for copies."""
    from engine.data.dataset import Dataset
    from engine.data.judged import Judged, Side
    from engine.data.overlap import Search
    from engine.settings.data import DatasetSection, DedupSection

    def side(name: str) -> Side:
        fields = {"text": "text"} if by == "text" else {"text": None, "images": "images"}
        data = Dataset(folder / f"{name}.jsonl", DatasetSection(path=f"{name}.jsonl", **fields))
        return Side(data, folder, np.ones(len(data), bool))

    section = DedupSection(window=WINDOW, similarity=SIMILARITY)
    search = Search(side("train"), section, folder / "state", len(os.sched_getaffinity(0)))
    [found] = search.found([Judged("", "rows", by, side("held"))])  # type: ignore[arg-type]
    return found.rows.tolist()


def datasketch(folder: Path) -> list[int]:
    """Rows that MinHash takes for copies."""
    from datasketch import MinHash, MinHashLSH

    def hashes(name: str) -> Iterator[MinHash]:
        with (folder / f"{name}.jsonl").open() as lines:
            sets = ([run.encode() for run in runs(json.loads(line)["text"].split())] for line in lines)
            yield from MinHash.generator(sets, num_perm=128)

    index = MinHashLSH(threshold=SIMILARITY, num_perm=128)
    for number, one in enumerate(hashes("held")):
        index.insert(number, one)
    return [row for row, one in enumerate(hashes("train")) if index.query(one)]


def measure(side: str, by: str, folder: Path) -> tuple[list[str], list[int]]:
    """(wall and CPU seconds and peak memory, the rows) of a run in a process of its own."""
    from benchmarks.data import Watch

    path = os.pathsep.join(filter(None, (os.environ.get("DATASKETCH"), os.environ.get("PYTHONPATH"))))
    began = time.perf_counter()
    command = [sys.executable, __file__, "--run", side, "--by", by, "--folder", str(folder)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})
    watch = Watch(process.pid)
    watch.start()
    code = process.wait()
    seconds = time.perf_counter() - began
    watch.done.set()
    watch.join()
    if code:
        raise SystemExit(f"{side} failed")
    cells = [f"{seconds:.1f}", f"{sum(watch.cpu.values()):.1f}", f"{watch.peak / 1e6:.0f}"]
    return cells, json.loads((folder / f"{side}.json").read_text())


def line(side: str, by: str, rows: int, folder: Path, truth: Truth) -> str:
    """A row of the table."""
    cells, found = measure(side, by, folder)
    right = {row for row, alike in truth.items() if alike >= SIMILARITY}
    hit = f"{len(right & set(found))} of {len(right)}"
    names = {"ours": "djsb", "datasketch": "datasketch MinHashLSH"}
    told = [f"{names[side]}: {by}", f"{rows:,}", f"{HELD[by]:,}", *cells, hit, str(len(set(found) - right))]
    print(row := f"| {' | '.join(told)} |", flush=True)
    return row


def main() -> None:
    """Run everything, print the table, write it on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", choices=("ours", "datasketch"))
    parser.add_argument("--by", choices=("text", "images"))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--texts", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--images", type=int, nargs="*", default=[10_000, 50_000])
    parser.add_argument("--most", type=int, default=100_000, help="texts up to which the other side runs")
    args = parser.parse_args()
    if args.run:
        found = ours(args.by, args.folder) if args.run == "ours" else datasketch(args.folder)
        (args.folder / f"{args.run}.json").write_text(json.dumps(found))
        return
    lines = []
    for by, rows in [*(("text", n) for n in args.texts), *(("images", n) for n in args.images)]:
        with tempfile.TemporaryDirectory() as scratch:
            truth = (make_texts if by == "text" else make_images)(Path(scratch), rows)
            lines.append(line("ours", by, rows, Path(scratch), truth))
            if by == "text" and rows <= args.most and os.environ.get("DATASKETCH"):
                lines.append(line("datasketch", by, rows, Path(scratch), truth))
    if args.write:
        write(lines)


def write(lines: list[str]) -> None:
    """Put the table into docs/benchmarks.md."""
    from benchmarks.write import write_section

    names = ("what", "training rows", "evaluation rows", "seconds", "CPU seconds", "peak MB (PSS, process tree)",
             "copies found", "others taken for one")  # fmt: skip
    table = "\n".join([f"| {' | '.join(names)} |\n|{'---|' * len(names)}", *lines])
    note = (
        f"Texts of {LENGTH} words. A copy shares {SIMILARITY:.0%} or more of its runs of {WINDOW} words; others were "
        f"altered more, and are not to be found. Images of {SIDE} pixels; copies are smaller and of lower quality. "
        "Runs of more than 20,000 texts or 1,000 images start workers, which takes a few seconds of a core and memory "
        "of its own. Goal: at most 60 CPU seconds for a million texts."
    )
    title = "Evaluation rows among the training rows (`make bench-overlap`)"
    write_section("overlap", title, f"{table}\n\n{note}")


if __name__ == "__main__":
    main()
