"""Checkpoints of open_clip as those of `transformers`, a CLIPModel or a SiglipModel: the same tensors by other names.

A folder as open_clip keeps it: open_clip_config.json, open_clip_model.safetensors (or open_clip_pytorch_model.bin) and
tokenizer files. Its own package needs a torchvision for this machine's torch, so it is not needed here.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.durable import is_whole, written_whole
from engine.base.errors import StudyError
from engine.base.ids import content_id
from engine.tasks.shared.weights import LFS, some_names

CONFIG, WEIGHTS = "open_clip_config.json", ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# open_clip's settings that are read here, with what they are where the file is silent; any other must be at its default
VISION = {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0}
# what changes nothing of the model that is read here
VISION_ASIDE = {
    "timm_model_pretrained",
    "timm_drop",
    "timm_drop_path",
    "patch_dropout",
    "output_tokens",
    "timm_proj_bias",
}
TEXT_ASIDE = {"hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode", "output_tokens", "hf_model_pretrained"}
DEFAULTS: dict[str, Any] = {
    "pool_type": {"vision": "tok", "text": "argmax"}, "pos_embed_type": "learnable", "proj_type": "linear", "pad_id": 0,
    "block_type": "default",
}  # fmt: skip
# timm's names of SigLIP's vision towers: width, layers, heads, feed-forward width, activation
SIGLIP = {
    "base": (768, 12, 12, 3072, "gelu"), "large": (1024, 24, 16, 4096, "gelu"), "so400m": (1152, 27, 16, 4304, "gelu"),
    "giantopt": (1536, 40, 16, 6144, "gelu_pytorch_tanh"),
}  # fmt: skip
TIMM = re.compile(r"vit_(base|large|so400m|giantopt)_patch(\d+)_siglip_(\d+)")
RESIZE = {"shortest": "crop", "longest": "pad", "squash": "squash"}
SIGLIP_EPS, EPS = 1e-6, 1e-5
LARGEST = 2  # an end of text that lets `transformers` read a text at its largest id, as open_clip does
BESIDE = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "spiece.model", "tokenizer.model",
)  # fmt: skip


@dataclass(frozen=True)
class Described:
    """What open_clip_config.json says. config: of `transformers`. processor: mean, std, way and resample of images."""

    config: dict[str, Any]
    processor: dict[str, Any]


def is_native(folder: Path) -> bool:
    """True for a checkpoint of open_clip that isn't one of `transformers` as well."""
    if not (folder / CONFIG).is_file():
        return False
    try:
        return "model_type" not in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError:
        return True
    except ValueError:
        return False


def weights_file(folder: Path) -> Path:
    """The file of its weights. Raises: StudyError."""
    found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise StudyError(f"model.checkpoint: {folder} has neither {' nor '.join(WEIGHTS)}; copy one there")
    return found


def describe(folder: Path) -> Described:
    """What the folder's open_clip_config.json says. Raises: StudyError for a model that isn't read here."""
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        model, sight = content["model_cfg"], content.get("preprocess_cfg") or {}
        vision, text = dict(model["vision_cfg"]), dict(model["text_cfg"])
        size = vision.get("image_size")
        if isinstance(size, list) and len(set(size)) == 1:
            vision["image_size"] = size[0]
        timm = vision.get("timm_model_name")
        config = _siglip(model, vision, text, str(timm)) if timm else _clip(model, vision, text)
        processor = {
            "mean": sight.get("mean"), "std": sight.get("std"), "way": RESIZE[sight.get("resize_mode") or "shortest"],
            "resample": {"bicubic": 3, "bilinear": 2, "random": 3}[sight.get("interpolation") or "bicubic"],
            "fill": int(sight.get("fill_color") or 0),
        }  # fmt: skip
    except _Unread as error:
        raise StudyError(
            f"model.checkpoint: {folder / CONFIG} has {error}, which is not read here; give a ViT of CLIP or SigLIP"
        ) from None
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise StudyError(
            f"model.checkpoint: {folder / CONFIG} is none of open_clip's ({error!r}); copy it again"
        ) from None
    return Described(config, processor)


class _Unread(Exception):
    """A setting of a model that isn't read here."""


def _only(section: str, given: Mapping[str, Any], read: set[str], aside: set[str]) -> None:
    """Raises: _Unread for a setting beyond those that isn't at its default."""
    for name, value in given.items():
        default = DEFAULTS.get(name)
        default = default[section] if isinstance(default, dict) else default
        if name not in read | aside and value not in (default, None, False):
            raise _Unread(f"{section}_cfg.{name}: {value}")


