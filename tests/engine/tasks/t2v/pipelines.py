"""Tiny pipelines with random weights, of each family that task t2v trains, as `diffusers` saves them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789"]
T5 = {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_heads": 2, "num_layers": 1, "vocab_size": 100}
LAYERS = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "vocab_size": 100}
FLOW = {"scheduler": "FlowMatchEulerDiscreteScheduler"}


def tokenizer(folder: Path) -> Any:
    """A WordPiece vocabulary of letters and two of the demo's words."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "vocab.txt"
    said = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS), "red", "circle"]
    file.write_text("\n".join(said))
    made: Any = transformers.BertTokenizer(str(file))
    file.unlink()
    return made


def save(folder: Path, pipeline: str, scheduler: Any, **parts: Any) -> Path:
    """A pipeline of these parts."""
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    for name in [n for n in parts if n.startswith("text_encoder")]:
        parts.setdefault(name.replace("text_encoder", "tokenizer"), tokenizer(folder))
    maker: Any = getattr(diffusers, pipeline)
    maker(scheduler=scheduler, **parts).save_pretrained(folder)
    return folder


def t5(kind: str = "T5") -> Any:
    """A text encoder."""
    config: Any = getattr(transformers, f"{kind}Config")(**T5, is_encoder_decoder=False)
    return getattr(transformers, f"{kind}EncoderModel")(config)


def latte(folder: Path, frames: int = 6) -> Path:
    """Latte: a picture's autoencoder, epsilon."""
    made: Any = diffusers
    return save(
        folder, "LattePipeline", made.DDIMScheduler(clip_sample=False),
        transformer=made.LatteTransformer3DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1,
            cross_attention_dim=16, sample_size=8, patch_size=2, norm_type="ada_norm_single",
            norm_elementwise_affine=False, caption_channels=16, video_length=frames,
        ),
        vae=pictures(), text_encoder=t5(),
    )  # fmt: skip


def easyanimate(folder: Path) -> Path:
    """EasyAnimate V5.1 with a BERT."""
    made: Any = diffusers
    told = tokenizer(folder)
    told.chat_template = "{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}"
    return save(
        folder, "EasyAnimatePipeline", made.FlowMatchEulerDiscreteScheduler(),
        transformer=made.EasyAnimateTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, patch_size=2, sample_width=2,
            sample_height=2, num_layers=1, mmdit_layers=1, time_embed_dim=8, text_embed_dim=16,
        ),
        vae=made.AutoencoderKLMagvit(
            block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=4,
        ),
        text_encoder=transformers.BertModel(transformers.BertConfig(**LAYERS, num_hidden_layers=2)),
        tokenizer=told,
    )  # fmt: skip


def cogvideox(folder: Path, **config: Any) -> Path:
    """CogVideoX: rotary embeddings, v-prediction, a terminal step without signal."""
    made: Any = diffusers
    scheduler = made.CogVideoXDPMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False
    )
    return save(
        folder, "CogVideoXPipeline", scheduler,
        transformer=made.CogVideoXTransformer3DModel(**{
            "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4, "num_layers": 1,
            "time_embed_dim": 8, "text_embed_dim": 16, "sample_width": 2, "sample_height": 2, "sample_frames": 9,
            "max_text_seq_length": 226, "use_rotary_positional_embeddings": True, **config,
        }),
        vae=made.AutoencoderKLCogVideoX(
            block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
            sample_height=16, sample_width=16,
        ),
        text_encoder=t5(),
    )  # fmt: skip


def cogvideox15(folder: Path) -> Path:
    """CogVideoX 1.5: two latents of time in a token."""
    return cogvideox(folder, patch_size_t=2, patch_bias=False)


def wan(folder: Path, scheduler: Any = None, **options: Any) -> Path:
    """Wan 2.1, as released with UniPC."""
    made: Any = diffusers
    unipc = made.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return save(
        folder, "WanPipeline", scheduler or unipc, **options,
        transformer=made.WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
            text_dim=16, freq_dim=16, ffn_dim=16, num_layers=1, rope_max_seq_len=32,
        ),
        vae=made.AutoencoderKLWan(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        text_encoder=t5("UMT5"),
    )  # fmt: skip


def wan22(folder: Path) -> Path:
    """Wan 2.2 TI2V-5B: a time for each token."""
    return wan(folder, expand_timesteps=True)


