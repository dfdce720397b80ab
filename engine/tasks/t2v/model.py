"""The text-to-video models of task `t2v`: presets, checkpoints, LoRA, what is kept of them.

A model is a diffusion transformer of `diffusers`, text encoders and a noise scheduler. A checkpoint is the folder of a
pipeline of one of the families (`families.py`); its transformer is trained, in the latents of its autoencoder. The
presets `tiny` and `small` start from seeded weights, work on pixels and read captions by a frozen bag of words.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.durable import is_whole, written_whole
from engine.base.errors import StudyError
from engine.base.paths import resolve
from engine.settings.study import Study
from engine.tasks.shared.checkpoints import adapter_of, checkpoint_of, is_adapted, load_tokenizer, with_lora
from engine.tasks.shared.procedure import frozen_dtype, the_device
from engine.tasks.shared.resident import frozen_base, let_go
from engine.tasks.shared.tokens import BOS, EOS, PAD
from engine.tasks.shared.videos import Window
from engine.tasks.shared.weights import EARLIER, Weights
from engine.tasks.t2v.families import SCHEDULERS, Family, Text
from engine.tasks.t2v.frozen import Clips, Encoded, Frozen, cast
from engine.tasks.t2v.student import as_student, check_student, is_distilled, lora_layers
from engine.tasks.t2v.unets import FAMILIES, told_scale, width_of

if TYPE_CHECKING:
    import torch

LATTE = "LatteTransformer3DModel"
LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
FILES = {"scheduler": "scheduler_config.json", "": "model_index.json"}
FPS = 25.0  # of clips, as LTX takes it where the study does not say


@dataclass(frozen=True)
class Network:
    """One complexity dial of a Latte on pixels. text: width of a word; length: words of a caption that are read."""

    patch: int
    width: int
    layers: int
    heads: int
    text: int
    length: int
    vocabulary: int


PRESETS: dict[str, tuple[Window, Network | None]] = {
    "tiny": (Window(6, 2, 16), Network(8, 64, 2, 2, 64, 16, 1024)),
    "small": (Window(16, 2, 64), Network(8, 384, 8, 6, 256, 48, 8192)),
    "easyanimate": (Window(16, 2, 256), None),  # the paper's D.5
    "t2v-turbo": (Window(16, 2, 320), None),  # the paper's E.7
    "latte": (Window(16, 3, 512), None),
    "cogvideox": (Window(49, 3, 480), None),
    "wan": (Window(81, 2, 480), None),
    "ltx": (Window(97, 1, 512), None),
}


@dataclass(frozen=True)
class Parts:
    """What a trial works with.

    transformer: what is trained. scheduler: of the noise in training. words: what is heard of captions, on the device.
    frozen: None: pixels. frames: of a clip; fps: of them a second. solver: steps of the solver that a student of
    consistency distillation learns from; None: it is none. knows: its teacher is told the scale of guidance as well.
    """

    transformer: Any
    scheduler: Any
    family: Family
    words: Callable[[list[str]], Text]
    frozen: Frozen | None
    frames: int
    fps: float = FPS
    solver: int | None = None
    knows: bool = False

    @property
    def device(self) -> torch.device:
        """Of the transformer."""
        found: torch.device = next(self.transformer.parameters()).device
        return found

    def told(self, text: Text, guidance: float) -> Text:
        """What is heard, with the scale of guidance where the model is a student that is told it."""
        import torch

        if self.solver is None:
            return text
        w = torch.full((len(text["embeds"]),), guidance - 1, device=self.device)
        return told_scale(text, w, width_of(self.transformer))

    def encoded(self, clips: Clips, keep: bool = True) -> Encoded:
        """What the model reads of clips. keep: see Encoded."""
        return Encoded(clips, self.words, self.frozen, self.device, keep)


def window_of(study: Study) -> Window:
    """How clips are cut: as the preset has it, or `video.frames`, `video.stride`, `video.side`."""
    preset, video = PRESETS[study.model.preset][0], study.video
    return Window(video.frames or preset.frames, video.stride or preset.stride, video.side or preset.side)


def latte_config(window: Window, network: Network) -> dict[str, Any]:
    """The keyword arguments of a LatteTransformer3DModel on pixels."""
    return {
        "num_attention_heads": network.heads,
        "attention_head_dim": network.width // network.heads,
        "in_channels": 3,
        "out_channels": 3,
        "num_layers": network.layers,
        "cross_attention_dim": network.width,
        "attention_bias": True,
        "sample_size": window.side,
        "patch_size": network.patch,
        "activation_fn": "gelu-approximate",
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "caption_channels": network.text,
        "video_length": window.frames,
    }


def component(folder: Path, name: str) -> dict[str, Any]:
    """The config of a pipeline's component. Raises: StudyError."""
    file = folder / name / FILES.get(name, "config.json")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(
            f"model.checkpoint: {file} cannot be read ({error}); give the folder of a diffusers pipeline"
        ) from error
    return found if isinstance(found, dict) else {}


