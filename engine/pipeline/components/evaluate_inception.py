"""EvaluateDataHook, type `video_inception_evaluator`: made videos against real ones, by a classifier's features.

The classifier is a TorchScript file on this machine, as those of StyleGAN-V: I3D for fvd, kvd and prv, C3D for isv,
Inception for fid, kid and is, VGG for pr. None is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from engine.base.errors import DataError
from engine.data.dataset import as_list
from engine.data.videos import open_video
from engine.pipeline.contract import Component, ComponentError, Context, Done, Draft, Group, Takes
from engine.pipeline.hooks import EVALUATE_DATA
from engine.pools.files import open_pool
from engine.tasks.t2v.scores import frechet_distance

Features = NDArray[np.float64]
SUBSETS, LARGEST, SPLITS, NEAREST = 100, 1_000, 10, 3


@dataclass(frozen=True)
class Metric:
    """kind: of comparison. frames, stride: of a clip; None: single frames. most: clips, or frames. call: options."""

    kind: Literal["frechet", "kernel", "score", "neighbours"]
    frames: int | None
    stride: int
    most: int
    call: tuple[str, ...]


CLIP, IMAGE = ("rescale", "resize", "return_features"), ("return_features",)
METRICS = {
    "fvd2048_16f": Metric("frechet", 16, 1, 2048, CLIP), "fvd2048_128f": Metric("frechet", 128, 1, 2048, CLIP),
    "fvd2048_128f_subsample8f": Metric("frechet", 16, 8, 2048, CLIP),
    "kvd2048_16f": Metric("kernel", 16, 1, 2048, CLIP), "isv2048_ucf": Metric("score", 16, 1, 2048, ()),
    "prv2048_3n_16f": Metric("neighbours", 16, 1, 2048, CLIP),
    "fid50k": Metric("frechet", None, 1, 50_000, IMAGE), "kid50k": Metric("kernel", None, 1, 50_000, IMAGE),
    "is50k": Metric("score", None, 1, 50_000, ("no_output_bias",)),
    "pr50k_3n": Metric("neighbours", None, 1, 50_000, IMAGE),
}  # fmt: skip


class Extra(Group):
    """Its keys. Where there are more videos than a metric takes, the first are taken."""

    fake_data_path: str
    real_data_path: str | None = None
    fake_mm_dir: str | None = None
    real_mm_dir: str | None = None
    detector_path: str | None = None
    result_path: str
    num_runs: int = Field(1, ge=1)
    height: int = Field(240, ge=8)
    width: int = Field(320, ge=8)
    replace_cache: bool = False
    verbose: bool = False
    seed: int = 42
    metric: str = "fvd2048_16f"


Keys = Takes[Extra]


class Inception(Component[Keys]):
    """Gives a mapping of the metric's numbers, and writes it as a line of result_path."""

    name = "video_inception_evaluator"
    hooks = frozenset({EVALUATE_DATA})
    settings = Keys
    gives = ("results",)
    read_keys = ("extra_configs.fake_data_path", "extra_configs.real_data_path", "extra_configs.detector_path")
    write_keys = ("extra_configs.result_path",)
    tracks = True

    def check(self, draft: Draft) -> Iterable[tuple[str, str]]:
        """A metric that is known, with all that it needs."""
        name = draft.get("extra_configs.metric") or "fvd2048_16f"
        if name not in METRICS:
            yield "extra_configs.metric", f"{name!r} is none of {', '.join(METRICS)}"
        elif METRICS[name].kind != "score" and not draft.get("extra_configs.real_data_path"):
            yield "extra_configs.real_data_path", f"{name} compares with real videos; name a file of them"
        if not draft.get("extra_configs.detector_path"):
            yield "extra_configs.detector_path", "no classifier is fetched; name the TorchScript file of one"

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        metric = METRICS.get(keys.metric)
        if metric is None or not keys.detector_path:
            raise ComponentError(f"{context.job}: metric and detector_path are needed; metrics: {', '.join(METRICS)}")
        made = _features(keys.fake_data_path, keys.fake_mm_dir, metric, keys, context)
        real = None
        if metric.kind != "score":
            real = _features(keys.real_data_path or "", keys.real_mm_dir, metric, keys, context)
        found = compared(keys.metric, metric, made, real, keys.seed + context.seed)
        out = context.path(keys.result_path)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"metric": keys.metric, "results": found}, allow_nan=False) + "\n", encoding="utf-8")
        return Done([found], found)


