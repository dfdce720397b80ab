"""Media in packs: `make bench-media`.

JPEGs as the web has them (500 × 375, quality 85), made here: how fast they are looked at, decoded, kept and read again
on one core, what disk they take, how far kept pixels are off, and how long `djsb auto` takes to the first trained step.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
WIDTH, HEIGHT = 500, 375
GOALS = (
    "Goals: disk at most 25 % of raw; read from packs at 85 % of plain decoding at least; 10,000 headers a second; the "
    "first trained step within 20 s where nothing is cached"
)
STUDY = """name: bench
task: clip
budget: 1h
dataset: {dataset}
evaluation: {evaluation}
model: {{preset: {preset}}}
train: {{epochs: 1, batch_size: 64}}
search: {{strategy: grid, seeds: 1}}
ops:
  text_length_filter: {{}}
  words_num_filter: {{}}
  image_shape_filter: {{}}
"""


def scene(rng: np.random.Generator, side: int = 1600) -> Image.Image:
    """A large picture that compresses as photographs do: about 1/f in brightness, less and softer colour."""
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]) + 1 / side

    def noise(power: float, spread: float) -> NDArray[np.float64]:
        found = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) / f**power, s=(side, side))
        return (found - found.mean()) / found.std() * spread

    bright, red, blue = noise(1.25, 55) + 120, noise(1.5, 12), noise(1.5, 12)
    channels = np.stack([bright + 1.4 * red, bright - 0.7 * red - 0.35 * blue, bright + 1.8 * blue], -1)
    return Image.fromarray(np.clip(channels, 0, 255).astype(np.uint8))


def make_rows(folder: Path, name: str, count: int, seed: int) -> None:
    """Rows with captions, labels and one JPEG each."""
    rng = np.random.default_rng(seed)
    scenes = [scene(rng) for _ in range(4)]
    (folder / name).mkdir(parents=True)
    words = "a photo of one red blue dog house tree near the old sea at night with people".split()  # noqa: SIM905
    with (folder / f"{name}.jsonl").open("w") as rows:
        for n in range(count):
            x, y = rng.integers(0, 1600 - WIDTH), rng.integers(0, 1600 - HEIGHT)
            file = f"{name}/{n:06d}.jpg"
            scenes[n % 4].crop((x, y, x + WIDTH, y + HEIGHT)).save(folder / file, quality=85)
            text = " ".join(rng.choice(words, int(rng.integers(3, 20))))
            rows.write(json.dumps({"id": n, "text": text, "images": [file], "label": f"kind {n % 5}"}) + "\n")


def rate(work: Callable[[Any], object], items: Sequence[Any]) -> float:
    """Items a second of one core, by CPU time."""
    began = time.process_time()
    for item in items:
        work(item)
    return len(items) / (time.process_time() - began)


def of_one_core(folder: Path, count: int, side: int) -> list[str]:
    """Lines of the table for one side of the model's images."""
    from engine.data.dataset import Dataset
    from engine.data.images import check_whole
    from engine.settings.data import DatasetSection
    from engine.tasks.contract import Rows
    from engine.tasks.shared.images import Squares, cache_images
    from engine.tasks.shared.media import set_bound
    from engine.tasks.shared.packed import Store, open_media

    files = sorted((folder / "train").iterdir())[:count]
    data = Dataset(folder / "train.jsonl", DatasetSection(path="train.jsonl", text="text", images="images", id="id"))
    cache = folder / f"caches-{side}"
    set_bound(cache, None)
    rows = Rows(data, folder, np.ones(len(data), bool), form="jpeg")
    cache_images(rows, side, cache / "clip", "train-images", 1)
    kept = open_media(cache / "clip", "train-images")
    medium = Squares(side)
    for file in files[:20]:  # torch is loaded
        medium.pack(file, 0, "jpeg")
    order = np.random.default_rng(0).permutation(len(files))
    batches = np.array_split(order, max(1, len(order) // 64))
    plain = rate(lambda f: Image.open(io.BytesIO(f.read_bytes())).convert("RGB"), files)
    whole = rate(lambda f: medium.decode(f, 0), files)
    make, read = (len(order) / len(batches) * rate(lambda b: kept[b], batches) for _ in range(2))
    store = Store(cache / "clip" / "train-images.json")
    items = [store.packs.get(int(n)) or b"" for n in order]
    again = rate(lambda c: np.asarray(Image.open(io.BytesIO(c[1:])).convert("RGB")), items)
    look = rate(check_whole, files)
    errors = [np.abs(medium.decode(files[n], 0)[0].astype(int) - kept[np.array([n])][0]) for n in order[:200]]
    disk = sum(f.stat().st_size for f in cache.rglob("*.pack")) / (len(files) * side * side * 3)
    cells = [
        f"{side}", f"{look:,.0f}", f"{plain:,.0f}", f"{whole:,.0f}", f"{make:,.0f}",
        f"{read:,.0f} ({read / plain:.0%})", f"{read / again:.0%}", f"{disk:.1%}",
        f"{np.mean(errors):.2f} (p99 {np.percentile(errors, 99):.0f})",
    ]  # fmt: skip
    return [f"| {' | '.join(cells)} |"]


def of_clips(folder: Path, count: int) -> str:
    """A line about clips of 16 frames at 256 pixels, from videos whose camera moves."""
    from engine.tasks.shared.videos import Windows, write_clip

    rng = np.random.default_rng(0)
    picture = np.asarray(scene(rng))
    files = []
    for n in range(count):
        x, y, dx, dy = *rng.integers(0, 600, 2), *rng.integers(-4, 5, 2)
        frames = [picture[y + 250 + t * dy :, x + 250 + t * dx :][:360, :480] for t in range(48)]
        files.append(folder / f"{n}.mp4")
        write_clip(np.stack(frames), files[-1], 8)
    medium = Windows(16, 3, 256, 0)
    clips = [medium.decode(file, 0)[0] for file in files]
    made = rate(lambda file: medium.pack(file, 0, "jpeg"), files)
    items = [medium.pack(file, 0, "jpeg")[0] for file in files]
    read = rate(medium.unpack, items)
    errors = np.abs(np.stack(clips).astype(int) - np.stack([medium.unpack(item) for item in items]))
    disk = sum(map(len, items)) / sum(clip.nbytes for clip in clips)
    return (
        f"\nClips of 16 frames at 256 pixels: {made:.1f} made, {read:.1f} read a second of a core, {disk:.1%} of raw, "
        f"error {errors.mean():.2f} (p99 {np.percentile(errors, 99):.0f}) of 255."
    )


def first_step(folder: Path, preset: str) -> dict[str, float]:
    """Seconds from the start of `djsb auto` to the calibration's end and to a trial's first point."""
    study = folder / f"study-{preset}"
    study.mkdir()
    for name in ("train", "test"):
        (study / name).symlink_to(folder / name)
        (study / f"{name}.jsonl").write_text((folder / f"{name}.jsonl").read_text())
    (study / "study.yaml").write_text(
        STUDY.format(
            preset=preset,
            dataset="{path: train.jsonl, text: text, images: images, id: id}",
            evaluation="{path: test.jsonl, label: label}",
        )
    )
    began = time.time()
    log = (folder / "auto.log").open("w")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "djsb.py"), "auto", str(study)], stdout=log, stderr=log, cwd=folder
    )
    found: dict[str, float] = {}
    try:
        while "first point" not in found and time.time() - began < 900 and process.poll() is None:
            time.sleep(0.1)
            with suppress(sqlite3.Error), closing(sqlite3.connect(study / ".djsb" / "study.db", timeout=1)) as db:
                for what, sql in (("first trial", "trials WHERE state != 'queued'"), ("first point", "curve_points")):
                    if what not in found and db.execute(f"SELECT count(*) FROM {sql}").fetchone()[0]:
                        found[what] = time.time() - began
    finally:
        process.terminate()
        process.wait()
    return found