def family_of(folder: Path) -> Family:
    """The family of a pipeline. Raises: StudyError when it is none that is trained."""
    part = "unet" if (folder / "unet").is_dir() else "transformer"
    config = component(folder, part)
    index = component(folder, "") if (folder / "model_index.json").exists() else {}
    kind = config.get("_class_name")
    if kind not in FAMILIES or FAMILIES[kind].part != part:
        raise StudyError(f"model.checkpoint: {folder / part} is a {kind}; task t2v trains {', '.join(FAMILIES)}")
    vae = component(folder, "vae")
    family = FAMILIES[kind](vae, config, index)
    if index.get("_class_name", family.pipeline) != family.pipeline:
        raise StudyError(
            f"model.checkpoint: {folder} is a {index['_class_name']}; with a {kind} task t2v trains a {family.pipeline}"
        )
    if (autoencoder := vae.get("_class_name")) != family.autoencoder:
        raise StudyError(f"model.checkpoint: {folder / 'vae'} is a {autoencoder}; {kind} needs an {family.autoencoder}")
    return family


def check_checkpoint(folder: Path, window: Window) -> None:
    """That a pipeline is of a family that is trained and takes clips of the window. Raises: StudyError."""
    family = family_of(folder)
    weights_of(folder), training_scheduler(folder)
    _check_tokenizers(folder, family)
    try:
        side, channels = family.ratios[2], family.channels
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(
            f"model.checkpoint: a config.json of {folder} lacks {error}; copy the folder of the pipeline again"
        ) from error
    index, taken = family.index, family.net.get("in_channels", channels)
    if isinstance(index.get("transformer_2"), list) and index["transformer_2"][-1]:
        raise StudyError(
            f"model.checkpoint: {folder} has two transformers (Wan 2.2 A14B); task t2v trains pipelines of one: "
            "Wan 2.1, or Wan 2.2 TI2V-5B"
        )
    if family.most and window.frames > family.most:
        raise StudyError(
            f"model.checkpoint: {folder} knows places of {family.most} frames, the study has {window.frames}; set "
            f"video.frames to {family.most} or fewer"
        )
    if taken != channels:
        raise StudyError(
            f"model.checkpoint: its transformer takes {taken} channels, its autoencoder gives {channels}; give the "
            "text-to-video pipeline, not one that goes on from an image"
        )
    if window.side % side:
        raise StudyError(
            f"model.checkpoint: clips of {window.side} px do not divide into the {side} px of {folder}; set video.side "
            f"to a multiple of {side}"
        )
    if family.transformer == LATTE and family.net.get("video_length", 16) != window.frames:
        frames = family.net.get("video_length", 16)
        raise StudyError(
            f"model.checkpoint: {folder} makes {frames} frames, the study {window.frames}; set video.frames: {frames}"
        )


