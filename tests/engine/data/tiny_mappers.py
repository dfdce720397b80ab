"""Tiny models of the right architecture for the mappers that need one: BLIP, and Stable Diffusion's image to image."""

from __future__ import annotations

from pathlib import Path

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "red", "green", "blue", "thing")


def captioner(folder: Path) -> Path:
    """A random BLIP for captions, as `image_captioning_mapper` loads it."""
    import torch
    from transformers import BertTokenizerFast, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor
    from transformers import BlipProcessor as Processor

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(WORDS), "max_position_embeddings": 160, "projection_dim": 16,
            "encoder_hidden_size": 16, "bos_token_id": 2, "pad_token_id": 0, "eos_token_id": 3,
            "sep_token_id": 3}  # fmt: skip
    config = BlipConfig(text_config=text, vision_config={**small, "image_size": 16, "patch_size": 8})
    model = BlipForConditionalGeneration(config)
    with torch.no_grad():
        model.text_decoder.cls.predictions.bias[:5] = -100.0  # it says words only
    model.save_pretrained(folder)
    tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)})
    Processor(BlipImageProcessor(size={"height": 16, "width": 16}), tokenizer).save_pretrained(folder)
    return folder


def diffuser(folder: Path) -> Path:
    """A random Stable Diffusion, as `image_diffusion_mapper` loads it."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionImg2ImgPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = {t: i for i, t in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, cross_attention_dim=8,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(2, 2, 2, 4), norm_num_groups=2, latent_channels=4, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        bos_token_id=52, eos_token_id=53, pad_token_id=53,
    ))  # fmt: skip
    StableDiffusionImg2ImgPipeline(
        vae=vae, text_encoder=text, tokenizer=CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77),
        unet=unet, scheduler=PNDMScheduler(skip_prk_steps=True), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder
