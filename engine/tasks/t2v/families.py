"""The families of video pipelines that task `t2v` trains: what is each one's own beside its classes.

A pipeline is a folder as `diffusers` writes it: `transformer/` or `unet/`, `vae/`, `text_encoder/`, `tokenizer/`,
`scheduler/` (`text_encoder_2/` where it has two) and `model_index.json`. Only classes that are named here are loaded.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from engine.tasks.shared.checkpoints import load_tokenizer

if TYPE_CHECKING:
    import torch

Config = Mapping[str, Any]
Text = dict[str, "torch.Tensor"]  # what a transformer hears of captions; the first dimension is theirs
T5 = {"t5": "T5EncoderModel"}
FLOW, DDPM, COG = "FlowMatchEulerDiscreteScheduler", "DDPMScheduler", "CogVideoXDDIMScheduler"
# a pipeline's scheduler → the one of its noise in training
SCHEDULERS = {
    FLOW: FLOW,
    "UniPCMultistepScheduler": FLOW,  # of Wan: the same sigmas, other steps
    "CogVideoXDDIMScheduler": COG,
    "CogVideoXDPMScheduler": COG,
} | dict.fromkeys(
    (
        "DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler", "DEISMultistepScheduler",
    ),
    DDPM,
)  # fmt: skip


class Family:
    """One family; itself it is that of the presets, a Latte on pixels.

    part: the component that is trained, of class `transformer`. encoders: component → class of `transformers` by
    model_type. length: tokens of a caption.
    """

    part: ClassVar[str] = "transformer"
    pipeline: ClassVar[str] = ""
    transformer: ClassVar[str] = "LatteTransformer3DModel"
    autoencoder: ClassVar[str] = ""
    encoders: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    length: int = 0
    timed: ClassVar[bool] = False  # it is told the frames a second
    even: ClassVar[bool] = False  # its clips are made at sigmas that are spread evenly

    def __init__(self, vae: Config, transformer: Config, index: Config) -> None:
        """Config files of autoencoder and transformer; index: model_index.json."""
        self.vae, self.net, self.index = vae, transformer, index

    @property
    def ratios(self) -> tuple[int, int, int]:
        """(frames of a latent after the first one, or 0; latents of a token in time; pixels of a token's side)."""
        return 0, 1, 2 ** (len(self.vae["block_out_channels"]) - 1) * int(self.net.get("patch_size") or 1)

    @property
    def channels(self) -> int:
        """Of a latent."""
        return int(self.vae["latent_channels"])

    @property
    def most(self) -> int | None:
        """Frames that its layers know places for; None: as many as there are."""
        return None

    def whole(self, frames: int) -> int:
        """Frames that autoencoder and transformer take together, at least so many."""
        every, together, _ = self.ratios
        if not every:
            return frames
        latents = -(-(frames - 1) // every) + 1
        return (-(-latents // together) * together - 1) * every + 1

    def encode(self, vae: Any, pixels: torch.Tensor) -> Any:
        """The posterior of (clips, 3, frames, side, side) from -1 to 1: `mean` and `std`."""
        return vae.encode(pixels).latent_dist

    def decode(self, vae: Any, latents: torch.Tensor) -> torch.Tensor:
        """The pixels of latents as the autoencoder gives them."""
        found: torch.Tensor = vae.decode(latents).sample
        return found

    def scaling(self, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
        """(shift, factor) by channel: what is trained is (latents - shift) · factor. folder: the autoencoder's."""
        import torch

        return torch.zeros(1), torch.tensor([float(self.vae["scaling_factor"])])

    def reader(self, folder: Path, encoders: Mapping[str, Any], device: torch.device) -> Callable[[list[str]], Text]:
        """What reads captions. folder: the pipeline's."""
        import diffusers

        tokenizers = {n.replace("text_encoder", "tokenizer"): n for n in encoders}
        parts = {name: load_tokenizer(folder / name) for name in tokenizers}
        maker: Any = getattr(diffusers, self.pipeline)
        pipeline: Any = maker(vae=None, transformer=None, scheduler=None, **parts, **encoders)
        return partial(self.read, pipeline, device)

    def read(self, pipeline: Any, device: torch.device, captions: list[str]) -> Text:
        """What the transformer hears of captions."""
        found = pipeline.encode_prompt(
            captions, do_classifier_free_guidance=False, device=device, max_sequence_length=self.length
        )
        return {"embeds": found[0]}

    def predict(
        self, transformer: Any, noisy: torch.Tensor, steps: torch.Tensor, text: Text, fps: float
    ) -> torch.Tensor:
        """What the transformer predicts of noisy latents; a learned variance, if it has one, is left out."""
        out: torch.Tensor = transformer(noisy, timestep=steps, encoder_hidden_states=text["embeds"]).sample
        return out[:, : noisy.shape[1]]

    def shift(self, scheduler: Config, latents: tuple[int, ...]) -> float:
        """`mu` of a scheduler whose sigmas hang on the size of the latents (channels, frames, height, width)."""
        get: Any = scheduler.get
        least, most = get("base_image_seq_len", 256), get("max_image_seq_len", 4096)
        low, high = get("base_shift", 0.5), get("max_shift", 1.15)
        return float(low + (high - low) * (prod(latents[1:]) - least) / (most - least))


class Latte(Family):
    """Frames are pictures to its autoencoder; it makes as many as it was trained for."""

    pipeline, autoencoder, length = "LattePipeline", "AutoencoderKL", 120
    encoders: ClassVar[Mapping[str, Mapping[str, str]]] = {"text_encoder": T5}

    def encode(self, vae: Any, pixels: torch.Tensor) -> Any:
        """See Family."""
        import torch
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        found = vae.encode(pixels.transpose(1, 2).flatten(0, 1)).latent_dist.parameters
        return DiagonalGaussianDistribution(torch.unflatten(found, 0, (len(pixels), -1)).transpose(1, 2))

    def decode(self, vae: Any, latents: torch.Tensor) -> torch.Tensor:
        """See Family."""
        found = vae.decode(latents.transpose(1, 2).flatten(0, 1)).sample
        pixels: torch.Tensor = found.unflatten(0, (len(latents), -1)).transpose(1, 2)
        return pixels

    def read(self, pipeline: Any, device: torch.device, captions: list[str]) -> Text:
        """See Family."""
        found = pipeline.encode_prompt(captions, do_classifier_free_guidance=False, device=device, mask_feature=False)
        return {"embeds": found[0]}


class EasyAnimate(Family):
    """V5.1: captions by a Qwen2-VL in its chat template, or a BERT."""

    pipeline, transformer, autoencoder, length = (
        "EasyAnimatePipeline", "EasyAnimateTransformer3DModel", "AutoencoderKLMagvit", 256,
    )  # fmt: skip
    encoders: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "text_encoder": {"qwen2_vl": "Qwen2VLForConditionalGeneration", "bert": "BertModel"}
    }

    @property
    def ratios(self) -> tuple[int, int, int]:
        """See Family."""
        return 2 ** (len(self.vae["block_out_channels"]) - 2), 1, super().ratios[2]

    def shift(self, _scheduler: Config, _latents: tuple[int, ...]) -> float:
        """See Family."""
        return 1.0


class CogVideoX(Family):
    """Latents with the frames first; rotary embeddings by the size of the clip, where it has them."""

    pipeline, transformer, autoencoder = "CogVideoXPipeline", "CogVideoXTransformer3DModel", "AutoencoderKLCogVideoX"
    encoders: ClassVar[Mapping[str, Mapping[str, str]]] = {"text_encoder": T5}

    def __init__(self, vae: Config, transformer: Config, index: Config) -> None:
        """See Family. Its positions count the words with the latents, so their number is the transformer's."""
        super().__init__(vae, transformer, index)
        self.length = int(transformer.get("max_text_seq_length") or 226)

    @property
    def ratios(self) -> tuple[int, int, int]:
        """See Family."""
        every = int(self.vae.get("temporal_compression_ratio") or 4)
        return every, int(self.net.get("patch_size_t") or 1), super().ratios[2]

    def predict(
        self, transformer: Any, noisy: torch.Tensor, steps: torch.Tensor, text: Text, fps: float
    ) -> torch.Tensor:
        """See Family."""
        found = transformer(
            noisy.transpose(1, 2), timestep=steps, encoder_hidden_states=text["embeds"],
            image_rotary_emb=_rotary(transformer, tuple(noisy.shape[2:]), noisy.device),
        ).sample  # fmt: skip
        out: torch.Tensor = found.transpose(1, 2)
        return out


def _rotary(transformer: Any, size: tuple[int, ...], device: torch.device) -> Any:
    """CogVideoX's rotary embeddings of latents (frames, height, width), as its pipeline has them; None: it has none."""
    if not transformer.config.use_rotary_positional_embeddings:
        return None
    from diffusers import CogVideoXPipeline

    maker: Any = CogVideoXPipeline
    pipeline = maker(tokenizer=None, text_encoder=None, vae=None, transformer=transformer, scheduler=None)
    frames, height, width = size
    side = pipeline.vae_scale_factor_spatial
    return pipeline._prepare_rotary_positional_embeddings(height * side, width * side, frames, device)


class Wan(Family):
    """2.1, and those of 2.2 with one transformer, which take a time for each token (`expand_timesteps`)."""

    pipeline, transformer, autoencoder, length = "WanPipeline", "WanTransformer3DModel", "AutoencoderKLWan", 512
    encoders: ClassVar[Mapping[str, Mapping[str, str]]] = {"text_encoder": {"umt5": "UMT5EncoderModel"}}

    @property
    def ratios(self) -> tuple[int, int, int]:
        """See Family."""
        time, _, side = self.net.get("patch_size") or (1, 2, 2)
        every, pixels = (
            int(self.vae.get(f"scale_factor_{n}") or least) for n, least in (("temporal", 4), ("spatial", 8))
        )
        return every, int(time), pixels * int(side)

    @property
    def channels(self) -> int:
        """See Family."""
        return int(self.vae["z_dim"])

    def scaling(self, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
        """See Family."""
        import torch

        return torch.tensor(self.vae["latents_mean"]).float(), 1 / torch.tensor(self.vae["latents_std"]).float()

    def reader(self, folder: Path, encoders: Mapping[str, Any], device: torch.device) -> Callable[[list[str]], Text]:
        """See Family."""
        tokenizer, encoder = load_tokenizer(folder / "tokenizer"), encoders["text_encoder"]

        def read(captions: list[str]) -> Text:
            said = [re.sub(r"\s+", " ", html.unescape(html.unescape(c)).strip()).strip() for c in captions]
            ids = tokenizer(said, padding="max_length", max_length=self.length, truncation=True, return_tensors="pt")
            mask = ids["attention_mask"].to(device)
            found = encoder(ids["input_ids"].to(device), mask).last_hidden_state
            return {"embeds": found * mask[..., None].to(found.dtype)}

        return read

    def predict(
        self, transformer: Any, noisy: torch.Tensor, steps: torch.Tensor, text: Text, fps: float
    ) -> torch.Tensor:
        """See Family."""
        if self.index.get("expand_timesteps"):
            tokens = prod(n // p for n, p in zip(noisy.shape[2:], transformer.config.patch_size, strict=True))
            steps = steps[:, None].expand(-1, tokens)
        return super().predict(transformer, noisy, steps, text, fps)


class LTX(Family):
    """Latents as tokens; positions in seconds, by the frames a second."""

    pipeline, transformer, autoencoder, length = (
        "LTXPipeline", "LTXVideoTransformer3DModel", "AutoencoderKLLTXVideo", 128,
    )  # fmt: skip
    encoders: ClassVar[Mapping[str, Mapping[str, str]]] = {"text_encoder": T5}

    timed = even = True

    @property
    def sizes(self) -> tuple[int, int]:
        """Frames and pixels of a latent."""
        doubled = sum(self.vae.get("spatio_temporal_scaling") or (True, True, True, False))
        patch, time = int(self.vae.get("patch_size") or 4), int(self.vae.get("patch_size_t") or 1)
        every = int(self.vae.get("temporal_compression_ratio") or time * 2**doubled)
        return every, int(self.vae.get("spatial_compression_ratio") or patch * 2**doubled)

    @property
    def ratios(self) -> tuple[int, int, int]:
        """See Family."""
        every, side = self.sizes
        return every, int(self.net.get("patch_size_t") or 1), side * int(self.net.get("patch_size") or 1)

    @property
    def channels(self) -> int:
        """See Family; of a token of the transformer."""
        return super().channels * int(self.net.get("patch_size") or 1) ** 2 * int(self.net.get("patch_size_t") or 1)

    def decode(self, vae: Any, latents: torch.Tensor) -> torch.Tensor:
        """See Family."""
        timed = vae.config.timestep_conditioning
        found: torch.Tensor = vae.decode(latents, latents.new_zeros(len(latents)) if timed else None).sample
        return found

    def scaling(self, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
        """See Family."""
        from safetensors import safe_open

        found: dict[str, torch.Tensor] = {}
        for file in folder.glob("*.safetensors"):
            with safe_open(file, "pt") as opened:
                names = set(opened.keys()) & {"latents_mean", "latents_std"}
                found |= {name: opened.get_tensor(name).float() for name in names}
        return found["latents_mean"], float(self.vae.get("scaling_factor") or 1) / found["latents_std"]

    def read(self, pipeline: Any, device: torch.device, captions: list[str]) -> Text:
        """See Family."""
        embeds, mask, *_ = pipeline.encode_prompt(
            captions, do_classifier_free_guidance=False, device=device, max_sequence_length=self.length
        )
        return {"embeds": embeds, "mask": mask}

    def predict(
        self, transformer: Any, noisy: torch.Tensor, steps: torch.Tensor, text: Text, fps: float
    ) -> torch.Tensor:
        """See Family."""
        from diffusers import LTXPipeline

        every, pixels = self.sizes
        side, time = transformer.config.patch_size, transformer.config.patch_size_t
        frames, height, width = (n // p for n, p in zip(noisy.shape[2:], (time, side, side), strict=True))
        found = transformer(
            LTXPipeline._pack_latents(noisy, side, time), timestep=steps, encoder_hidden_states=text["embeds"],
            encoder_attention_mask=text["mask"], num_frames=frames, height=height, width=width,
            rope_interpolation_scale=(every / fps, pixels, pixels),
        ).sample  # fmt: skip
        out: torch.Tensor = LTXPipeline._unpack_latents(found, frames, height, width, side, time)
        return out


class Hunyuan(Family):
    """Captions by a Llama in the pipeline's template, and by a CLIP; guided by `video.guidance` alone."""

    pipeline, transformer, autoencoder, length = (
        "HunyuanVideoPipeline",
        "HunyuanVideoTransformer3DModel",
        "AutoencoderKLHunyuanVideo",
        256,
    )
    encoders: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "text_encoder": {"llama": "LlamaModel"},
        "text_encoder_2": {"clip_text_model": "CLIPTextModel"},
    }
    even = True

    @property
    def ratios(self) -> tuple[int, int, int]:
        """See Family."""
        every, side = self.vae.get("temporal_compression_ratio") or 4, self.vae.get("spatial_compression_ratio") or 8
        return int(every), int(self.net.get("patch_size_t") or 1), int(side) * int(self.net.get("patch_size") or 2)

    def read(self, pipeline: Any, device: torch.device, captions: list[str]) -> Text:
        """See Family."""
        embeds, pooled, mask = pipeline.encode_prompt(captions, device=device, max_sequence_length=self.length)
        return {"embeds": embeds, "mask": mask, "pooled": pooled}

    def predict(
        self, transformer: Any, noisy: torch.Tensor, steps: torch.Tensor, text: Text, fps: float
    ) -> torch.Tensor:
        """See Family."""
        guidance = steps.new_full((len(noisy),), 1000.0) if transformer.config.guidance_embeds else None
        out: torch.Tensor = transformer(
            noisy,
            timestep=steps,
            encoder_hidden_states=text["embeds"],
            encoder_attention_mask=text["mask"],
            pooled_projections=text["pooled"],
            guidance=guidance,
        ).sample
        return out


TRANSFORMERS: tuple[type[Family], ...] = (Latte, EasyAnimate, CogVideoX, Wan, LTX, Hunyuan)