def weights_of(folder: Path) -> list[Weights]:
    """Transformer, autoencoder and text encoders of a pipeline. Raises: StudyError."""
    family = family_of(folder)
    kinds = {family.part: f"diffusers.{family.transformer}", "vae": f"diffusers.{family.autoencoder}"}
    for part, readable in family.encoders.items():
        told = str(component(folder, part).get("model_type"))
        if told not in readable:
            raise StudyError(
                f"model.checkpoint: {folder / part} is a {told}; a {family.pipeline} reads {', '.join(readable)}"
            )
        kinds[part] = f"transformers.{readable[told]}"
    unused = dict.fromkeys(family.encoders, ("pooler.",))  # the words' own features are read, not their sum
    return [Weights(f"model.checkpoint/{p}", k, folder / p, unused.get(p, ())) for p, k in kinds.items()]


def _check_tokenizers(folder: Path, family: Family) -> None:
    """That each text encoder knows all tokens of its tokenizer. Raises: StudyError."""
    for part in family.encoders:
        config = component(folder, part)
        known = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
        tokens = len(load_tokenizer(folder / part.replace("text_encoder", "tokenizer")))
        if known and tokens > known:
            raise StudyError(
                f"model.checkpoint: the tokenizer of {folder} has {tokens} tokens and its {part} {known}; they do not "
                "belong together"
            )


def training_scheduler(folder: Path) -> Any:
    """The scheduler of the noise in training, by the config of the pipeline's own. Raises: StudyError."""
    import diffusers

    config = component(folder, "scheduler")
    kind = config.get("_class_name")
    if kind not in SCHEDULERS or (kind.startswith("UniPC") and config.get("prediction_type") != "flow_prediction"):
        raise StudyError(
            f"model.checkpoint: {folder / 'scheduler'} is a {kind}, whose noise is not known; use one of "
            f"{', '.join(SCHEDULERS)} (UniPC with flow_prediction)"
        )
    maker: Any = getattr(diffusers, SCHEDULERS[kind])
    if kind.startswith("UniPC"):
        return maker(config.get("num_train_timesteps", 1000), shift=config.get("flow_shift") or 1.0)
    return maker.from_pretrained(folder / "scheduler")


