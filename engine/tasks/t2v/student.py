"""What a student of consistency distillation is made of, and which studies can have one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from engine.base.errors import StudyError
from engine.base.paths import resolve
from engine.settings.model import DistillSection
from engine.settings.study import Study
from engine.tasks.shared.checkpoints import adapter_of
from engine.tasks.t2v.families import DDPM, SCHEDULERS, Family
from engine.tasks.t2v.unets import width_of

WIDTH = 256  # of the embedding of the scale of guidance that a new student gets


def is_distilled(study: Study) -> bool:
    """True where the study trains students."""
    return study.video.objective == "distillation"


def as_student(unet: Any) -> tuple[str, ...]:
    """Let a UNet be told the scale of guidance, unless it is; the layer that hears it. It begins without effect."""
    import torch

    if not width_of(unet):
        first = unet.time_embedding.linear_1
        layer = torch.nn.Linear(WIDTH, first.in_features, bias=False, dtype=first.weight.dtype)
        torch.nn.init.zeros_(layer.weight)
        unet.time_embedding.cond_proj = layer
        unet.register_to_config(time_cond_proj_dim=WIDTH)
    return ("cond_proj",)


def lora_layers(unet: Any) -> list[str]:
    """All that T2V-Turbo adapts: linear layers and convolutions, but those that diffusers calls as peft cannot be."""
    from torch import nn

    kinds = (nn.Linear, nn.Conv2d, nn.Conv3d)
    left = re.compile(r"cond_proj$|motion_modules\.\d+\.proj_(in|out)$")
    return [name for name, m in unet.named_modules() if isinstance(m, kinds) and not left.search(name)]


def check_student(transformer: Any, study: Study, init: str | None) -> None:
    """That a trial can begin from a checkpoint. Raises: StudyError."""
    trained = [name for name, p in transformer.named_parameters() if p.requires_grad]
    if not any("cond_proj" in name for name in trained):
        raise StudyError(
            f"{init} is no student of consistency distillation; begin from the checkpoint of one, or leave "
            "distill.start out"
        )
    if init is not None and study.distill.teacher == "base" and not any(".lora_B." in name for name in trained):
        raise StudyError(
            f"distill.teacher base: {init} holds no low-rank weights, which could be left out for the teacher; set "
            "distill.teacher to start, or lora.rank"
        )


def lacking(study: Study, frames: int) -> str | None:
    """Why students cannot be trained as the study says, in one line, or None. frames: of a clip."""
    way, train = study.distill, study.train
    if not is_distilled(study):
        return None if way == DistillSection() else "distill is read with video.objective: distillation; set that"
    if study.model.checkpoint is None:
        return "video.objective distillation needs model.checkpoint, the folder of a pipeline with a UNet: the teacher"
    if study.devices_per_trial > 1:
        return "a distillation goes on one device, as its three sets of weights do; set devices_per_trial to 1"
    if train.compile == "on":
        return "a distillation takes other weights for the same model, which compiled blocks do not; set train.compile"
    if not (way.consistency_weight or way.real_weight or way.image_weight or way.video_weight):
        return "every weight of distill is 0, so nothing is learned; set distill.consistency_weight"
    for name in ("image", "video"):
        if getattr(way, f"{name}_weight") and getattr(way, f"{name}_model") is None:
            return (
                f"distill.{name}_weight needs distill.{name}_model, the folder of a model that rewards; or set it to 0"
            )
        if (asked := getattr(way, f"{name}_frames")) > frames and getattr(way, f"{name}_model"):
            return f"distill.{name}_frames {asked} is more than a clip's {frames}; set it to {frames} or fewer"
    if study.video.steps > way.solver_steps:
        return f"video.steps {study.video.steps} is more than distill.solver_steps; a student makes clips in 4 to 8"
    return None


def check_base(study: Study, folder: Path, family: Family, scheduler: dict[str, Any]) -> None:
    """That a pipeline can be distilled, and what a student begins from is one. folder: the study's. Raises: StudyError.

    scheduler: its config.
    """
    way, noises = study.distill, scheduler.get("num_train_timesteps", 1000)
    if family.part != "unet":
        raise StudyError(
            f"model.checkpoint: a {family.transformer} is told no scale of guidance; distillation needs a UNet "
            "(UNet3DConditionModel, UNetMotionModel)"
        )
    if SCHEDULERS[str(scheduler.get("_class_name"))] != DDPM:
        raise StudyError(f"model.checkpoint: DDIM cannot solve the noise of a {scheduler['_class_name']}")
    if way.solver_steps > noises:
        raise StudyError(f"distill.solver_steps {way.solver_steps} is more than the {noises} times of the pipeline")
    if way.start:
        start = resolve(folder, way.start)
        if adapter_of(str(start)) is None and not (start / family.part / "config.json").is_file():
            raise StudyError(
                f"distill.start: {start} has neither adapter_config.json nor {family.part}/; give the checkpoint that "
                "a trial of a distillation kept"
            )
