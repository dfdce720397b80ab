"""What stands before the first trained step: `make bench-media`.

JPEGs as the web has them in WebDataset shards, a study of them in which nothing is cached: seconds of `djsb check`, of
`djsb plan`, and of `djsb auto` up to each mark on its way to the first point of a trial's curve.
"""

from __future__ import annotations

import argparse
import io
import os
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.media import HEIGHT, STUDY, WIDTH, scene

SHARD = 1_000  # images
DISTINCT = 500  # images that differ in their bytes
LONGEST = 900.0  # seconds that a command is waited for
GOAL = "Goal: the first trained step within 20 s where nothing is cached"
MARKS = {
    "rows scanned": "cache/scan-*.npz",
    "caches made": "cache/clip-*/meta.json",
    "calibrated": "SELECT count(*) FROM costs WHERE kind = 'calibration'",
    "first trial": "SELECT count(*) FROM trials WHERE state != 'queued'",
    "first step": "SELECT count(*) FROM curve_points",
}


def make_shards(folder: Path, images: int, seed: int) -> None:
    """Shards of KEY.jpg, KEY.txt and KEY.cls."""
    rng = np.random.default_rng(seed)
    scenes = [scene(rng) for _ in range(2)]
    encoded = []
    for n in range(min(images, DISTINCT)):
        x, y = (int(v) for v in rng.integers(0, 1600 - WIDTH, 2))
        out = io.BytesIO()
        scenes[n % 2].crop((x, y, x + WIDTH, y + HEIGHT)).save(out, "JPEG", quality=85)
        encoded.append(out.getvalue())
    words = np.array("a photo of one red blue dog house tree near the old sea at night with people".split())  # noqa: SIM905
    folder.mkdir(parents=True)
    for at in range(0, images, SHARD):
        with tarfile.open(folder / f"{at // SHARD:05d}.tar", "w") as shard:
            for n in range(at, min(at + SHARD, images)):
                text = f"{n} " + " ".join(rng.choice(words, int(rng.integers(3, 20))))
                for ending, content in (
                    ("jpg", encoded[n % len(encoded)]), ("txt", text.encode()), ("cls", f"kind {n % 5}".encode())
                ):  # fmt: skip
                    member = tarfile.TarInfo(f"{n:09d}.{ending}")
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))


def new_study(folder: Path, name: str) -> Path:
    """A study of the shards, in which nothing is cached."""
    study = folder / name
    study.mkdir()
    (study / "study.yaml").write_text(
        STUDY.format(
            preset="tiny",
            dataset=f"{{path: {folder / 'train'}, text: txt, images: jpg, id: __key__}}",
            evaluation=f"{{path: {folder / 'test'}, label: cls}}",
        )
    )
    return study


class Cpu:
    """CPU seconds of a command and all processes below it, looked at often: a busy machine adds none."""

    def __init__(self, command: str, study: Path) -> None:
        self.began, self._seen = time.time(), dict[int, float]()
        with (study / f"{command}.log").open("w") as log:
            argv = [sys.executable, str(ROOT / "djsb.py"), command, str(study)]
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)
        self._top = psutil.Process(self.process.pid)

    def ended(self) -> bool:
        """Look at all processes; whether the command has ended."""
        time.sleep(0.05)
        with suppress(psutil.Error):
            for process in [self._top, *self._top.children(recursive=True)]:
                with suppress(psutil.Error):
                    times = process.cpu_times()
                    self._seen[process.pid] = times.user + times.system
        return self.process.poll() is not None or time.time() - self.began > LONGEST

    @property
    def now(self) -> str:
        """Wall and CPU seconds so far, as cells."""
        return f"{time.time() - self.began:.1f} | {sum(self._seen.values()):.1f}"


def whole(command: str, study: Path) -> str:
    """Of a command that ends."""
    cpu = Cpu(command, study)
    while not cpu.ended():
        pass
    assert cpu.process.returncode == 0, (study / f"{command}.log").read_text()
    return cpu.now


def marks(study: Path) -> Iterator[tuple[str, str]]:
    """(mark, seconds up to it) of `djsb auto`, which is ended at the last of them."""
    cpu, left = Cpu("auto", study), dict(MARKS)
    try:
        while left and not cpu.ended():
            for mark in [mark for mark, what in left.items() if _is_there(study / ".djsb", what)]:
                del left[mark]
                yield mark, cpu.now
    finally:
        cpu.process.terminate()
        cpu.process.wait()


def _is_there(state: Path, what: str) -> bool:
    if not what.startswith("SELECT"):
        return any(state.glob(what))
    with suppress(sqlite3.Error), closing(sqlite3.connect(state / "study.db", timeout=1)) as db:
        return bool(db.execute(what).fetchone()[0])
    return False


def main() -> None:
    """Run, print, and write on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder of the shards; they are made there once")
    args = parser.parse_args()
    lines = ["| what | seconds | CPU seconds of all processes |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        if not (folder / "test").exists():
            make_shards(folder / "train", args.images, 0)
            make_shards(folder / "test", 200, 1)
        with tempfile.TemporaryDirectory(dir=folder) as own:
            for name in ("train", "test"):
                (Path(own) / name).symlink_to(folder / name)
            for command in ("check", "plan"):
                lines.append(f"| `djsb {command}` | {whole(command, new_study(Path(own), command))} |")
                print(lines[-1], flush=True)
            for mark, after in marks(new_study(Path(own), "auto")):
                lines.append(f"| `djsb auto`: {mark} after | {after} |")
                print(lines[-1], flush=True)
    if args.write:
        from benchmarks.write import write_section

        body = "\n".join(lines)
        cores = os.cpu_count()
        head = f"{args.images:,} JPEGs in WebDataset shards, preset tiny, {cores} cores, each command on a new study."
        write_section("start", "Before the first step (`make bench-media`)", f"{head}\n\n{body}\n\n{GOAL}.")


if __name__ == "__main__":
    main()
