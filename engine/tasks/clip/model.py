"""The model of task `clip`: presets, features, the losses of CLIP and SigLIP, and the training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.settings.study import Study
from engine.tasks.clip.checkpoint import KINDS, source_of
from engine.tasks.contract import Job, Report
from engine.tasks.shared.batches import CLIP_MEAN, CLIP_STD, Normal, feed
from engine.tasks.shared.caches import read_meta
from engine.tasks.shared.checkpoints import adapter_of, with_lora
from engine.tasks.shared.crops import Crop, crop_of, drawn, rows_of
from engine.tasks.shared.procedure import autocast, the_device
from engine.tasks.shared.resident import frozen_base, let_go
from engine.tasks.shared.sharded import call, gathered, is_first, pieces, ranks, share
from engine.tasks.shared.tokens import BOS, EOS, PAD
from engine.tasks.shared.towers import Preset
from engine.tasks.shared.training import batches, course, fit, micro_batch
from engine.tasks.shared.weights import EARLIER, Weights

if TYPE_CHECKING:
    import torch

    from engine.tasks.shared.memory import Shell

# layers that LoRA adapts; not the attention by which a SigLIP pools, whose layers are read past their adapters
LINEAR = r".*encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"
MAX_LOGIT_SCALE = math.log(100)  # as in CLIP, Section 2.5


PRESETS = {
    "tiny": Preset(32, 8, 64, 2, 2, 64, 1, 2, 16, 1024, 64),
    "small": Preset(64, 8, 192, 6, 3, 192, 4, 3, 32, 8192, 192),
    # those of open_clip by the same names, with the quick GELU of OpenAI's
    "vit-b-32": Preset(224, 32, 768, 12, 12, 512, 12, 8, 77, 49408, 512),
    "vit-b-16": Preset(224, 16, 768, 12, 12, 512, 12, 8, 77, 49408, 512),
    "vit-l-14": Preset(224, 14, 1024, 24, 16, 768, 12, 12, 77, 49408, 768),
}


def clip_config(preset: Preset) -> dict[str, Any]:
    """The keyword arguments of a CLIPConfig."""
    size = {"projection_dim": preset.projection}
    ids = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    return {
        **size,
        "text_config": {**size, **preset.text, **ids, "max_position_embeddings": preset.length},
        "vision_config": {**size, **preset.vision},
    }


def build_model(study: Study, prepared: Path, seed: int, init: str | None) -> Any:
    """The model on this worker's device: from a checkpoint, or from the preset with seeded weights."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    folder = prepared.parents[2]
    source, adapter = source_of(study, folder), adapter_of(init)
    earlier = Weights(EARLIER, KINDS[source.family if source else "clip"], Path(init)) if init and not adapter else None
    weights = earlier or (source.weights(folder) if source else None)
    device: Any = the_device()
    if adapter or study.lora.rank:
        assert weights is not None  # a preset takes no adapters
        base = frozen_base(weights, study)
        return with_lora(base, study, adapter, study.lora.targets or LINEAR, "towers").to(device)
    let_go()
    model = weights.load() if weights else CLIPModel(CLIPConfig(**clip_config(PRESETS[study.model.preset])))
    return model.to(device)


def shell(study: Study, prepared: Path) -> Shell | None:
    """The model without weights, and the loss of pairs; None for a checkpoint of open_clip, or with adapters."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    from engine.tasks.shared.memory import Shell, without_weights

    source, meta = source_of(study, prepared.parents[2]), read_meta(prepared)
    if study.lora.rank or (source and source.family not in ("clip", "siglip")):
        return None
    if source:
        model: Any = without_weights(source.weights(prepared.parents[2]))
    else:
        with torch.device("meta"):
            model = CLIPModel(CLIPConfig(**clip_config(PRESETS[study.model.preset])))

    def loss(like: Any, rows: int) -> torch.Tensor:
        pixels = torch.empty(rows, 3, meta["side"], meta["side"])
        ids = torch.zeros(rows, meta["length"], dtype=torch.long)
        return loss_of(like, image_features(like, pixels), text_features(like, ids))

    return Shell(model, loss, study.train.batch_size)


def normal_of(prepared: Path) -> Normal:
    """Mean and standard deviation of each colour, as the caches' meta.json has them; CLIP's where it has none."""
    mean, std = read_meta(prepared).get("normal", (CLIP_MEAN, CLIP_STD))
    return tuple(mean), tuple(std)


def crop_in(study: Study, prepared: Path) -> Crop | None:
    """The crops that a study trains on. prepared: its caches, which say the model's side."""
    return crop_of(int(read_meta(prepared)["side"]), study.train.crop)