def _clip(model: Mapping[str, Any], vision: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
    known = {"norm_kwargs", "act_kwargs"}
    _only("vision", vision, {*VISION, *known}, VISION_ASIDE)
    _only("text", text, {*TEXT, *known}, TEXT_ASIDE)
    if model.get("init_logit_bias") is not None:
        raise _Unread(f"init_logit_bias: {model['init_logit_bias']}")
    quick = "quick_gelu" if model.get("quick_gelu") else "gelu"
    sees, reads = {**VISION, **vision}, {**TEXT, **text}
    if isinstance(sees["layers"], list):
        raise _Unread("a ResNet")
    size = {"projection_dim": model["embed_dim"]}
    return {
        "model_type": "clip", "architectures": ["CLIPModel"], **size,
        "vision_config": {
            **size, **_tower(sees, sees["width"] // sees["head_width"], quick),
            "image_size": sees["image_size"], "patch_size": sees["patch_size"],
        },
        "text_config": {
            **size, **_tower(reads, reads["heads"], quick), "vocab_size": reads["vocab_size"],
            "max_position_embeddings": reads["context_length"], "eos_token_id": LARGEST,
        },
    }  # fmt: skip


def _siglip(model: Mapping[str, Any], vision: dict[str, Any], text: dict[str, Any], timm: str) -> dict[str, Any]:
    named = TIMM.fullmatch(timm)
    if not named or vision.get("timm_pool") != "map" or vision.get("timm_proj") not in ("none", ""):
        raise _Unread(f"vision_cfg.timm_model_name: {timm}")
    own = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    if different := [name for name, value in own.items() if text.get(name) != value]:
        raise _Unread(f"text_cfg.{different[0]}: {text.get(different[0])}")
    _only("vision", vision, {"image_size", "timm_model_name", "timm_pool", "timm_proj"}, VISION_ASIDE)
    _only("text", text, {*TEXT, *own, "norm_kwargs", "act_kwargs"}, TEXT_ASIDE)
    width, layers, heads, wide, act = SIGLIP[named[1]]
    reads = {**TEXT, **text}
    return {
        "model_type": "siglip", "architectures": ["SiglipModel"],
        "vision_config": {
            "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": wide,
            "hidden_act": act, "layer_norm_eps": SIGLIP_EPS, "image_size": vision["image_size"],
            "patch_size": int(named[2]),
        },
        "text_config": {
            **_tower(reads, reads["heads"], "gelu"), "vocab_size": reads["vocab_size"],
            "max_position_embeddings": reads["context_length"], "projection_size": model["embed_dim"],
        },
    }  # fmt: skip


def _tower(given: Mapping[str, Any], heads: int, act: str) -> dict[str, Any]:
    """What both towers of open_clip's own have."""
    if act == "gelu" and (given.get("act_kwargs") or {}).get("approximate") == "tanh":
        act = "gelu_pytorch_tanh"
    return {
        "hidden_size": given["width"], "num_hidden_layers": given["layers"], "num_attention_heads": heads,
        "intermediate_size": int(given["width"] * given["mlp_ratio"]), "hidden_act": act,
        "layer_norm_eps": (given.get("norm_kwargs") or {}).get("eps", EPS),
    }  # fmt: skip


# -- tensors -----------------------------------------------------------------------------------

# open_clip's name → that of `transformers`; {} is what stands in its place in both
NAMES = {
    "logit_scale": "logit_scale",
    "logit_bias": "logit_bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.{}": "text_model.final_layer_norm.{}",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.{}": "vision_model.pre_layrnorm.{}",
    "visual.ln_post.{}": "vision_model.post_layernorm.{}",
    "visual.proj": "visual_projection.weight",
    "text_projection": "text_projection.weight",
    "text_projection.{}": "text_model.head.{}",
    "visual.trunk.patch_embed.proj.{}": "vision_model.embeddings.patch_embedding.{}",
    "visual.trunk.pos_embed": "vision_model.embeddings.position_embedding.weight",
    "visual.trunk.norm.{}": "vision_model.post_layernorm.{}",
    "visual.trunk.attn_pool.latent": "vision_model.head.probe",
    "visual.trunk.attn_pool.proj.{}": "vision_model.head.attention.out_proj.{}",
    "visual.trunk.attn_pool.norm.{}": "vision_model.head.layernorm.{}",
    "visual.trunk.attn_pool.mlp.fc1.{}": "vision_model.head.mlp.fc1.{}",
    "visual.trunk.attn_pool.mlp.fc2.{}": "vision_model.head.mlp.fc2.{}",
}
BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "attn.proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
IN_BLOCK = re.compile(r"(visual\.trunk\.blocks|visual\.transformer\.resblocks|transformer\.resblocks)\.(\d+)\.(.+)")
JOINED = {
    "attn.in_proj_weight": "weight",
    "attn.in_proj_bias": "bias",
    "attn.qkv.weight": "weight",
    "attn.qkv.bias": "bias",
}
TURNED = ("visual.proj", "text_projection")  # matrices that are applied from the other side
QKV = ("q_proj", "k_proj", "v_proj")


def rename(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """open_clip's tensors as those of `transformers`. Raises: _Unread that names those that it doesn't know."""
    import torch

    found: dict[str, Any] = {}
    unread: set[str] = set()
    pool: dict[str, dict[str, Any]] = {"weight": {}, "bias": {}}
    for full, value in tensors.items():
        name = full.removeprefix("module.").removeprefix("text.")
        place, last = name.rpartition(".")[::2]
        if name == "attn_mask":
            continue  # a buffer that old files hold
        if block := IN_BLOCK.fullmatch(name):
            tower = "text_model" if block[1].startswith("transformer") else "vision_model"
            at, inner = f"{tower}.encoder.layers.{block[2]}", block[3]
            if inner in JOINED:
                parts = value.chunk(3)
                found |= {f"{at}.self_attn.{q}.{JOINED[inner]}": part for q, part in zip(QKV, parts, strict=True)}
            elif (known := BLOCK.get(inner.rpartition(".")[0])) is not None:
                found[f"{at}.{known}.{last}"] = value
            else:
                unread.add(full)
        elif place in ("visual.trunk.attn_pool.q", "visual.trunk.attn_pool.kv"):
            pool[last][place.rpartition(".")[2]] = value
        elif name in NAMES:
            found[NAMES[name]] = value.T if name in TURNED else value
        elif f"{place}.{{}}" in NAMES:
            found[NAMES[f"{place}.{{}}"].format(last)] = value
        else:
            unread.add(full)
    if unread:
        raise _Unread(some_names(unread))
    for last, parts in pool.items():
        if parts:
            found[f"vision_model.head.attention.in_proj_{last}"] = torch.cat([parts["q"], parts["kv"]])
    return {name: _shaped(name, value) for name, value in found.items()}


def _shaped(name: str, value: Any) -> Any:
    if name == "vision_model.embeddings.position_embedding.weight" and value.dim() == 3:
        value = value[0]
    if name in ("logit_scale", "logit_bias"):
        value = value.reshape(())
    return value.contiguous()


def converted(folder: Path, checkpoint: Path) -> Path:
    """The checkpoint as `transformers` reads it, in the study's cache, where it is written once. Raises: StudyError.

    folder: the study's.
    """
    source = weights_file(checkpoint)
    state = source.stat()
    key = content_id([str(checkpoint.resolve()), source.name, state.st_size, state.st_mtime_ns])
    target = folder / ".djsb" / "cache" / "open-clip" / key
    if not is_whole(target):
        described = describe(checkpoint)
        tensors = _read(source)
        try:
            renamed = rename(tensors)
        except _Unread as error:
            raise StudyError(
                f"model.checkpoint: {len(tensors)} tensors are in {source}, and of them {error} are none of a CLIP or "
                "SigLIP of open_clip's; give one of those"
            ) from None
        _write(target, checkpoint, described, renamed)
    return target


def _write(target: Path, checkpoint: Path, described: Described, tensors: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    if described.config["model_type"] == "siglip":
        tensors |= {name: tensors[name].reshape(1) for name in ("logit_scale", "logit_bias") if name in tensors}
    with written_whole(target) as scratch:
        scratch.mkdir(parents=True, exist_ok=True)
        save_file(tensors, scratch / "model.safetensors", metadata={"format": "pt"})
        (scratch / "config.json").write_text(json.dumps(described.config, allow_nan=False), encoding="utf-8")
        for name in BESIDE:
            if (checkpoint / name).is_file():
                shutil.copyfile(checkpoint / name, scratch / name)


def _read(file: Path) -> dict[str, Any]:
    """The tensors of a file; of a pickle nothing but tensors is read. Raises: StudyError."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with file.open("rb") as opened:
            if opened.read(len(LFS)) == LFS:
                raise StudyError(
                    f"model.checkpoint: {file} is a pointer of git-lfs, not weights; run `git lfs pull` there"
                )
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, ValueError, RuntimeError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise StudyError(f"model.checkpoint: {file} cannot be read ({reason}); copy it again") from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise StudyError(f"model.checkpoint: {file} holds more than tensors; give open_clip's own file")
    return content