def compared(name: str, metric: Metric, made: Features, real: Features | None, seed: int) -> dict[str, float]:
    """The metric's numbers of (items, width) features. Raises: ComponentError where there are too few."""
    least = NEAREST + 2 if metric.kind == "neighbours" else 2
    if min(len(made), *([] if real is None else [len(real)])) < least:
        raise ComponentError(f"{name} needs {least} videos or frames on each side; give more")
    if real is None:
        mean, std = inception_score(made)
        return {f"{name}_mean": mean, f"{name}_std": std}
    if metric.kind == "frechet":
        return {name: frechet_distance(real, made)}
    if metric.kind == "kernel":
        return {name: kernel_distance(real, made, seed)}
    return {f"{name}_precision": covered(real, made), f"{name}_recall": covered(made, real)}


def inception_score(chances: Features) -> tuple[float, float]:
    """(mean, standard deviation) over splits of exp of the mean divergence of each item's classes from the split's."""
    scores = []
    for part in np.array_split(chances, min(SPLITS, len(chances))):
        divergence = part * (np.log(np.maximum(part, 1e-30)) - np.log(np.maximum(part.mean(0), 1e-30)))
        scores.append(float(np.exp(divergence.sum(1).mean())))
    return float(np.mean(scores)), float(np.std(scores))


def kernel_distance(one: Features, other: Features, seed: int) -> float:
    """Mean over subsets of the unbiased squared distance by a polynomial kernel of degree 3 (Binkowski et al. 2018)."""
    rng, size, width = np.random.default_rng(seed), min(len(one), len(other), LARGEST), one.shape[1]
    found = []
    for _ in range(SUBSETS):
        x, y = (some[rng.choice(len(some), size, replace=False)] for some in (one, other))
        within = (x @ x.T / width + 1) ** 3 + (y @ y.T / width + 1) ** 3
        between = (x @ y.T / width + 1) ** 3
        found.append((within.sum() - np.trace(within)) / (size - 1) / size - 2 * between.mean())
    return float(np.mean(found))


def covered(manifold: Features, items: Features) -> float:
    """Share of items that lie within the fourth nearest neighbour's distance of any of the manifold's."""

    def distances(some: Features, others: Features) -> Features:
        squares = (some**2).sum(1)[:, None] + (others**2).sum(1) - 2 * some @ others.T
        result: Features = np.sqrt(np.maximum(squares, 0))
        return result

    radii = np.sort(distances(manifold, manifold), axis=1)[:, NEAREST + 1]
    return float((distances(items, manifold) <= radii).any(1).mean())


def _features(path: str, folder: str | None, metric: Metric, keys: Extra, context: Context) -> Features:
    """(items, width) what the classifier says of the videos of a data set."""
    import torch

    file = context.file(str(keys.detector_path))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        detector = torch.jit.load(str(file), map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise ComponentError(f"{context.job}: {file} is no TorchScript file ({str(error).splitlines()[0]})") from error
    detector.eval()
    options = dict.fromkeys(metric.call, True)
    found = []
    with torch.inference_mode():
        for item in _items(path, folder, metric, keys, context):
            # (frames, height, width, 3) → (1, 3, frames, height, width), or one frame
            pixels = torch.from_numpy(item).to(device).permute(3, 0, 1, 2)[None]
            pixels = pixels[:, :, 0] if metric.frames is None else pixels.float()
            said: Any = detector(pixels, **options)
            found.append(said.double().reshape(1, -1).cpu().numpy())
    return np.concatenate(found)


def _items(path: str, folder: str | None, metric: Metric, keys: Extra, context: Context) -> Iterator[NDArray[np.uint8]]:
    """Clips, one a video, or all frames; up to as many as the metric takes."""
    pool, count = open_pool(context.path(path)), 0
    base = context.path(folder) if folder else pool.path.parent
    for span in pool.blocks():
        for row in pool.read(*span):
            for name in as_list(row.get("videos")):
                if count >= metric.most:
                    return
                frames = _frames(base / str(name), metric, keys)
                if metric.frames is not None:
                    count += 1
                    yield np.stack([*frames, *[frames[-1]] * (metric.frames - len(frames))])
                    continue
                for frame in frames[: metric.most - count]:
                    count += 1
                    yield frame[None]


def _frames(video: Path, metric: Metric, keys: Extra) -> list[NDArray[np.uint8]]:
    """The first frames of a video, at one size. Raises: DataError."""
    found: list[NDArray[np.uint8]] = []
    try:
        with open_video(video) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number % metric.stride == 0:
                    found.append(frame.to_ndarray(format="rgb24", width=keys.width, height=keys.height))
                    if metric.frames is not None and len(found) == metric.frames:
                        break
    except (OSError, ValueError) as error:
        raise DataError(f"{video} cannot be read ({error}); mend it, or take the row out") from error
    if not found:
        raise DataError(f"{video} has no frames; take the row out")
    return found


COMPONENTS = (Inception(),)
