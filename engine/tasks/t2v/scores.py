"""Scores of generated clips that need no download: optical flow, a local CLIP, a local video model, exact checks.

Clips are (clips, frames, height, width, 3) uint8. The first three follow VBench's dimensions of these names (Huang et
al. 2024) with classical optical flow (Farnebäck 2003) in place of its networks; they are no VBench scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.tasks.shared.procedure import autocast
from engine.tasks.shared.weights import Weights

if TYPE_CHECKING:
    import torch

Video = NDArray[np.uint8]
Flow = NDArray[np.float32]
LEAST = 64  # pixels of the shorter side that flow is computed at; smaller frames are enlarged
FAST = 6 / 256  # of the shorter side per frame: what VBench calls moving
COLOURS = {"red": (205, 45, 45), "green": (50, 165, 65), "blue": (50, 80, 205), "yellow": (220, 200, 50)}
FILL = {"square": 1.0, "circle": 0.785, "triangle": 0.5}  # share of its bounding box that a shape fills
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


def flow(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> Flow:
    """(height, width, 2) pixels that each point of `before` moves to be where it is in `after`; both grey."""
    import cv2

    found: Flow = cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 3, 15, 3, 5, 1.2, 0)  # type: ignore[call-overload]
    return found


def _enlarged(clip: Video) -> Video:
    """The clip with a shorter side of at least LEAST pixels."""
    import cv2

    height, width = clip.shape[1:3]
    scale = max(1.0, LEAST / min(height, width))
    if scale == 1:
        return clip
    size = (round(width * scale), round(height * scale))
    return np.stack([cv2.resize(f, size, interpolation=cv2.INTER_LINEAR) for f in clip]).astype(np.uint8)


def _grey(clip: Video) -> list[NDArray[np.uint8]]:
    import cv2

    return [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY).astype(np.uint8) for f in clip]


def temporal_flicker(clip: Video) -> float:
    """1 minus the mean absolute difference of frames that follow each other, 0 to 1; 1: nothing changes."""
    return float(1 - np.abs(np.diff(clip.astype(np.float32), axis=0)).mean() / 255)


def motion_smoothness(clip: Video) -> float:
    """How well each frame is guessed from its neighbours, moved half-way along the flow between them; 0 to 1.

    1 minus the mean absolute error, as in VBench, whose guess a network makes. NaN below three frames.
    """
    import cv2

    if len(clip) < 3:
        return float("nan")
    large = _enlarged(clip)
    grey = _grey(large)
    ys, xs = np.mgrid[: large.shape[1], : large.shape[2]].astype(np.float32)
    errors = []
    for at in range(1, len(large) - 1):
        ahead, back = flow(grey[at - 1], grey[at + 1]), flow(grey[at + 1], grey[at - 1])
        sides = [
            cv2.remap(frame, xs - way[..., 0] / 2, ys - way[..., 1] / 2, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
            for frame, way in ((large[at - 1], ahead), (large[at + 1], back))
        ]  # fmt: skip
        guess = (sides[0].astype(np.float32) + sides[1]) / 2
        errors.append(np.abs(guess - large[at]).mean() / 255)
    return float(1 - np.mean(errors))


def is_dynamic(clip: Video) -> bool:
    """True if in a quarter of the steps the fastest 5 % of the points move by more than FAST, as in VBench."""
    large = _enlarged(clip)
    grey = _grey(large)
    moving = 0
    for before, after in pairwise(grey):
        speed = np.linalg.norm(flow(before, after), axis=-1).ravel()
        moving += float(np.sort(speed)[-max(1, len(speed) // 20) :].mean()) > FAST * min(large.shape[1:3])
    return moving >= max(1, round(len(clip) / 4))


def flow_scores(clips: Video) -> dict[str, float]:
    """Means over the clips of temporal_flicker and motion_smoothness, and the share of those that is_dynamic."""
    return {
        "temporal_flicker": float(np.mean([temporal_flicker(c) for c in clips])),
        "motion_smoothness": float(np.nanmean([motion_smoothness(c) for c in clips])),
        "dynamic_degree": float(np.mean([is_dynamic(c) for c in clips])),
    }


def clip_weights(folder: Path) -> Weights:
    """Those of `video.clip`."""
    return Weights("video.clip", "transformers.CLIPModel", folder)


def detector_weights(folder: Path) -> Weights:
    """Those of `video.detector`; its last layer is read, not the pooler above it."""
    return Weights("video.detector", "transformers.AutoModel", folder, ("pooler.",))


def load_clip(folder: Path, device: torch.device) -> Callable[[Video, Sequence[str]], dict[str, float]]:
    """`clip_scores` with the CLIP checkpoint of a folder. Raises: StudyError when it is none."""
    import torch
    from transformers import AutoTokenizer

    from engine.tasks.shared.batches import to_pixels

    model = clip_weights(folder).load().eval().to(device)
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    side, length = model.config.vision_config.image_size, model.config.text_config.max_position_embeddings

    def see(frames: Video) -> NDArray[np.float32]:
        with torch.no_grad(), autocast(device):
            seen = model.vision_model(pixel_values=_resized(to_pixels(frames, device), side)).pooler_output
            found: NDArray[np.float32] = (
                torch.nn.functional.normalize(model.visual_projection(seen).float(), dim=-1).cpu().numpy()
            )
        return found

    def read(texts: list[str]) -> NDArray[np.float32]:
        ids = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")[
            "input_ids"
        ]
        with torch.no_grad(), autocast(device):
            said = model.text_projection(model.text_model(input_ids=ids.to(device)).pooler_output)
            found: NDArray[np.float32] = torch.nn.functional.normalize(said.float(), dim=-1).cpu().numpy()
        return found

    return lambda clips, captions: clip_scores(np.stack([see(c) for c in clips]), read(list(captions)))


def _resized(pixels: torch.Tensor, side: int) -> torch.Tensor:
    from torch.nn import functional

    return functional.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True, align_corners=False)


def clip_scores(frames: NDArray[np.float32], texts: NDArray[np.float32]) -> dict[str, float]:
    """Of unit vectors (clips, frames, width) and (clips, width).

    subject_consistency: mean similarity of each frame to the first and to the one before, negative ones as 0 (VBench,
    there with DINO). text_similarity: mean similarity of frames and caption.
    """
    to_first = np.clip(np.einsum("cfw,cw->cf", frames[:, 1:], frames[:, 0]), 0, None)
    to_last = np.clip(np.einsum("cfw,cfw->cf", frames[:, 1:], frames[:, :-1]), 0, None)
    return {
        "subject_consistency": float(((to_first + to_last) / 2).mean()) if frames.shape[1] > 1 else 1.0,
        "text_similarity": float(np.einsum("cfw,cw->cf", frames, texts).mean()),
    }


def load_detector(folder: Path, device: torch.device) -> Callable[[Video], NDArray[np.float64]]:
    """Features (clips, width) of clips: the mean of the last layer of a local VideoMAE, ViViT or TimeSformer.

    Raises: StudyError or ValueError when the folder holds none.
    """
    import torch
    from transformers import AutoConfig

    from engine.tasks.shared.batches import to_pixels

    config: Any = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    if config.model_type not in ("videomae", "vivit", "timesformer"):
        raise ValueError(f"a {config.model_type} model, not a videomae, vivit or timesformer one")
    model = detector_weights(folder).load().eval().to(device)
    side = config.image_size if isinstance(config.image_size, int) else config.image_size[0]
    frames = config.num_frames

    def features(clips: Video) -> NDArray[np.float64]:
        chosen = clips[:, np.linspace(0, clips.shape[1] - 1, frames).round().astype(int)]
        found = []
        with torch.no_grad(), autocast(device):
            for clip in chosen:
                seen = model(pixel_values=_resized(to_pixels(clip, device), side)[None]).last_hidden_state
                found.append(seen.mean(1)[0].double().cpu().numpy())
        return np.stack(found)

    return features


def frechet_distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Fréchet distance of two Gaussians fitted to (clips, width) features (Unterthiner et al. 2019: FVD).

    Raises: ValueError below two clips a side.
    """
    from scipy.linalg import sqrtm

    if min(len(one), len(other)) < 2:
        raise ValueError("a Fréchet distance needs at least two clips on each side")
    first, second = np.cov(one, rowvar=False).reshape(one.shape[1], -1), np.cov(other, rowvar=False)
    second = second.reshape(first.shape)
    root = np.real(sqrtm(first @ second))
    distance = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    return max(0.0, float(distance))