def _unit(features: torch.Tensor) -> torch.Tensor:
    """Rows of length one, in float32: what autocast does to one model, it does not to stacked ones."""
    from torch.nn import functional

    return functional.normalize(features.float(), dim=-1)


def is_sigmoid(model: Any) -> bool:
    """True for a SigLIP: it has a bias of its own, and its towers end in their projections."""
    return hasattr(model, "logit_bias")


def image_features(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """(images, projection) unit vectors."""
    features: torch.Tensor = model.vision_model(pixel_values=pixels).pooler_output
    return _unit(features if is_sigmoid(model) else model.visual_projection(features))


def text_features(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """(texts, projection) unit vectors."""
    features: torch.Tensor = model.text_model(input_ids=ids).pooler_output
    return _unit(features if is_sigmoid(model) else model.text_projection(features))


def contrastive_loss(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The symmetric cross-entropy of CLIP over a batch of (batch, projection) unit vectors."""
    import torch
    from torch.nn import functional

    logits = (scale.exp() * images @ texts.T).float()
    target = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def sigmoid_loss(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """SigLIP's loss (Zhai et al. 2023, Eq. 1): each pair of the batch is judged by itself, right or wrong."""
    import torch
    from torch.nn import functional

    logits = (scale.exp() * images @ texts.T + bias).float()
    right = 2 * torch.eye(len(logits), device=logits.device) - 1
    return -functional.logsigmoid(right * logits).sum() / len(logits)


def loss_of(model: Any, images: torch.Tensor, texts: torch.Tensor, learns: bool = True) -> torch.Tensor:
    """The model's own loss over a batch of unit vectors. learns: whether its scale and bias have gradients of it."""
    own = [model.logit_scale, model.logit_bias] if is_sigmoid(model) else [model.logit_scale]
    own = own if learns else [value.detach() for value in own]
    return sigmoid_loss(images, texts, *own) if is_sigmoid(model) else contrastive_loss(images, texts, *own)


def train(model: Any, study: Study, prepared: Path, rows: NDArray[np.int64], job: Job, report: Report) -> bool:
    """Train on those rows; bf16 autocast on GPU. True, or False when the trial was dropped."""
    import torch

    way, crop = course(study, len(rows), job), crop_in(study, prepared)
    micro = micro_batch(study, job, way.batch)

    def clamp() -> None:
        if not is_sigmoid(model):
            with torch.no_grad():
                model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)

    return fit(
        model, study, job, report, way,
        order=drawn(batches(rows, job.samples, way.batch, job.seed), job.seed, crop),
        inputs=lambda order: feed(prepared, model.device, map(_own, order), normal=normal_of(prepared), crop=crop),
        backward=lambda made: _backward(model, *made, micro, way.batch), after=clamp,
    )  # fmt: skip


def _own(batch: Any) -> Any:
    """This rank's share of a batch of `crops.drawn`."""
    at = share(len(rows_of(batch)))
    return tuple(part[at] for part in batch) if isinstance(batch, tuple) else batch[at]


def _backward(model: Any, pixels: torch.Tensor, ids: torch.Tensor, micro: int, batch: int) -> torch.Tensor:
    """Gradients of the loss of a batch of so many rows, which is returned on the device.

    pixels, ids: of all its rows, or of several ranks each one's share. micro: rows that go through
    the towers at once. Below the batch size the features are made twice: first without gradients,
    for the loss over the whole batch, then piece by piece with the loss's gradient at them
    (gradient caching, Gao et al. 2021). The result is the same. Several ranks do so too, and give
    each other their features.
    """
    import torch

    if micro >= batch and ranks() == 1:
        with autocast(pixels.device):
            loss = loss_of(model, image_features(model, pixels), text_features(model, ids))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()
    parts, first = list(pieces(batch, micro)), share(batch).start

    def features_of(at: slice) -> tuple[torch.Tensor, torch.Tensor]:
        own = slice(at.start - first, at.stop - first)
        return _features(model, pixels[own], ids[own])

    with torch.set_grad_enabled(len(parts) == 1):
        made = [features_of(at) for at in parts]
    images, texts = (gathered(torch.cat(some), batch).detach().requires_grad_() for some in zip(*made, strict=True))
    with autocast(pixels.device):
        loss = loss_of(model, images, texts, is_first())
    loss.backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None and texts.grad is not None
    for at in parts:
        features = made[0] if len(parts) == 1 else features_of(at)
        torch.autograd.backward(features, (images.grad[at], texts.grad[at]))
    return loss.detach() / ranks()


def _features(model: Any, pixels: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of images and texts."""
    with autocast(pixels.device):
        found: tuple[torch.Tensor, torch.Tensor] = call(
            model, lambda own: (image_features(own, pixels), text_features(own, ids))
        )
    return found
