"""Random resized crops, as open_clip and DataComp augment their images (torchvision's RandomResizedCrop).

A cache holds whole pictures, squashed to squares. A batch's windows are drawn by the trial's seed and cut out on the
device, each resampled once to the model's side; the same trial has the same windows, alone, in a pack or resumed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.tasks.shared.images import Resize, Squares, by_filter, by_vectors

if TYPE_CHECKING:
    import torch
    from PIL import Image

RATIO = (3 / 4, 4 / 3)  # width by height of a window
TRIES = 10  # windows that are drawn, of which the first that lies in the picture is taken
ASPECT = 4  # bytes
PART = 256  # pictures that are resampled at once
Drawn = tuple[NDArray[np.int64], NDArray[np.float64]]  # (…) rows of a batch, (…, 2 · TRIES + 2) uniform numbers


@dataclass(frozen=True)
class Wholes(Squares):
    """Whole pictures as (side, side, 3), with one more line whose first bytes are width by height of the picture.

    least: share of a picture that a window has at least. A picture too long for any window is cut to a ratio of
    `RATIO`, as the windows then are, and what stands in its line is negative.
    """

    least: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one, with its last line."""
        return self.side + 1, self.side, 3

    def fit(self, image: Image.Image) -> NDArray[np.uint8]:
        """See Squares."""
        return self._whole(image, by_filter)

    def near(self, image: Image.Image) -> NDArray[np.uint8]:
        """See Squares."""
        return self._whole(image, by_vectors)

    def _whole(self, image: Image.Image, resize: Resize) -> NDArray[np.uint8]:
        aspect = image.width / image.height
        if not RATIO[0] * self.least <= aspect <= RATIO[1] / self.least:
            width = image.width if aspect < 1 else max(1, round(image.height * RATIO[1]))
            height = image.height if aspect > 1 else max(1, round(image.width / RATIO[0]))
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
            aspect = -width / height
        return _lined(resize(image, self.side, self.side), np.float32(aspect).tobytes())

    def to_jpeg(self, pixels: NDArray[np.uint8]) -> bytes:
        """See Squares; the last line stands before it, as it may have no errors."""
        aspect: bytes = pixels[-1].tobytes()[:ASPECT]
        return aspect + super().to_jpeg(pixels[:-1])

    def of_jpeg(self, content: bytes) -> NDArray[np.uint8]:
        """See Squares."""
        return _lined(super().of_jpeg(content[ASPECT:]), content[:ASPECT])


def _lined(pixels: NDArray[np.uint8], aspect: bytes) -> NDArray[np.uint8]:
    made = np.zeros((len(pixels) + 1, *pixels.shape[1:]), np.uint8)
    made[:-1] = pixels
    made[-1].reshape(-1)[:ASPECT] = np.frombuffer(aspect, np.uint8)
    return made