def ltx(folder: Path) -> Path:
    """LTX: tokens, positions in seconds, sigmas by the size of the clip."""
    made: Any = diffusers
    scheduler = made.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, shift_terminal=0.1
    )
    vae = made.AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5, patch_size=1,
        spatio_temporal_scaling=(True, True, False, False), decoder_spatio_temporal_scaling=(True, True, False, False),
    )  # fmt: skip
    vae.latents_mean.copy_(torch.linspace(-0.5, 0.5, 8))
    vae.latents_std.copy_(torch.linspace(0.5, 2, 8))
    return save(
        folder, "LTXPipeline", scheduler,
        transformer=made.LTXVideoTransformer3DModel(
            in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
            num_layers=1, caption_channels=16,
        ),
        vae=vae, text_encoder=t5(),
    )  # fmt: skip


def hunyuan(folder: Path) -> Path:
    """HunyuanVideo: two text encoders."""
    made: Any = diffusers
    vae = made.AutoencoderKLHunyuanVideo(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=4,
        mid_block_add_attention=False,
    )  # fmt: skip
    return save(
        folder, "HunyuanVideoPipeline", made.FlowMatchEulerDiscreteScheduler(shift=7.0),
        transformer=made.HunyuanVideoTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1,
            num_single_layers=1, num_refiner_layers=1, patch_size=1, text_embed_dim=16, pooled_projection_dim=16,
            rope_axes_dim=(2, 4, 4),
        ),
        vae=vae,
        text_encoder=transformers.LlamaModel(transformers.LlamaConfig(**LAYERS, num_hidden_layers=3)),
        text_encoder_2=transformers.CLIPTextModel(
            transformers.CLIPTextConfig(**LAYERS, num_hidden_layers=1, eos_token_id=3)
        ),
    )  # fmt: skip


def clip_text(kind: str = "CLIPTextModel", **config: Any) -> Any:
    """A CLIP's text encoder, for captions of 16 tokens."""
    made: Any = transformers.CLIPTextConfig(
        **LAYERS, num_hidden_layers=1, eos_token_id=3, max_position_embeddings=16, **config
    )
    return getattr(transformers, kind)(made)


def pictures(**config: Any) -> Any:
    """An autoencoder of pictures."""
    made: Any = diffusers
    return made.AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, layers_per_block=1, **config,
    )  # fmt: skip


def short(folder: Path) -> Any:
    """A tokenizer of 16 tokens."""
    made = tokenizer(folder)
    made.model_max_length = 16
    return made


def modelscope(folder: Path, **config: Any) -> Path:
    """ModelScope's UNet, which is VideoCrafter's too."""
    made: Any = diffusers
    scheduler = made.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    unet = made.UNet3DConditionModel(
        block_out_channels=(8, 8), down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), layers_per_block=1,
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"), norm_num_groups=4, cross_attention_dim=16,
        attention_head_dim=4, sample_size=8, **config,
    )  # fmt: skip
    return save(
        folder, "TextToVideoSDPipeline", scheduler, unet=unet, vae=pictures(), text_encoder=clip_text(),
        tokenizer=short(folder),
    )  # fmt: skip


def animatediff(folder: Path, **config: Any) -> Path:
    """AnimateDiff: motion modules in a UNet of pictures."""
    made: Any = diffusers
    scheduler = made.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="linear", clip_sample=False)
    adapter = made.MotionAdapter(
        block_out_channels=(8, 8), motion_layers_per_block=1, motion_norm_num_groups=4, motion_num_attention_heads=2
    )
    unet = made.UNetMotionModel(
        block_out_channels=(8, 8), down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=16, num_attention_heads=2, motion_num_attention_heads=2, sample_size=8, **config,
    )  # fmt: skip
    return save(
        folder, "AnimateDiffPipeline", scheduler, unet=unet, vae=pictures(), text_encoder=clip_text(),
        tokenizer=short(folder), motion_adapter=adapter,
    )  # fmt: skip


PIPELINES: dict[str, Callable[[Path], Path]] = {
    "latte": latte,
    "easyanimate": easyanimate,
    "cogvideox": cogvideox,
    "cogvideox-1.5": cogvideox15,
    "wan-2.1": wan,
    "wan-2.2": wan22,
    "ltx": ltx,
    "hunyuan": hunyuan,
    "modelscope": modelscope,
    "animatediff": animatediff,
}
