"""Statistics that stand in an image's header, against Pillow alone: `make bench-data`.

JPEGs × width, height, aspect ratio and size. Images a second of one core, by CPU time, files in the disk's cache.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SHARD = 1_000  # images
SIZES = [(400 + 7 * i, 300 + 5 * i) for i in range(20)]
GOAL = "goal: 10,000 images a second of a core where the header says it"


def make_images(folder: Path, images: int) -> None:
    """JPEGs of the sizes of the web, and rows that name them."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    encoded = []
    for i, size in enumerate(SIZES):
        exif = Image.Exif()
        exif[0x0112] = 1 + i % 8
        Image.fromarray(pixels).resize(size).save(folder / "one.jpg", quality=85, exif=exif)
        encoded.append((folder / "one.jpg").read_bytes())
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as rows:
        for i in range(images):
            (folder / f"{i}.jpg").write_bytes(encoded[i % len(encoded)])
            rows.write(json.dumps({"id": i, "text": "a photo", "images": [f"{i}.jpg"]}) + "\n")
    (folder / "shards").mkdir()
    for at in range(0, images, SHARD):
        with tarfile.open(folder / "shards" / f"{at // SHARD:05d}.tar", "w") as shard:
            for i in range(at, min(at + SHARD, images)):
                shard.add(folder / f"{i}.jpg", f"{i:09d}.jpg")


def of_files(folder: Path, images: int) -> None:
    """All statistics of the headers of files, as a data worker computes them."""
    ours(folder / "rows.jsonl", {"images": "images", "id": "id"}, images)


def of_shards(folder: Path, images: int) -> None:
    """The same of WebDataset shards."""
    ours(folder / "shards", {"images": "jpg", "text": None, "id": "__key__"}, images)


def ours(path: Path, names: dict[str, str | None], images: int) -> None:
    """All statistics of the headers, as a data worker computes them."""
    from engine.data.dataset import Dataset
    from engine.data.op_values import HEADERS, Job, OpRun, compute_chunk
    from engine.data.statistics import MEDIA_CHUNK
    from engine.settings.data import DatasetSection

    data = Dataset(path, DatasetSection.model_validate({"path": str(path), **names}))
    runs = tuple(OpRun(name, (), name) for name in HEADERS)
    for start in range(0, images, MEDIA_CHUNK):
        stop = min(start + MEDIA_CHUNK, images)
        values = compute_chunk(Job(data, path.parent, runs, start, stop, np.array([], np.int64)))[2]
        assert not any(np.isnan(block).any() for block in values.values())


def headers(folder: Path, images: int) -> None:
    """Pillow's own reading of the headers."""
    for i in range(images):
        with Image.open(folder / f"{i}.jpg") as image:
            assert image.size


def decoded(folder: Path, images: int) -> None:
    """Pillow's decoding of a tenth of the images."""
    for i in range(0, images, 10):
        with Image.open(folder / f"{i}.jpg") as image:
            image.convert("RGB")


def main() -> None:
    """Run all three, print the table, write it on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    runs: list[tuple[str, Callable[[Path, int], None], float]] = [
        ("djsb: width, height, aspect ratio, size of files", of_files, 1),
        ("djsb: the same of WebDataset shards", of_shards, 1),
        ("Pillow: the header alone", headers, 1),
        ("Pillow: decoded once", decoded, 0.1),
    ]
    lines = ["| what | images | images a second of a core |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        make_images(Path(scratch), args.images)
        for name, run, share in runs:
            run(Path(scratch), min(args.images, 100))  # what is imported is not counted
            began = time.process_time()
            run(Path(scratch), args.images)
            rate = args.images * share / (time.process_time() - began)
            lines.append(f"| {name} | {args.images:,} | {rate:,.0f} |")
            print(lines[-1], flush=True)
    if args.write:
        from benchmarks.write import write_section

        write_section("headers", "Image headers (`make bench-data`)", "\n".join(lines) + f"\n\n{GOAL}.")


if __name__ == "__main__":
    main()
