"""Rewards of made clips for their captions, by frozen models of two modalities; their gradients reach the pixels."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import StudyError
from engine.base.paths import resolve
from engine.settings.study import Study
from engine.tasks.shared.batches import image_mean_std
from engine.tasks.shared.checkpoints import load_tokenizer, read_config
from engine.tasks.shared.weights import Weights

if TYPE_CHECKING:
    import torch

KINDS = {"image": {"clip": "CLIPModel"}, "video": {"xclip": "XCLIPModel", "clip": "CLIPModel"}}


class Reward:
    """A model that says how well clips fit their captions: the cosine of both, from -1 to 1.

    A CLIP sees each frame by itself, and a clip as the mean of its frames' features.
    """

    def __init__(self, weights: Weights, device: torch.device, dtype: torch.dtype) -> None:
        self._model = weights.load().eval().requires_grad_(False).to(device, dtype)
        self._tokenizer = load_tokenizer(weights.folder)
        self._whole = weights.kind.endswith("XCLIPModel")
        self._mean, self._std = image_mean_std(weights.folder)

    def __call__(self, frames: torch.Tensor, captions: list[str], each: bool = False) -> torch.Tensor:
        """(clips,) of (clips, frames, 3, side, side) from 0 to 1. each: the mean of the frames' own rewards."""
        import torch
        from torch.nn.functional import normalize

        seen, told = self._pixels(frames), self._ids(captions, frames.device)
        if self._whole:
            pairs = [self._pair(seen[i : i + 1], {k: v[i : i + 1] for k, v in told.items()}) for i in range(len(seen))]
            return torch.cat(pairs)
        with torch.no_grad():
            said = self._model.text_projection(self._model.text_model(**told).pooler_output)
        shown = self._model.vision_model(pixel_values=seen.flatten(0, 1)).pooler_output
        features = torch.unflatten(normalize(self._model.visual_projection(shown).float(), dim=-1), 0, seen.shape[:2])
        if not each:
            features = normalize(features.mean(1, keepdim=True), dim=-1)
        found: torch.Tensor = (features * normalize(said.float(), dim=-1)[:, None]).sum(-1).mean(1)
        return found

    def _pair(self, clip: torch.Tensor, told: dict[str, torch.Tensor]) -> torch.Tensor:
        """X-CLIP's caption hangs on the clip that it is held against."""
        scaled = self._model(pixel_values=clip, **told).logits_per_video[:, 0].float()
        found: torch.Tensor = scaled / self._model.logit_scale.exp().float()
        return found

    def _pixels(self, frames: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn.functional import interpolate

        side, like = self._model.config.vision_config.image_size, self._model.dtype
        flat = frames.flatten(0, 1).float()
        fits = interpolate(flat, size=(side, side), mode="bicubic", antialias=True, align_corners=False)
        mean, std = (torch.tensor(v, device=flat.device).view(3, 1, 1) for v in (self._mean, self._std))
        return torch.unflatten(((fits - mean) / std).to(like), 0, frames.shape[:2])

    def _ids(self, captions: list[str], device: torch.device) -> dict[str, torch.Tensor]:
        length = self._model.config.text_config.max_position_embeddings
        told = self._tokenizer(
            captions, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )  # fmt: skip
        return {name: told[name].to(device) for name in ("input_ids", "attention_mask")}


def reward_weights(study: Study, folder: Path) -> dict[str, Weights]:
    """By `image` and `video`, those that the study names. folder: the study's. Raises: StudyError."""
    found = {}
    for name, kinds in KINDS.items():
        path, field = getattr(study.distill, f"{name}_model"), f"distill.{name}_model"
        if path is None:
            continue
        source = resolve(folder, path)
        config = read_config(source, field, tuple(kinds))
        _check_frames(study, config, name, field)
        found[name] = Weights(field, f"transformers.{kinds[config['model_type']]}", source)
    return found


def _check_frames(study: Study, config: dict[str, Any], name: str, field: str) -> None:
    read = (config.get("vision_config") or {}).get("num_frames", 8) if config["model_type"] == "xclip" else None
    if name == "video" and read is not None and read != study.distill.video_frames:
        raise StudyError(f"{field} reads {read} frames of a clip; set distill.video_frames to {read}")


def load_rewards(study: Study, folder: Path, device: torch.device, dtype: torch.dtype) -> dict[str, Reward]:
    """Those that the study names, each loaded once in a worker as long as its files stay as they are."""
    return {name: _loaded(w, w.key, device, dtype) for name, w in reward_weights(study, folder).items()}


@lru_cache(maxsize=2)
def _loaded(weights: Weights, _key: str, device: torch.device, dtype: torch.dtype) -> Reward:
    return Reward(weights, device, dtype)
