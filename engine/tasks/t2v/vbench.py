"""VBench (Huang et al. 2024): its real run in an environment of its own, and how its 16 scores become three.

djsb neither installs nor imports VBench. The study names a command, in which {videos} is a folder of clips named
`CAPTION-0.mp4`, {prompts} a JSON file from their paths to their captions, and {out} an empty folder where the
command leaves VBench's `*_eval_results.json` (dimension → [score, per clip …]).
"""

from __future__ import annotations

import json
import math
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base import program_guard as guard
from engine.base.errors import TrialError

# as in VBench's own scripts/constant.py: dimension → (smallest, largest score, weight)
QUALITY = {
    "subject_consistency": (0.1462, 1.0, 1.0),
    "background_consistency": (0.2615, 1.0, 1.0),
    "temporal_flickering": (0.6293, 1.0, 1.0),
    "motion_smoothness": (0.706, 0.9975, 1.0),
    "aesthetic_quality": (0.0, 1.0, 1.0),
    "imaging_quality": (0.0, 1.0, 1.0),
    "dynamic_degree": (0.0, 1.0, 0.5),
}
SEMANTIC = {
    "object_class": (0.0, 1.0, 1.0),
    "multiple_objects": (0.0, 1.0, 1.0),
    "human_action": (0.0, 1.0, 1.0),
    "color": (0.0, 1.0, 1.0),
    "spatial_relationship": (0.0, 1.0, 1.0),
    "scene": (0.0, 0.8222, 1.0),
    "appearance_style": (0.0009, 0.2855, 1.0),
    "temporal_style": (0.0, 0.364, 1.0),
    "overall_consistency": (0.0, 0.364, 1.0),
}
DIMENSIONS = QUALITY | SEMANTIC
LONGEST = 200  # bytes of a caption in a file name
LAST = 3  # lines of a failed command's errors that are shown


@dataclass(frozen=True)
class Board:
    """A model on VBench's leaderboard; shares of 1, or percent, as the parts are given."""

    quality: float
    semantic: float

    @property
    def total(self) -> float:
        """VBench's weighted average: (4 · quality + semantic) / 5; the paper's Board Avg."""
        return (4 * self.quality + self.semantic) / 5


def normalise(scores: Mapping[str, float]) -> dict[str, float]:
    """VBench's scores of dimensions, each as a share of what is reached at all; may leave 0 to 1 by a little."""
    return {name: (s - DIMENSIONS[name][0]) / (DIMENSIONS[name][1] - DIMENSIONS[name][0]) for name, s in scores.items()}


def board(scores: Mapping[str, float]) -> Board | None:
    """Quality and semantic score of VBench's 16 raw scores, shares of 1; None unless all are there."""
    if set(DIMENSIONS) - set(scores):
        return None
    shares = normalise(scores)

    def mean(group: Mapping[str, tuple[float, float, float]]) -> float:
        weights = {name: weight for name, (_, _, weight) in group.items()}
        return sum(shares[name] * weight for name, weight in weights.items()) / sum(weights.values())

    return Board(mean(QUALITY), mean(SEMANTIC))


def read_results(folder: Path) -> dict[str, float]:
    """VBench's raw scores by dimension from all `*_eval_results.json` of a folder.

    Raises: TrialError that names the file when there is none, or one holds no scores.
    """
    files = sorted(folder.rglob("*_eval_results.json"))
    if not files:
        raise TrialError(f"video.vbench left no *_eval_results.json in {folder}; let its --output_path be {{out}}")
    found: dict[str, float] = {}
    for file in files:
        try:
            content: Any = json.loads(file.read_text(encoding="utf-8"))
            for key, value in content.items():
                name = str(key).replace(" ", "_")
                if name in DIMENSIONS:
                    score = float(value[0] if isinstance(value, list) else value)
                    found[name] = score / 100 if name == "imaging_quality" and score > 1 else score
        except (OSError, ValueError, TypeError, AttributeError, IndexError) as error:
            raise TrialError(
                f"{file} holds no scores of VBench ({error}); it wants {{dimension: [score, …]}}"
            ) from error
    broken = [name for name, score in found.items() if not math.isfinite(score)]
    if broken or not found:
        raise TrialError(f"{files[0]} has no finite score of {', '.join(broken) or 'any dimension'}; look at its run")
    return found


def clip_name(caption: str, number: int) -> str:
    """The file name that VBench reads the caption from, safe as one."""
    safe = "".join(" " if c in "/\\\0" or not c.isprintable() else c for c in caption).strip(" .")
    fits = safe.encode()[:LONGEST].decode(errors="ignore").strip(" .")
    return f"{fits or 'clip'}-{number}.mp4"


def run_vbench(command: str, videos: Path, prompts: Path, out: Path, seconds: float) -> dict[str, float]:
    """Run the study's command on clips; VBench's raw scores by dimension.

    seconds: after which it is ended with all that it has started, as it is when the worker dies. Raises: TrialError
    with its last lines.
    """
    places = {"{videos}": str(videos), "{prompts}": str(prompts), "{out}": str(out)}
    words = shlex.split(command)
    for place, path in places.items():
        words = [word.replace(place, path) for word in words]
    out.mkdir(parents=True, exist_ok=True)
    log = out / "stderr.log"
    with log.open("wb") as errors:
        process = guard.start(words, stdout=errors, stderr=errors)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TrialError(f"video.vbench took more than {seconds:g} s; raise video.vbench_seconds") from None
        finally:
            guard.end(process)
    if code:
        last = " | ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST:])
        remedy = "; give the path of its environment's python" if code == guard.NOT_STARTED else ""
        raise TrialError(f"video.vbench ended with code {code}: {last}{remedy}")
    return read_results(out)