def main() -> None:
    """Run, print, and write on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--measured", type=int, default=4_000, help="images whose rates are measured")
    parser.add_argument("--clips", type=int, default=40, help="videos that are made; 0: none")
    parser.add_argument("--sides", type=int, nargs="*", default=[224, 336])
    parser.add_argument("--presets", nargs="*", default=["tiny", "vit-b-32"])
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    lines = [
        "| side | headers looked at | plain decoding | decoded and resized | made and kept "
        "| read from packs (of plain) | of plain decoding of what is kept | disk of raw | error, of 255 |\n"
        "|---|---|---|---|---|---|---|---|---|"
    ]
    print(lines[0], flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_rows(folder, "train", args.images, 0)
        make_rows(folder, "test", 200, 1)
        for side in args.sides:
            lines += of_one_core(folder, args.measured, side)
            print(lines[-1], flush=True)
        if args.clips:
            lines.append(of_clips(folder, args.clips))
            print(lines[-1], flush=True)
        for preset in args.presets:
            found = first_step(folder, preset)
            times = ", ".join(f"{what} after {seconds:.0f} s" for what, seconds in found.items()) or "nothing"
            lines.append(f"\n`djsb auto`, {args.images:,} images, preset {preset}, {os.cpu_count()} cores: {times}.")
            print(lines[-1], flush=True)
    if args.write:
        from benchmarks.write import write_section

        body = "\n".join(lines)
        write_section(
            "media", "Media in packs (`make bench-media`)", f"Images a second of a core.\n\n{body}\n\n{GOALS}."
        )


if __name__ == "__main__":
    main()
