"""Tiny checkpoints of every family that task `clip` reads, and the modules of open_clip that two of them are of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

WORDS = ("photo", "small", "picture", "bright", "dark", "nice", "shiny", "corner", "red", "green", "blue")
SIDE, LENGTH, ROWS = 32, 16, 320
SIZE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def tokenizer(folder: Path, siglip: bool = False, last: bool = False) -> int:
    """Write a tokenizer; the id that ends a text. Of SigLIP texts have no beginning. last: it is the largest of all."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    from engine.tasks.shared.tokens import BOS, byte_level_bpe

    def texts() -> Iterator[str]:
        yield from WORDS * 20

    made = byte_level_bpe(texts(), ROWS - 1)
    end = "<end>" if last else "<eos>"
    made.add_special_tokens([end])
    place: int = made.token_to_id(end)
    single = f"$A {end}" if siglip else f"<bos> $A {end}"
    made.post_processor = TemplateProcessing(single=single, special_tokens=[("<bos>", BOS), (end, place)])
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<bos>", eos_token=end, unk_token="<unk>"
    ).save_pretrained(folder)
    return place


def clip(folder: Path, **processor: Any) -> Path:
    """A CLIPModel with tokenizer and, where given, an image processor."""
    from transformers import CLIPConfig, CLIPModel

    end = tokenizer(folder)
    text = {**SIZE, "vocab_size": ROWS, "max_position_embeddings": LENGTH, "eos_token_id": end, "bos_token_id": 1}
    config = CLIPConfig(
        projection_dim=32, text_config={**text, "projection_dim": 32},
        vision_config={**SIZE, "image_size": SIDE, "patch_size": 8, "projection_dim": 32},
    )  # fmt: skip
    CLIPModel(config).save_pretrained(folder)
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def siglip(folder: Path) -> Path:
    """A SiglipModel, as SigLIP and the fixed resolutions of SigLIP 2 are."""
    from transformers import SiglipConfig, SiglipModel

    tokenizer(folder, siglip=True)
    config = SiglipConfig(
        text_config={**SIZE, "vocab_size": ROWS, "max_position_embeddings": LENGTH},
        vision_config={**SIZE, "image_size": SIDE, "patch_size": 8},
    )
    model = SiglipModel(config)
    nn.init.constant_(model.logit_scale, 2.3)
    nn.init.constant_(model.logit_bias, -10.0)
    model.save_pretrained(folder)
    return folder


class Block(nn.Module):
    """open_clip's ResidualAttentionBlock, with its names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Attention, then the feed-forward part."""
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, attn_mask=mask, need_weights=False)[0]
        found: torch.Tensor = x + self.mlp["c_proj"](functional.gelu(self.mlp["c_fc"](self.ln_2(x))))
        return found


class Stack(nn.Module):
    """open_clip's Transformer."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads) for _ in range(layers))


class Seeing(nn.Module):
    """open_clip's VisionTransformer."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn((SIDE // 8) ** 2 + 1, width))
        self.proj = nn.Parameter(torch.randn(width, out))
        self.conv1 = nn.Conv2d(3, width, 8, 8, bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Stack(width, 2, 2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features of images."""
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        x = self.ln_pre(x)
        for block in self.transformer.resblocks:
            x = block(x)
        found: torch.Tensor = self.ln_post(x)[:, 0] @ self.proj
        return found


class Native(nn.Module):
    """open_clip's CLIP, with the names of its tensors."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.visual = Seeing(64, 32)
        self.token_embedding = nn.Embedding(ROWS, width)
        self.positional_embedding = nn.Parameter(torch.randn(LENGTH, width))
        self.transformer = Stack(width, 2, 2)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, 32))
        self.logit_scale = nn.Parameter(torch.tensor(2.6))

    def texts(self, ids: torch.Tensor) -> torch.Tensor:
        """Features of texts, read at their largest id."""
        x = self.token_embedding(ids) + self.positional_embedding
        mask = torch.full((LENGTH, LENGTH), -torch.inf).triu(1)
        for block in self.transformer.resblocks:
            x = block(x, mask)
        found: torch.Tensor = self.ln_final(x)[torch.arange(len(ids)), ids.argmax(-1)]
        return found @ self.text_projection