def make_text(target: Path, network: Network, seed: int) -> None:
    """Write the frozen word features of a preset as a CLIPTextModel without layers, unless they are there."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel

    if is_whole(target):
        return
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=network.vocabulary, hidden_size=network.text, intermediate_size=network.text, num_hidden_layers=0,
        num_attention_heads=1, max_position_embeddings=network.length, pad_token_id=PAD, bos_token_id=BOS,
        eos_token_id=EOS,
    )  # fmt: skip
    with written_whole(target) as scratch:
        CLIPTextModel(config).save_pretrained(scratch)


def bag_of_words(encoder: Any, ids: torch.Tensor) -> torch.Tensor:
    """(captions, 1 + length, width): first what the words say together, then each of them; special tokens are zero.

    The first lets a small transformer hear a caption before its attention has learned where to look.
    """
    import torch

    each = encoder(ids).last_hidden_state
    said = (ids > EOS)[..., None].to(each.dtype)
    together = (each * said).sum(1, keepdim=True) / said.sum(1, keepdim=True).clamp(min=1).sqrt()
    return torch.cat([together, each * said], 1)


def build_model(study: Study, prepared: Path, seed: int, init: str | None) -> Parts:
    """The model on this worker's device; with `lora.rank`, a peft model around the transformer.

    init: folder of an earlier trial's checkpoint, whole or LoRA. seed: of new weights.
    """
    import torch

    torch.manual_seed(seed)
    folder, distil = prepared.parents[2], is_distilled(study)
    checkpoint = checkpoint_of(study, folder)
    if distil and init is None and study.distill.start:
        init = str(resolve(folder, study.distill.start))
    adapter = adapter_of(init)
    device = the_device()
    part = "transformer" if checkpoint is None else family_of(checkpoint).part
    whole = Path(init) / part if init is not None and not adapter else None
    if checkpoint is None:
        parts = _from_preset(study, prepared, whole, device)
    else:
        parts = _from_checkpoint(study, checkpoint, whole, device, bool(study.lora.rank or adapter))
    transformer = parts.transformer
    knows, beside = distil and width_of(transformer) > 0, as_student(transformer) if distil else ()
    if study.lora.rank or adapter:
        targets = study.lora.targets or (lora_layers(transformer) if distil else LORA_TARGETS)
        transformer = with_lora(transformer, study, adapter, targets, "transformer", beside)
    if distil:
        check_student(transformer, study, init)
        knows = knows or (adapter is not None and study.distill.teacher == "start")
        parts = replace(parts, solver=study.distill.solver_steps, knows=knows)
    return replace(parts, transformer=transformer.to(device))


def _from_preset(study: Study, prepared: Path, whole: Path | None, device: torch.device) -> Parts:
    """A Latte on pixels that predicts the clip itself: a narrow network cannot pass the noise on, but can draw."""
    import diffusers
    import torch

    from engine.tasks.shared.tokens import load_encoder

    window, (_, network) = window_of(study), PRESETS[study.model.preset]
    assert network is not None
    latte: Any = diffusers.LatteTransformer3DModel
    if whole is None:
        transformer = latte(**latte_config(window, network))
    else:
        transformer = Weights(EARLIER, f"diffusers.{LATTE}", whole).load()
    encode = load_encoder(prepared, network.length)
    text = Weights("the preset's words", "transformers.CLIPTextModel", prepared / "text_encoder").load()
    text.eval().requires_grad_(False).to(device)

    def words(captions: list[str]) -> Text:
        with torch.no_grad():
            return {"embeds": bag_of_words(text, torch.from_numpy(encode(captions)).long().to(device))}

    ddpm: Any = diffusers.DDPMScheduler
    scheduler = ddpm(beta_schedule="squaredcos_cap_v2", prediction_type="sample")
    return Parts(transformer, scheduler, Family({}, {}, {}), words, None, window.frames)


def _from_checkpoint(study: Study, folder: Path, whole: Path | None, device: torch.device, adapted: bool) -> Parts:
    """The components of a diffusers pipeline, each by a class that is known here; nothing of the folder is run.

    adapted: the transformer gets adapters.
    """
    import torch

    trained, *others = weights_of(folder)
    weights = Weights(EARLIER, trained.kind, whole) if whole else trained
    if adapted:
        transformer = frozen_base(weights, study)
    else:
        let_go()
        transformer = cast(weights.load(), torch.float32)
    for module in transformer.modules():  # a trial hangs on seed and step alone
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    family = family_of(folder)
    frozen = Frozen(folder, family, others, device, frozen_dtype(study))
    scheduler, fps = training_scheduler(folder), study.video.fps or FPS
    return Parts(transformer, scheduler, family, frozen.words, frozen, window_of(study).frames, fps)


def to_video(parts: Parts, latents: torch.Tensor) -> torch.Tensor:
    """(clips, frames, side, side, 3) uint8 on the host."""
    pixels = latents if parts.frozen is None else parts.frozen.video(latents, parts.frames)
    shown: torch.Tensor = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1)
    return shown.cpu()


def save_model(parts: Parts, _study: Study, prepared: Path, folder: Path) -> None:
    """`transformer/` and `scheduler/` (with a preset its text encoder and tokenizer), or peft's adapter files.

    Complete or absent.
    """
    with written_whole(folder) as scratch:
        if is_adapted(parts.transformer):
            parts.transformer.save_pretrained(scratch)
            return
        parts.transformer.save_pretrained(scratch / parts.family.part)
        parts.scheduler.save_pretrained(scratch / "scheduler")
        if (prepared / "text_encoder").exists():
            shutil.copytree(prepared / "text_encoder", scratch / "text_encoder")
            shutil.copyfile(prepared / "tokenizer.json", scratch / "tokenizer.json")
