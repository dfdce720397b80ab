"""The CLIP model of task `clip`: presets, features, the contrastive loss and the training loop."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.study import Study, resolve
from engine.tasks import Job, Report
from engine.tasks.feed import feed
from engine.tasks.state import pause, resume
from engine.tasks.text import BOS, EOS, PAD

if TYPE_CHECKING:
    import torch

MAX_LOGIT_SCALE = math.log(100)  # as in CLIP, Section 2.5
POINTS = 40  # about so many points has a curve


@dataclass(frozen=True)
class Preset:
    """One complexity dial. width, layers, heads: of the vision tower; text_*: of the text tower."""

    image: int
    patch: int
    width: int
    layers: int
    heads: int
    text_width: int
    text_layers: int
    text_heads: int
    length: int
    vocabulary: int
    projection: int


PRESETS = {
    "tiny": Preset(32, 8, 64, 2, 2, 64, 1, 2, 16, 1024, 64),
    "small": Preset(64, 8, 192, 6, 3, 192, 4, 3, 32, 8192, 192),
    "vit-b-32": Preset(224, 32, 768, 12, 12, 512, 12, 8, 77, 49408, 512),
}


def clip_config(preset: Preset) -> dict[str, Any]:
    """The keyword arguments of a CLIPConfig."""
    return {
        "projection_dim": preset.projection,
        "text_config": {
            "vocab_size": preset.vocabulary,
            "hidden_size": preset.text_width,
            "intermediate_size": 4 * preset.text_width,
            "num_hidden_layers": preset.text_layers,
            "num_attention_heads": preset.text_heads,
            "max_position_embeddings": preset.length,
            "projection_dim": preset.projection,
            "pad_token_id": PAD,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
        },
        "vision_config": {
            "hidden_size": preset.width,
            "intermediate_size": 4 * preset.width,
            "num_hidden_layers": preset.layers,
            "num_attention_heads": preset.heads,
            "image_size": preset.image,
            "patch_size": preset.patch,
            "projection_dim": preset.projection,
        },
    }


def build_model(study: Study, prepared: Path, seed: int, init: str | None) -> Any:
    """The model on this worker's device: from a checkpoint, or from the preset with seeded weights."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    source = init or (str(resolve(prepared.parents[2], study.model.checkpoint)) if study.model.checkpoint else None)
    if source:
        model = CLIPModel.from_pretrained(source, local_files_only=True, use_safetensors=True)
    else:
        model = CLIPModel(CLIPConfig(**clip_config(PRESETS[study.model.preset])))
    device: Any = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device)


def save(model: Any, prepared: Path, folder: Path) -> None:
    """A transformers checkpoint (safetensors) with its tokenizer, complete or absent."""
    scratch = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(scratch, safe_serialization=True)
    if (prepared / "tokenizer.json").exists():
        (scratch / "tokenizer.json").write_bytes((prepared / "tokenizer.json").read_bytes())
    scratch.replace(folder)


def _unit(features: torch.Tensor) -> torch.Tensor:
    """Rows of length one, in float32: what autocast does to one model, it does not to stacked ones."""
    from torch.nn import functional

    return functional.normalize(features.float(), dim=-1)


def image_features(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """(images, projection) unit vectors."""
    features: torch.Tensor = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
    return _unit(features)


def text_features(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """(texts, projection) unit vectors."""
    features: torch.Tensor = model.text_projection(model.text_model(input_ids=ids).pooler_output)
    return _unit(features)


def contrastive_loss(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The symmetric cross-entropy of CLIP over a batch of (batch, projection) unit vectors."""
    import torch
    from torch.nn import functional

    logits = (scale.exp() * images @ texts.T).float()
    target = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def extent(study: Study, rows: int, samples: int) -> tuple[int, int]:
    """(rows of a batch, steps) of a training on so many rows for so many samples."""
    batch = min(study.train.batch_size, rows)
    return batch, max(1, samples // batch)


def batches(rows: NDArray[np.int64], samples: int, batch: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Row numbers, batch by batch: seeded permutations of `rows`, one after the other, until `samples`."""
    order = np.random.default_rng(seed)
    queue = np.array([], np.int64)
    for _ in range(max(1, samples // batch)):
        while len(queue) < batch:
            queue = np.concatenate([queue, order.permutation(rows)])
        yield np.sort(queue[:batch])
        queue = queue[batch:]


def train(
    model: Any,
    device: torch.device,
    study: Study,
    prepared: Path,
    rows: NDArray[np.int64],
    job: Job,
    report: Report,
) -> bool:
    """AdamW with linear warm-up, cosine decay, clipped gradients; bf16 autocast on GPU.

    True, or False when the trial was dropped.
    """
    import torch

    train = study.train
    batch, steps = extent(study, len(rows), job.samples)
    report.total = steps
    every = max(1, steps // POINTS)
    _, whole = extent(study, len(rows), job.horizon or job.samples)
    optimizer = torch.optim.AdamW(model.parameters(), **adamw(study))
    model.train()
    running: list[float] = []
    parameters = dict(model.named_parameters())
    done = resume([job.resume], parameters, optimizer) if job.resume else 0
    source = islice(batches(rows, job.samples, batch, job.seed), done, None)
    for step, (pixels, ids) in enumerate(feed(prepared, device, source), done + 1):
        rate = train.learning_rate * schedule(step, whole, train.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        loss = _backward(model, pixels, ids, job.micro_batch or train.micro_batch or batch)
        torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip_norm)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        running.append(loss)
        if step % every == 0 or step == steps:
            report.curve(job.trial, step, loss=sum(running) / len(running), learning_rate=rate)
            running.clear()
            if job.trial in report.dropped():
                return False
    if job.pause:
        pause(job.pause, steps, parameters, optimizer)
    return True


def adamw(study: Study) -> dict[str, Any]:
    """The keyword arguments of AdamW: CLIP's betas and eps."""
    train = study.train
    return {"lr": train.learning_rate, "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": train.weight_decay}


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at a step (1 … steps)."""
    warm = max(1, round(steps * warmup))
    if step <= warm:
        return step / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _backward(model: Any, pixels: torch.Tensor, ids: torch.Tensor, micro: int) -> float:
    """Gradients of one batch's loss.

    micro: rows that go through the towers at once. Below the batch size the features are made
    twice: first without gradients, for the loss over the whole batch, then piece by piece with the
    loss's gradient at them (gradient caching, Gao et al. 2021). The result is the same.
    """
    import torch

    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=pixels.device.type == "cuda"):
        if micro >= len(pixels):
            loss = contrastive_loss(image_features(model, pixels), text_features(model, ids), model.logit_scale)
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())
        parts = list(zip(_split(pixels, micro), _split(ids, micro), strict=True))
        with torch.no_grad():
            made = [(image_features(model, p), text_features(model, i)) for p, i in parts]
        images = torch.cat([m[0] for m in made]).requires_grad_()
        texts = torch.cat([m[1] for m in made]).requires_grad_()
        loss = contrastive_loss(images, texts, model.logit_scale)
        loss.backward()  # type: ignore[no-untyped-call]
        assert images.grad is not None and texts.grad is not None
        for (p, i), image_grad, text_grad in zip(
            parts, _split(images.grad, micro), _split(texts.grad, micro), strict=True
        ):
            torch.autograd.backward([image_features(model, p), text_features(model, i)], [image_grad, text_grad])
        return float(loss.detach())


def _split(rows: torch.Tensor, size: int) -> tuple[torch.Tensor, ...]:
    """Pieces of at most `size` rows."""
    import torch

    return torch.split(rows, size)