NATIVE: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
        "text_cfg": {"context_length": LENGTH, "vocab_size": ROWS, "width": 32, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "resize_mode": "longest"},
}  # fmt: skip


def open_clip(folder: Path, pickled: bool = False) -> Path:
    """open_clip's own layout. pickled: as its trainer leaves it, within `state_dict` and with a prefix."""
    tokenizer(folder, last=True)
    (folder / "open_clip_config.json").write_text(json.dumps(NATIVE))
    tensors = {name: value.contiguous() for name, value in Native().state_dict().items()}
    if pickled:
        content = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in tensors.items()}}
        torch.save(content, folder / "open_clip_pytorch_model.bin")
    else:
        save_file(tensors, folder / "open_clip_model.safetensors")
    return folder


def open_siglip(folder: Path) -> Path:
    """A SigLIP in open_clip's own layout, with timm's names; of the size that tests give to `base`."""
    tokenizer(folder, siglip=True)
    text = {
        "context_length": LENGTH, "vocab_size": ROWS, "width": 32, "heads": 2, "layers": 1, "no_causal_mask": True,
        "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"},
    }  # fmt: skip
    vision = {
        "image_size": SIDE, "timm_model_name": "vit_base_patch8_siglip_32", "timm_pool": "map", "timm_proj": "none",
        "timm_model_pretrained": False,
    }  # fmt: skip
    model = {"embed_dim": 32, "init_logit_bias": -10, "custom_text": True, "vision_cfg": vision, "text_cfg": text}
    sight = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash", "interpolation": "bicubic"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": sight}))
    tensors = {
        "logit_scale": torch.tensor(2.3), "logit_bias": torch.tensor(-10.0), **_text_part(), **_trunk(),
    }  # fmt: skip
    save_file(tensors, folder / "open_clip_model.safetensors")
    return folder


def _text_part() -> dict[str, torch.Tensor]:
    parts = {
        "token_embedding": nn.Embedding(ROWS, 32), "transformer": Stack(32, 2, 1), "ln_final": nn.LayerNorm(32),
        "text_projection": nn.Linear(32, 32),
    }  # fmt: skip
    names = {f"text.{n}": v for n, v in nn.ModuleDict(parts).state_dict().items()}
    return {**names, "text.positional_embedding": torch.randn(LENGTH, 32)}


def _trunk() -> dict[str, torch.Tensor]:
    """timm's VisionTransformer with an attention pool."""

    def mlp() -> nn.ModuleDict:
        return nn.ModuleDict({"fc1": nn.Linear(32, 64), "fc2": nn.Linear(64, 32)})

    block = nn.ModuleDict({
        "norm1": nn.LayerNorm(32), "norm2": nn.LayerNorm(32), "mlp": mlp(),
        "attn": nn.ModuleDict({"qkv": nn.Linear(32, 96), "proj": nn.Linear(32, 32)}),
    })  # fmt: skip
    pool = nn.ModuleDict({
        "q": nn.Linear(32, 32), "kv": nn.Linear(32, 64), "proj": nn.Linear(32, 32), "norm": nn.LayerNorm(32),
        "mlp": mlp(),
    })  # fmt: skip
    trunk = nn.ModuleDict({
        "patch_embed": nn.ModuleDict({"proj": nn.Conv2d(3, 32, 8, 8)}), "blocks": nn.ModuleList([block]),
        "norm": nn.LayerNorm(32), "attn_pool": pool,
    })  # fmt: skip
    names = {f"visual.trunk.{n}": v for n, v in trunk.state_dict().items()}
    return {
        **names, "visual.trunk.pos_embed": torch.randn(1, (SIDE // 8) ** 2, 32),
        "visual.trunk.attn_pool.latent": torch.randn(1, 1, 32),
    }  # fmt: skip
