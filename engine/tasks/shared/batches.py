"""Feeds training: row numbers in, pixels and token ids on the device out.

The decoded images are one memory-mapped file that all trials share, so a batch is row numbers only. On a GPU
with room the file is put there once per process; without room, the next batch is gathered while the device
works on this one. Images in packs are always gathered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.tasks.shared.crops import Crop, rows_of
from engine.tasks.shared.packed import Media, ahead, open_media

if TYPE_CHECKING:
    import torch

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
Normal = tuple[tuple[float, ...], tuple[float, ...]]
SHARE = 0.5  # of the GPU's free memory that images and tokens may take
Mode = Literal["host", "ahead", "resident"]
T = TypeVar("T")
_room = {"resident": True}  # until memory has run out
_resident: dict[tuple[Path, str], tuple[torch.Tensor, torch.Tensor]] = {}  # of the last study only


def to_pixels(
    images: NDArray[np.uint8] | torch.Tensor, device: torch.device, normal: Normal = (CLIP_MEAN, CLIP_STD)
) -> torch.Tensor:
    """(…, side, side, 3) bytes as (…, 3, side, side). normal: mean and standard deviation of each colour."""
    import torch

    source = to_device(images, device) if isinstance(images, np.ndarray) else images.to(device, non_blocking=True)
    pixels = source.movedim(-1, -3).float().div_(255)
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in normal)
    return pixels.sub_(mean).div_(std)


def image_mean_std(source: Path) -> Normal:
    """How the model's images are normalised: its preprocessor's, or CLIP's."""
    try:
        told = json.loads((source / "preprocessor_config.json").read_text(encoding="utf-8"))
        return tuple(told["image_mean"]), tuple(told["image_std"])
    except (OSError, ValueError, KeyError, TypeError):
        return CLIP_MEAN, CLIP_STD


def feed(
    prepared: Path,
    device: torch.device,
    batches: Iterator[Any],
    mode: Mode | None = None,
    normal: Normal = (CLIP_MEAN, CLIP_STD),
    crop: Crop | None = None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(pixels (…, 3, side, side), ids (…, length)) of every batch (…) of row numbers; with a crop, of `crops.drawn`.

    mode: `host`: gathered when asked for; `ahead`: a thread gathers the next batch meanwhile; `resident`: all
    images and tokens lie on the device. None: `host` on a CPU; on a GPU `resident` if they fit, else `ahead`.
    normal: see `to_pixels`. crop: the images are whole pictures, of which windows are cut.
    """
    import torch

    images, tokens = _files(prepared)
    mode = mode or _mode(prepared, device, images, tokens.nbytes)
    batches = ahead(images, batches, rows_of)

    def made(chosen: torch.Tensor, batch: Any) -> torch.Tensor:
        return to_pixels(crop.cut(chosen, batch[1], device) if crop else chosen, device, normal)

    if mode == "resident":
        all_images, all_tokens = _on_device(prepared, device)
        for batch in batches:
            at = torch.from_numpy(rows_of(batch)).to(device, non_blocking=True)
            yield made(all_images[at], batch), all_tokens[at].long()
        return
    pin = device.type == "cuda"

    def gather() -> tuple[torch.Tensor, torch.Tensor, Any] | None:
        batch = next(batches, None)
        if batch is None:
            return None
        rows = rows_of(batch)
        chosen, ids = torch.from_numpy(images[rows]), torch.from_numpy(tokens[rows].astype(np.int64))
        return (chosen.pin_memory(), ids.pin_memory(), batch) if pin else (chosen, ids, batch)

    for chosen, ids, batch in _made_ahead(gather) if mode == "ahead" else iter(gather, None):
        yield made(chosen, batch), ids.to(device, non_blocking=True)


def _files(prepared: Path) -> tuple[Media, NDArray[np.int32]]:
    """Images (rows, side, side, 3) and token ids (rows, length)."""
    return open_media(prepared, "train-images"), np.load(prepared / "train-tokens.npy", mmap_mode="c")


def _mode(prepared: Path, device: torch.device, images: Media, more: int) -> Mode:
    """What suits the device; more: bytes besides the images."""
    import torch

    if device.type != "cuda":
        return "host"
    if not isinstance(images, np.ndarray):
        return "ahead"
    size = images.nbytes + more
    if not _room["resident"]:
        return "ahead"
    known = (prepared, str(device)) in _resident
    return "resident" if known or size < SHARE * torch.cuda.mem_get_info(device)[0] else "ahead"


def evict() -> bool:
    """Take images and tokens off the device, for good; False when none are there. Batches stay the same."""
    import torch

    had = bool(_resident)
    _resident.clear()
    _room["resident"] = False
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return had


def _on_device(prepared: Path, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and tokens on the device; they stay there for the trials that follow."""
    import torch

    key = (prepared, str(device))
    if key not in _resident:
        _resident.clear()
        images, tokens = _files(prepared)
        _resident[key] = torch.from_numpy(images[:]).to(device), torch.from_numpy(tokens).to(device)
    return _resident[key]


def to_device(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """The array on the device; nothing waits for the copy."""
    import torch

    return moved(torch.from_numpy(array), device)


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The same of a tensor on the host."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def prefetched(batches: Iterator[T], device: torch.device) -> Iterator[T]:
    """The batches; beside a GPU a thread makes each while the device works on the one before."""
    return _made_ahead(lambda: next(batches, None)) if device.type == "cuda" else batches


def _made_ahead(make: Callable[[], T | None]) -> Iterator[T]:
    """What `make` returns until it returns None, made one ahead in a thread that ends with the iterator."""
    with ThreadPoolExecutor(1, "feed") as pool:
        coming = pool.submit(make)
        while (made := coming.result()) is not None:
            coming = pool.submit(make)
            yield made
