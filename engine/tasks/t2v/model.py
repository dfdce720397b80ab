"""The text-to-video models of task `t2v`: presets, checkpoints, LoRA, what is kept of them.

A model is a diffusion transformer of `diffusers`, Latte's or EasyAnimate's, a text encoder and a noise scheduler. A
checkpoint is the folder of a diffusers pipeline (`transformer/`, `vae/`, `text_encoder/`, `tokenizer/`, `scheduler/`);
its transformer is trained, in the latents of its autoencoder. The presets `tiny` and `small` start from seeded weights,
work on pixels and read captions by a frozen bag of words.
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
from engine.settings.study import Study
from engine.tasks.shared.checkpoints import adapter_of, checkpoint_of, is_adapted, with_lora
from engine.tasks.shared.procedure import frozen_dtype, the_device
from engine.tasks.shared.tokens import BOS, EOS, PAD
from engine.tasks.shared.videos import Window
from engine.tasks.shared.weights import EARLIER, Weights

if TYPE_CHECKING:
    import torch

LATTE, EASY = "LatteTransformer3DModel", "EasyAnimateTransformer3DModel"
AUTOENCODERS = {LATTE: "AutoencoderKL", EASY: "AutoencoderKLMagvit"}
TEXT_ENCODERS = {"t5": "T5EncoderModel", "bert": "BertModel", "qwen2_vl": "Qwen2VLForConditionalGeneration"}
LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
FLOW = "FlowMatchEulerDiscreteScheduler"


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
}


@dataclass(frozen=True)
class Parts:
    """What a trial works with.

    transformer: what is trained. scheduler: of the noise in training. words: captions to (captions, length, width) on
    the device. autoencoder: None: pixels. frames: of a clip.
    """

    transformer: Any
    scheduler: Any
    words: Callable[[list[str]], torch.Tensor]
    autoencoder: Any | None
    frames: int


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


def _component(folder: Path, name: str) -> dict[str, Any]:
    """The config of a pipeline's component. Raises: StudyError."""
    file = folder / name / ("scheduler_config.json" if name == "scheduler" else "config.json")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(
            f"model.checkpoint: {file} cannot be read ({error}); give the folder of a diffusers pipeline"
        ) from error
    return found if isinstance(found, dict) else {}


def check_checkpoint(folder: Path, window: Window) -> None:
    """That a pipeline is of a known architecture and takes the preset's window. Raises: StudyError."""
    config = _component(folder, "transformer")
    kind = config.get("_class_name")
    if kind not in AUTOENCODERS:
        raise StudyError(
            f"model.checkpoint: {folder / 'transformer'} is a {kind}; task t2v trains {' and '.join(AUTOENCODERS)}"
        )
    autoencoder = _component(folder, "vae").get("_class_name")
    if autoencoder != AUTOENCODERS[kind]:
        raise StudyError(f"model.checkpoint: {folder / 'vae'} is a {autoencoder}; {kind} needs an {AUTOENCODERS[kind]}")
    _component(folder, "scheduler"), _component(folder, "text_encoder")
    if kind == LATTE and config.get("video_length", 16) != window.frames:
        raise StudyError(
            f"model.checkpoint: {folder} makes {config.get('video_length')} frames, the preset {window.frames}; "
            f"set model.preset to one of as many ({', '.join(f'{n}: {w.frames}' for n, (w, _) in PRESETS.items())})"
        )


def weights_of(folder: Path) -> list[Weights]:
    """Transformer, autoencoder and text encoder of a pipeline. Raises: StudyError."""
    kind = _component(folder, "transformer")["_class_name"]
    told = _component(folder, "text_encoder").get("model_type")
    if told not in TEXT_ENCODERS:
        raise StudyError(
            f"model.checkpoint: {folder / 'text_encoder'} is a {told}; {', '.join(TEXT_ENCODERS)} are read"
        )
    kinds = {"transformer": f"diffusers.{kind}", "vae": f"diffusers.{AUTOENCODERS[kind]}"}
    kinds["text_encoder"] = f"transformers.{TEXT_ENCODERS[told]}"
    unused = {"text_encoder": ("pooler.",)}  # the words' own features are read, not their sum
    return [Weights(f"model.checkpoint/{p}", k, folder / p, unused.get(p, ())) for p, k in kinds.items()]


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
    checkpoint = checkpoint_of(study, prepared.parents[2])
    adapter = adapter_of(init)
    whole = Path(init) / "transformer" if init is not None and not adapter else None
    device = the_device()
    if checkpoint is None:
        parts = _from_preset(study, prepared, whole, device)
    else:
        parts = _from_checkpoint(study, checkpoint, whole, device)
    transformer = parts.transformer
    if study.lora.rank or adapter:
        transformer = with_lora(transformer, study, adapter, study.lora.targets or LORA_TARGETS, "transformer")
    return replace(parts, transformer=transformer.to(device))


