"""A video model without weights, and the loss of clips whose latents and captions have no content: for its memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.settings.study import Study
from engine.tasks.shared.checkpoints import checkpoint_of, with_lora
from engine.tasks.t2v.families import LTX, CogVideoX, EasyAnimate, Family, Hunyuan, Latte, Text, Wan
from engine.tasks.t2v.model import (
    LORA_TARGETS,
    PRESETS,
    Parts,
    component,
    family_of,
    latte_config,
    training_scheduler,
    weights_of,
    window_of,
)
from engine.tasks.t2v.student import is_distilled
from engine.tasks.t2v.training import noised, predict
from engine.tasks.t2v.unets import MotionUNet, UNet

if TYPE_CHECKING:
    import torch

    from engine.tasks.shared.memory import Shell

TRACED = (Latte, EasyAnimate, CogVideoX, Wan, LTX, Hunyuan, UNet, MotionUNet)
LEVEL = 0.5  # of noise
Shape = tuple[int, ...]


def shell(study: Study, prepared: Path) -> Shell | None:
    """See `Training.shell`; None for a family that is not traced."""
    import torch

    from engine.tasks.shared.memory import without_weights

    checkpoint = checkpoint_of(study, prepared.parents[2])
    window, network = window_of(study), PRESETS[study.model.preset][1]
    if checkpoint is None:
        assert network is not None
        import diffusers

        latte: Any = diffusers.LatteTransformer3DModel
        with torch.device("meta"):
            model = latte(**latte_config(window, network))
        clip: Shape = (3, window.frames, window.side, window.side)
        said: dict[str, Shape] = {"embeds": (1 + network.length, network.text)}
        ddpm: Any = diffusers.DDPMScheduler
        return _shell(model, Family({}, {}, {}), ddpm(prediction_type="sample"), clip, said, study)
    family = family_of(checkpoint)
    if type(family) not in TRACED or is_distilled(study):  # teacher, target and rewards are not traced
        return None
    model = without_weights(weights_of(checkpoint)[0])
    if study.lora.rank:
        with torch.device("meta"):
            model = with_lora(model, study, None, study.lora.targets or LORA_TARGETS, "transformer")
    clip = latents_of(family, window.frames, window.side)
    return _shell(model, family, training_scheduler(checkpoint), clip, words_of(family, checkpoint), study)


def _shell(model: Any, family: Family, scheduler: Any, clip: Shape, said: dict[str, Shape], study: Study) -> Shell:
    """clip: shape of its latents. said: shapes of what is heard of a caption."""
    import torch
    from torch.nn import functional

    from engine.tasks.shared.memory import Shell

    def loss(like: Any, rows: int) -> torch.Tensor:
        parts = Parts(like, scheduler, family, _deaf, None, clip[1])
        clean, noise = (torch.empty(rows, *clip) for _ in range(2))
        words = {name: _made(name, (rows, *shape)) for name, shape in said.items()}
        noisy, steps, target = noised(parts, clean, noise, torch.full((rows,), LEVEL))
        return functional.mse_loss(predict(parts, noisy, steps, words).float(), target)

    return Shell(model, loss, study.train.batch_size, bool(study.lora.rank))


def _deaf(_captions: list[str]) -> Text:
    raise NotImplementedError


def _made(name: str, shape: Shape) -> torch.Tensor:
    import torch

    return torch.ones(shape, dtype=torch.long) if name == "mask" else torch.empty(shape)


def latents_of(family: Family, frames: int, side: int) -> Shape:
    """(channels, frames, height, width) of a clip's latents."""
    every, _, token = family.ratios
    patch = family.net.get("patch_size") or (2 if isinstance(family, Hunyuan) else 1)
    pixels = token // int(patch[-1] if isinstance(patch, list | tuple) else patch)
    length = (family.whole(frames) - 1) // every + 1 if every else frames
    return int(family.vae.get("latent_channels") or family.channels), length, side // pixels, side // pixels


def words_of(family: Family, folder: Path) -> dict[str, Shape]:
    """Shapes of what the transformer hears of a caption, by name. folder: the pipeline's."""
    config = component(folder, "text_encoder")
    config = config.get("text_config") or config
    found: dict[str, Shape] = {"embeds": (family.length, int(config.get("d_model") or config["hidden_size"]))}
    if isinstance(family, LTX | Hunyuan):
        found["mask"] = (family.length,)
    if isinstance(family, Hunyuan):
        found["pooled"] = (int(component(folder, "text_encoder_2")["hidden_size"]),)
    return found