def seen_in(clip: Video) -> tuple[str | None, str | None, str | None]:
    """(colour, shape, way) of the one coloured shape on grey, by image analysis; None where none is told."""
    pixels = clip.astype(np.float32)
    vivid = pixels.max(-1) - pixels.min(-1)
    height, width = clip.shape[1:3]
    tints, fills, centres = [], [], []
    for frame, strength in zip(pixels, vivid, strict=True):
        weight = np.clip(strength - 35, 0, None)
        mask = weight > 0.45 * max(float(weight.max()), 1)
        if weight.max() < 25 or not 0.01 < mask.mean() < 0.5:
            continue
        ys, xs = np.nonzero(mask)
        box = (ys.max() - ys.min() + 1) * (xs.max() - xs.min() + 1)
        tints.append(frame[mask].mean(0))
        fills.append(mask.sum() / box)
        centres.append((np.average(xs) / width, np.average(ys) / height))
    if len(centres) < max(2, len(clip) // 2):
        return None, None, None
    colour = _nearest_colour(np.mean(tints, axis=0))
    shape = min(FILL, key=lambda s: abs(FILL[s] - float(np.median(fills))))
    return colour, shape, _way(np.asarray(centres))


def _nearest_colour(tint: NDArray[Any]) -> str:
    """By the direction from grey, so that light and pale ones count as well."""

    def direction(rgb: Any) -> NDArray[Any]:
        from_grey = np.asarray(rgb, float) - np.mean(rgb)
        unit: NDArray[Any] = from_grey / max(float(np.linalg.norm(from_grey)), 1e-9)
        return unit

    return max(COLOURS, key=lambda name: float(direction(tint) @ direction(COLOURS[name])))


def _way(centres: NDArray[Any]) -> str | None:
    """Where a path of (frames, 2) points leads: by its fitted slope; None when it hardly moves."""
    slope = np.polyfit(np.arange(len(centres)), centres, 1)[0] * (len(centres) - 1)
    if np.abs(slope).max() < 0.06:
        return None
    return max(WAYS, key=lambda way: float(np.dot(slope, WAYS[way])))


def check_scores(clips: Video, labels: Sequence[str]) -> dict[str, float]:
    """Shares of clips with the colour, the shape (`object`) and the direction (`motion`) of labels as

    `red circle moving left`. Raises: ValueError for another label.
    """
    right = np.zeros(3)
    for clip, label in zip(clips, labels, strict=True):
        words = label.split()
        if len(words) != 4 or words[0] not in COLOURS or words[1] not in FILL or words[3] not in WAYS:
            raise ValueError(f"label {label!r} is none of the demo world, as `red circle moving left`")
        right += [a == b for a, b in zip(seen_in(clip), (words[0], words[1], words[3]), strict=True)]
    colour, shape, way = (float(n) for n in right / len(labels))
    return {"colour": colour, "object": shape, "motion": way}