def _from_preset(study: Study, prepared: Path, whole: Path | None, device: torch.device) -> Parts:
    """A Latte on pixels that predicts the clip itself: a narrow network cannot pass the noise on, but can draw."""
    import diffusers
    import torch

    from engine.tasks.shared.tokens import load_encoder

    window, network = PRESETS[study.model.preset]
    assert network is not None
    latte: Any = diffusers.LatteTransformer3DModel
    if whole is None:
        transformer = latte(**latte_config(window, network))
    else:
        transformer = Weights(EARLIER, f"diffusers.{LATTE}", whole).load()
    encode = load_encoder(prepared, network.length)
    text = Weights("the preset's words", "transformers.CLIPTextModel", prepared / "text_encoder").load()
    text.eval().requires_grad_(False).to(device)

    def words(captions: list[str]) -> torch.Tensor:
        with torch.no_grad():
            return bag_of_words(text, torch.from_numpy(encode(captions)).long().to(device))

    ddpm: Any = diffusers.DDPMScheduler
    scheduler = ddpm(beta_schedule="squaredcos_cap_v2", prediction_type="sample")
    return Parts(transformer, scheduler, words, None, window.frames)


def _from_checkpoint(study: Study, folder: Path, whole: Path | None, device: torch.device) -> Parts:
    """The components of a diffusers pipeline, each by a class that is known here; nothing of the folder is run."""
    import diffusers
    import torch
    import transformers

    trained, vae, text_encoder = weights_of(folder)
    kind = _component(folder, "transformer")["_class_name"]
    transformer = (Weights(EARLIER, trained.kind, whole) if whole else trained).load()
    transformer.to(frozen_dtype(study) if study.lora.rank else torch.float32)
    autoencoder = vae.load()
    flow = _component(folder, "scheduler").get("_class_name") == FLOW
    scheduler = getattr(diffusers, FLOW if flow else "DDPMScheduler").from_pretrained(folder / "scheduler")
    text = text_encoder.load()
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        str(folder / "tokenizer"), local_files_only=True, trust_remote_code=False
    )
    for part in (text, autoencoder):
        part.eval().requires_grad_(False).to(device, frozen_dtype(study))
    maker = diffusers.LattePipeline if kind == LATTE else diffusers.EasyAnimatePipeline
    pipeline: Any = maker(
        tokenizer=tokenizer, text_encoder=text, vae=autoencoder, transformer=transformer, scheduler=scheduler
    )
    options = {"mask_feature": False} if kind == LATTE else {}

    def words(captions: list[str]) -> torch.Tensor:
        with torch.no_grad():
            found = pipeline.encode_prompt(captions, do_classifier_free_guidance=False, device=device, **options)
            embeddings: torch.Tensor = found[0].float()
            return embeddings

    return Parts(transformer, scheduler, words, autoencoder, PRESETS[study.model.preset][0].frames)


def to_latents(parts: Parts, pixels: torch.Tensor) -> torch.Tensor:
    """(clips, channels, frames, height, width) of (clips, 3, frames, side, side) from -1 to 1.

    EasyAnimate's autoencoder takes 4n + 1 frames: the last one is held for it.
    """
    import torch

    vae = parts.autoencoder
    if vae is None:
        return pixels
    with torch.no_grad():
        if "Magvit" in type(vae).__name__:
            missing = -(pixels.shape[2] - 1) % vae.temporal_compression_ratio
            whole = torch.cat([pixels, pixels[:, :, -1:].expand(-1, -1, missing, -1, -1)], 2)
            latents: Any = vae.encode(whole.to(vae.dtype)).latent_dist.mode()
        else:
            latents = vae.encode(pixels.to(vae.dtype).transpose(1, 2).flatten(0, 1)).latent_dist.mode()
            latents = latents.unflatten(0, (len(pixels), -1)).transpose(1, 2)
    scaled: torch.Tensor = latents.float() * vae.config.scaling_factor
    return scaled


def to_video(parts: Parts, latents: torch.Tensor) -> torch.Tensor:
    """(clips, frames, side, side, 3) uint8 on the host."""
    vae = parts.autoencoder
    pixels: Any = latents
    if vae is not None:
        pixels = (latents / vae.config.scaling_factor).to(vae.dtype)
        if "Magvit" in type(vae).__name__:
            pixels = vae.decode(pixels).sample[:, :, : parts.frames]
        else:
            pixels = vae.decode(pixels.transpose(1, 2).flatten(0, 1)).sample.unflatten(0, (len(latents), -1))
            pixels = pixels.transpose(1, 2)
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
        parts.transformer.save_pretrained(scratch / "transformer")
        parts.scheduler.save_pretrained(scratch / "scheduler")
        if (prepared / "text_encoder").exists():
            shutil.copytree(prepared / "text_encoder", scratch / "text_encoder")
            shutil.copyfile(prepared / "tokenizer.json", scratch / "tokenizer.json")
