"""The frozen parts of a video pipeline, and what they make of clips and captions: made once, kept for all trials.

What was made lies in packs (`engine/data/packs.py`) beside the media, bounded with them by `cache.max_gb`. The trial
that first draws a clip encodes it, in its own device time. One clip and one caption go through at a time, so that no
trial's numbers hang on which trial it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.base.ids import content_id
from engine.data.packs import Packs, bound_of
from engine.tasks.shared.batches import moved
from engine.tasks.shared.caches import read_meta
from engine.tasks.shared.media import BOUND
from engine.tasks.shared.packed import Media, ahead, open_media
from engine.tasks.shared.procedure import autocast
from engine.tasks.shared.sharded import rank, ranks
from engine.tasks.shared.weights import Weights
from engine.tasks.t2v.families import Family, Text

if TYPE_CHECKING:
    import torch

VERSION = 1  # of what is kept
EVERY = 16  # clips after which it is asked whether to go on
MEAN, STD, LENGTH = "mean", "std", ".length"


class Frozen:
    """Autoencoder and text encoders of a pipeline, each loaded when it is first needed."""

    def __init__(
        self, folder: Path, family: Family, weights: Sequence[Weights], device: torch.device, dtype: torch.dtype
    ) -> None:
        """weights: of the autoencoder, then of the text encoders."""
        self.folder, self.family, self.device, self.dtype = folder, family, device, dtype
        self._weights = weights

    @cached_property
    def vae(self) -> Any:
        """The autoencoder."""
        return self._loaded(self._weights[0])

    @cached_property
    def _read(self) -> Callable[[list[str]], Text]:
        encoders = {w.folder.name: self._loaded(w) for w in self._weights[1:]}
        return self.family.reader(self.folder, encoders, self.device)

    def _loaded(self, weights: Weights) -> Any:
        return cast(weights.load().eval().requires_grad_(False), self.dtype).to(self.device)

    @cached_property
    def _scaling(self) -> list[torch.Tensor]:
        return [t.to(self.device).view(1, -1, 1, 1, 1) for t in self.family.scaling(self.folder / "vae")]

    def release(self) -> None:
        """Let go of what was loaded, so that the training has its memory."""
        import torch

        for name in ("vae", "_read"):
            self.__dict__.pop(name, None)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def words(self, captions: list[str]) -> Text:
        """What the transformer hears of captions."""
        import torch

        with torch.no_grad(), autocast(self.device):
            made = [self._read([caption]) for caption in captions]
        return {name: torch.cat([text[name] for text in made]) for name in made[0]}

    def posterior(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean, std) of what the autoencoder makes of (clips, 3, frames, side, side) from -1 to 1.

        One that takes some numbers of frames only has the last one held for it.
        """
        import torch

        missing = self.family.whole(pixels.shape[2]) - pixels.shape[2]
        whole = torch.cat([pixels, pixels[:, :, -1:].expand(-1, -1, missing, -1, -1)], 2)
        with torch.no_grad(), autocast(self.device):
            found = self.family.encode(self.vae, whole.to(self.vae.dtype))
            return found.mean, found.std

    def latents(self, mean: torch.Tensor, std: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """What is trained on: the mean of the posterior, or with noise a draw, at the family's scale."""
        drawn = mean.float() if noise is None else mean.float() + std.float() * noise
        shift, factor = self._scaling
        return (drawn - shift) * factor

    def video(self, latents: torch.Tensor, frames: int) -> torch.Tensor:
        """(clips, 3, frames, side, side) from -1 to 1, about."""
        shift, factor = self._scaling
        return self.family.decode(self.vae, (latents / factor + shift).to(self.vae.dtype))[:, :, :frames]

    @property
    def keys(self) -> tuple[str, str]:
        """What latents, and what texts hang on beside clips and captions: the files and the kind of device."""
        own = [VERSION, self.family.pipeline, self.device.type, str(self.dtype)]
        parts = [[w.folder for w in self._weights[:1]], [*(w.folder for w in self._weights[1:]), *self._tokenizers]]
        latents, texts = (content_id([*own, [_state(folder) for folder in part]]) for part in parts)
        return latents, texts

    @property
    def _tokenizers(self) -> list[Path]:
        return sorted(self.folder.glob("tokenizer*"))


def cast(model: Any, dtype: torch.dtype) -> Any:
    """The model with its weights in a type; buffers, such as those of positions, stay as they are."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def _state(folder: Path) -> list[Any]:
    """Of a folder of weights: small files as they are, large ones by name, size and time."""
    found: list[Any] = []
    for file in sorted(f for f in folder.iterdir() if f.is_file()):
        status = file.stat()
        small = file.suffix == ".json" and status.st_size < 1 << 16
        found.append([file.name, file.read_text(encoding="utf-8") if small else [status.st_size, status.st_mtime_ns]])
    return found


@lru_cache(maxsize=16)
def _packs(root: Path, name: str, max_gb: float | None) -> Packs:
    """Opened once in a process: an open one holds the pack that it appends to."""
    return Packs(root / name, bound_of(root, max_gb))


class Clips:
    """A prepared set of clips (rows, frames, side, side, 3) and captions."""

    def __init__(self, prepared: Path, name: str) -> None:
        self.prepared, self.name = prepared, name
        self.frames: Media = open_media(prepared, f"{name}-clips")
        self.captions: list[str] = json.loads((prepared / f"{name}-captions.json").read_text(encoding="utf-8"))

    def pixels(self, rows: NDArray[np.int64], device: torch.device) -> torch.Tensor:
        """(rows, 3, frames, side, side) from -1 to 1."""
        import torch

        return torch.from_numpy(self.frames[rows]).to(device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


class Encoded:
    """What a trial reads of a set of clips: latents and texts, of which each is made once.

    Of the presets, which have nothing frozen, it is the pixels and the words as they are.
    """

    def __init__(
        self, clips: Clips, words: Callable[[list[str]], Text], frozen: Frozen | None, device: torch.device,
        keep: bool = True,
    ) -> None:  # fmt: skip
        """words: what is heard of captions. keep: False makes everything anew each time, for comparison."""
        self.clips, self._words, self.frozen, self.device = clips, words, frozen, device
        self._packs = self._opened(frozen) if frozen is not None and keep else None

    def _opened(self, frozen: Frozen) -> tuple[Packs, Packs]:
        root = self.clips.prepared.parent / "packs"
        most = json.loads((root / BOUND).read_text(encoding="utf-8"))["max_gb"]
        sets = read_meta(self.clips.prepared).get("sets", {})
        # caches of an earlier form do not say what they hold in common with others
        clips, texts = sets.get(self.clips.name) or [f"{self.clips.prepared.name}-{self.clips.name}"] * 2
        latents, words = frozen.keys
        return (
            _packs(root, f"latents-{content_id([latents, clips])}", most),
            _packs(root, f"texts-{content_id([words, texts])}", most),
        )

    def __len__(self) -> int:
        return len(self.clips.captions)

    def fill(self, rows: NDArray[np.int64], is_over: Callable[[], bool] = lambda: False) -> bool:
        """Make what is missing of these rows, texts first, so that one model at a time is in memory; then let it go.

        False when it ended as `is_over` said. Where there is no room for more, the rest is made when it is drawn.
        """
        if self.frozen is None or self._packs is None:
            return True
        latents, texts = self._packs
        rows = np.roll(rows, -len(rows) * rank() // ranks())  # ranks begin at different rows, and share what they make
        said = [r for r in [*rows.tolist(), len(self)] if not texts.has(r)]
        seen = np.array([r for r in rows.tolist() if not latents.has(r)], np.int64)
        work: list[Iterable[bool]] = [(self._make_text(r) for r in said), self._make_latents(seen)]
        for part in work:
            for number, kept in enumerate(part):
                if number % EVERY == 0 and is_over():
                    return False
                if not kept:
                    break
            self.frozen.release()
        return True

    def seconds(self) -> float:
        """What a row takes that is to be made, measured, times the share of such rows."""
        if self._packs is None or not len(self):
            return 0.0
        share = float(np.mean([not all(p.has(row) for p in self._packs) for row in range(len(self))]))
        began = 0.0
        if share:
            for _ in range(2):  # the first one loads the models
                began = time.perf_counter()
                self._text(0), self._posterior(0)
                began = time.perf_counter() - began
            assert self.frozen is not None
            self.frozen.release()
        return share * began

    def _make_text(self, row: int) -> bool:
        assert self._packs is not None
        return self._packs[1].has(row) or self._packs[1].put(row, _as_bytes(self._text(row)))

    def _make_latents(self, rows: NDArray[np.int64]) -> Iterable[bool]:
        assert self._packs is not None
        for (row,) in ahead(self.clips.frames, iter(rows[:, None])):  # another trial may make some meanwhile
            yield self._packs[0].has(row) or self._packs[0].put(int(row), _as_bytes(self._posterior(int(row))))

    def _text(self, row: int) -> Text:
        import torch

        found = self._words(["" if row == len(self) else self.clips.captions[row]])
        told = {name: _without_zeros(t[0]).cpu().contiguous() for name, t in found.items()}
        return told | {name + LENGTH: torch.tensor(t.shape[1]) for name, t in found.items()}

    def _posterior(self, row: int) -> dict[str, torch.Tensor]:
        assert self.frozen is not None
        mean, std = self.frozen.posterior(self.clips.pixels(np.array([row]), self.device))
        return {MEAN: mean[0].cpu().contiguous(), STD: std[0].cpu().contiguous()}

    def _item(self, kind: int, row: int, make: Callable[[int], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        from safetensors.torch import load

        if self._packs is None:
            return make(row)
        if (content := self._packs[kind].get(row)) is not None:
            return load(content)
        made = make(row)
        self._packs[kind].put(row, _as_bytes(made))
        return made

    def latents(self, rows: NDArray[np.int64], noise: Callable[[torch.Tensor], torch.Tensor] | None) -> torch.Tensor:
        """(rows, channels, frames, height, width) on the device. noise: of a posterior's shape; None: its mean."""
        import torch

        if self.frozen is None:
            return self.clips.pixels(rows, self.device)
        items = [self._item(0, row, self._posterior) for row in rows.tolist()]
        mean, std = (moved(torch.stack([item[name] for item in items]), self.device) for name in (MEAN, STD))
        return self.frozen.latents(mean, std, None if noise is None else noise(mean))

    def words(self, rows: NDArray[np.int64], dropped: Sequence[bool] | None = None) -> Text:
        """What the transformer hears of the rows' captions. dropped: those that it shall not hear."""
        import torch
        from torch.nn import functional

        left = [False] * len(rows) if dropped is None else dropped
        if self.frozen is None:
            return self._words(["" if d else self.clips.captions[r] for r, d in zip(rows.tolist(), left, strict=True)])
        chosen = [len(self) if d else r for r, d in zip(rows.tolist(), left, strict=True)]
        items = [self._item(1, row, self._text) for row in chosen]

        def whole(tensor: torch.Tensor, length: int) -> torch.Tensor:
            return functional.pad(tensor, (0, 0) * (tensor.dim() - 1) + (0, length - len(tensor)))

        return {
            name: moved(torch.stack([whole(item[name], int(item[name + LENGTH])) for item in items]), self.device)
            for name in items[0]
            if not name.endswith(LENGTH)
        }

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {caption: row for row, caption in enumerate(self.clips.captions)} | {"": len(self)}

    def heard(self, captions: list[str]) -> Text:
        """The same for captions, which may be others than the rows have."""
        if self.frozen is None or not all(caption in self._rows for caption in captions):
            return self._words(captions)
        return self.words(np.array([self._rows[caption] for caption in captions]))


def _without_zeros(tensor: torch.Tensor) -> torch.Tensor:
    """A text's tensor without the zeros at its end."""
    filled = tensor.reshape(len(tensor), -1).any(1).nonzero()
    return tensor[: int(filled[-1]) + 1 if len(filled) else 0]


def _as_bytes(tensors: dict[str, torch.Tensor]) -> bytes:
    from safetensors.torch import save

    return save(tensors)
