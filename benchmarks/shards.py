"""The index of WebDataset shards, and reading by it: part of `make bench-data`.

JPEGs of 224 pixels with captions and JSON in ten shards. Members a second of the index, in this process and by
workers, its bytes a sample, and samples a second of rows and of pictures' bytes. `--write` puts the table into
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SHARDS = 10
DISTINCT = 64  # pictures, which repeat


def make(folder: Path, samples: int) -> None:
    """The shards."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(DISTINCT):
        out = io.BytesIO()
        small = rng.integers(0, 255, (28, 28, 3), np.uint8)
        Image.fromarray(small).resize((224, 224)).save(out, "JPEG", quality=90)
        pictures.append(out.getvalue())
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for i in range(shard, samples, SHARDS):
                meta = json.dumps({"key": f"{i:09d}", "similarity": i / samples, "width": 224}).encode()
                for name, content in (("jpg", pictures[i % DISTINCT]), ("txt", b"a photo of a dog"), ("json", meta)):
                    info = tarfile.TarInfo(f"{i:09d}.{name}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def table(folder: Path, samples: int) -> str:
    """The measured table."""
    from engine.base.parallel import run_chunks
    from engine.data.media import locate
    from engine.data.readers.contract import Options
    from engine.data.readers.opening import open_reader
    from engine.data.readers.shard import look

    files = sorted(folder.glob("*.tar"))
    began = time.process_time()
    for job in enumerate(files):
        look(job)
    alone = time.process_time() - began
    list(run_chunks(look, list(enumerate(files)), 2))  # the workers' start
    began = time.perf_counter()
    list(run_chunks(look, list(enumerate(files)), 2))
    workers = time.perf_counter() - began
    reader = open_reader(folder, Options(index=folder / "index"))
    count = len(reader)
    size = sum(f.stat().st_size for f in (folder / "index").rglob("*") if f.is_file())
    began, rows = time.process_time(), 0
    for start in range(0, count, 4096):
        rows += len(reader.read(start, start + 4096))
    read = time.process_time() - began
    began = time.process_time()
    for start in range(0, count, 4096):
        for row in reader.read(start, start + 4096, ("jpg",)):
            locate(row["jpg"], folder, folder)
    pictures = time.process_time() - began
    assert rows == count == samples
    return "\n".join(
        [
            f"{samples:,} samples of jpg, txt and json in {SHARDS} shards; CPU time of one core, or wall.",
            "",
            "| what | time | a second |",
            "|---|---|---|",
            f"| index, one core | {alone:.1f} s | {3 * samples / alone:,.0f} members |",
            f"| index, two workers, wall | {workers:.1f} s | {3 * samples / workers:,.0f} members |",
            f"| rows with text and JSON | {read:.1f} s | {samples / read:,.0f} rows |",
            f"| bytes of all pictures | {pictures:.1f} s | {samples / pictures:,.0f} pictures |",
            f"| index on disk | | {size / samples:.0f} bytes a sample |",
        ]
    )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        make(Path(made), options.samples)
        text = table(Path(made), options.samples)
    print(text)
    if options.write:
        from benchmarks.write import write_section

        write_section("shards", "WebDataset shards (`make bench-data`)", text)


if __name__ == "__main__":
    main()
