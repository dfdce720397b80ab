"""Statistics of an image's header and of its pixels, against Pillow alone: `make bench-data`.

JPEGs × width, height, aspect ratio and size from the header; then aspect ratio, width and height by Data-Juicer's own
OPs, which take them of the decoded image: what OPs that need pixels cost before their own work. Images a second of one
core, by CPU time, files in the disk's cache.
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
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.media import scene
from engine.data.op_values import HEADERS

SHARD = 1_000  # images
SIZES = [(400 + 7 * i, 300 + 5 * i) for i in range(20)]
GOAL = (
    "goals: 10,000 images a second of a core where the header says it, 85 % of plain decoding where pixels are needed"
)
OF_PIXELS = ("image_aspect_ratio_filter", "image_shape_filter")


def make_images(folder: Path, images: int) -> None:
    """JPEGs of the sizes of the web, and rows that name them."""
    picture, encoded = scene(np.random.default_rng(0)), []
    for i, size in enumerate(SIZES):
        exif = Image.Exif()
        if i % 4 == 0:  # how the camera was held
            exif[0x0112] = 1 + i % 8
        picture.crop((31 * i, 17 * i, 31 * i + size[0], 17 * i + size[1])).save(
            folder / "one.jpg", quality=85, exif=exif
        )
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


def pixels_of_files(folder: Path, images: int) -> None:
    """What OPs say of decoded images, of a tenth of the files."""
    ours(folder / "rows.jsonl", {"images": "images", "id": "id"}, images // 10, OF_PIXELS)


def pixels_of_shards(folder: Path, images: int) -> None:
    """The same of WebDataset shards."""
    ours(folder / "shards", {"images": "jpg", "text": None, "id": "__key__"}, images // 10, OF_PIXELS)


def ours(path: Path, names: dict[str, str | None], images: int, of_pixels: tuple[str, ...] = ()) -> None:
    """All statistics of the headers, as a data worker computes them; or those of OPs that decode all the same."""
    from engine.data import op_values
    from engine.data.dataset import Dataset
    from engine.data.op_values import Job, OpRun, compute_chunk
    from engine.data.statistics import MEDIA_CHUNK
    from engine.settings.data import DatasetSection

    data = Dataset(path, DatasetSection.model_validate({"path": str(path), **names}))
    runs = tuple(OpRun(name, (), name) for name in of_pixels or HEADERS)
    op_values.HEADERS = {} if of_pixels else HEADERS
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
    """Pillow's decoding of a tenth of the images, upright as Data-Juicer sees them."""
    for i in range(images // 10):
        with Image.open(folder / f"{i}.jpg") as image:
            ImageOps.exif_transpose(image).convert("RGB")


def main() -> None:
    """Run all, print the table, write it on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    runs: list[tuple[str, Callable[[Path, int], None], float]] = [
        ("djsb: width, height, aspect ratio, size of files", of_files, 1),
        ("djsb: the same of WebDataset shards", of_shards, 1),
        ("Pillow: the header alone", headers, 1),
        ("djsb: two OPs on decoded files", pixels_of_files, 0.1),
        ("djsb: two OPs on decoded images of WebDataset shards", pixels_of_shards, 0.1),
        ("Pillow: decoded once, turned as EXIF says", decoded, 0.1),
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