@dataclass(frozen=True)
class Crop:
    """side: of the model's images. scale: share of a picture that a window has, at least and at most."""

    side: int
    scale: tuple[float, float]

    @property
    def medium(self) -> Wholes:
        """What a cache holds, so large that no window has fewer pixels than the model's side."""
        return Wholes(math.ceil(self.side / self.scale[0]), self.scale[0])

    def windows(self, aspects: NDArray[np.float32], uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        """(…, 4): left, top, width and height of each picture's window, as shares of the picture.

        aspects: (…) as they stand in the last lines. uniform: (…, 2 · TRIES + 2) numbers of 0 … 1.
        """
        shapes, places = uniform[..., :-2].reshape(*uniform.shape[:-1], TRIES, 2), uniform[..., -2:]
        area = self.scale[0] + (self.scale[1] - self.scale[0]) * shapes[..., 0]
        low, high = np.log(RATIO)
        ratio = np.exp(low + (high - low) * shapes[..., 1]) / np.abs(aspects, dtype=np.float64)[..., None]
        sizes = np.sqrt(np.stack([area * ratio, area / ratio], -1))  # (…, TRIES, 2)
        fits = (sizes <= 1).all(-1)
        first = np.take_along_axis(sizes, fits.argmax(-1)[..., None, None], -2)[..., 0, :]
        found = np.where(fits.any(-1, keepdims=True), first, _centred(aspects, *RATIO))
        found = np.where(aspects[..., None] < 0, 1.0, found)
        start = np.where(fits.any(-1, keepdims=True) & (aspects[..., None] > 0), places, 0.5) * (1 - found)
        return np.concatenate([start, found], -1)

    def cut(self, pictures: torch.Tensor, uniform: NDArray[np.float64] | None, device: torch.device) -> torch.Tensor:
        """(…, side, side, 3) in 0 … 255 of pictures (…, side + 1, side, 3). uniform: None for the centre."""
        import torch

        lines = pictures[..., -1, :, :].flatten(-2)[..., :ASPECT].contiguous().cpu().numpy()
        aspects = lines.view(np.float32)[..., 0]
        if uniform is None:
            size = _centred(aspects, 1, 1)
            windows = np.concatenate([(1 - size) / 2, size], -1)
        else:
            windows = self.windows(aspects, uniform)
        places = torch.from_numpy(windows).to(device, torch.float32).flatten(0, -2)
        wholes = pictures[..., :-1, :, :].flatten(0, -4)
        made = [
            self._resampled(*part) for part in zip(torch.split(wholes, PART), torch.split(places, PART), strict=True)
        ]
        found = torch.cat(made)
        return found.reshape(*pictures.shape[:-3], *found.shape[1:])

    def _resampled(self, pictures: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """(n, side, side, 3) of pictures (n, …, …, 3) and windows (n, 4)."""
        whole = pictures.to(places.device, non_blocking=True).float().movedim(-1, -3)
        across, down = (self._weights(places[:, at], places[:, at + 2], whole.shape[-1]) for at in (0, 1))
        made = down[:, None] @ whole @ across[:, None].mT
        return made.clamp_(0, 255).movedim(-3, -1)

    def _weights(self, start: torch.Tensor, size: torch.Tensor, pixels: int) -> torch.Tensor:
        """(…, side, pixels): how much of each pixel along an axis is in each of the model's, bicubic as Pillow's."""
        import torch

        step = (size * pixels / self.side)[..., None, None]
        left, right = (start * pixels)[..., None, None], ((start + size) * pixels)[..., None, None]
        targets = left + (torch.arange(self.side, device=start.device)[:, None] + 0.5) * step
        sources = torch.arange(pixels, device=start.device) + 0.5
        away = ((sources - targets) / step.clamp(min=1)).abs()
        near, far = (1.5 * away - 2.5) * away**2 + 1, ((-0.5 * away + 2.5) * away - 4) * away + 2
        weights = torch.where(away < 1, near, torch.where(away < 2, far, 0.0))
        weights = torch.where((sources > left - 0.5) & (sources < right + 0.5), weights, 0.0)
        return weights / weights.sum(-1, keepdim=True)


def _centred(aspects: NDArray[np.float32], low: float, high: float) -> NDArray[np.float64]:
    """(…, 2): width and height, as shares, of the largest part of each picture with a ratio of low … high."""
    aspect = np.abs(aspects, dtype=np.float64)
    ratio = np.clip(aspect, low, high)
    return np.stack([np.minimum(1, ratio / aspect), np.minimum(1, aspect / ratio)], -1)


def drawn(order: Iterator[NDArray[np.int64]], seed: int, crop: Crop | None) -> Iterator[Any]:
    """The batches with the numbers that their windows are drawn by; as they are without crops."""
    if crop is None:
        yield from order
        return
    draws = np.random.default_rng((seed, TRIES))
    for rows in order:
        yield rows, draws.random((len(rows), 2 * TRIES + 2))


def stacked(batches: tuple[Any, ...]) -> Any:
    """One batch of each member of a pack, as one with a member axis."""
    if isinstance(batches[0], tuple):
        return tuple(np.stack(parts) for parts in zip(*batches, strict=True))
    return np.stack(batches)


def rows_of(batch: Any) -> NDArray[np.int64]:
    """The row numbers of a batch, with or without draws."""
    rows: NDArray[np.int64] = batch[0] if isinstance(batch, tuple) else batch
    return rows


def crop_of(side: int, scale: tuple[float, float] | None) -> Crop | None:
    """That of `train.crop`."""
    return Crop(side, scale) if scale else None
