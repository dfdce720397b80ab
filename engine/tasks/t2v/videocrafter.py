"""VideoCrafter2's own checkpoint, written as a pipeline of `diffusers` that makes the same of it.

Its UNet is a UNet3DConditionModel but for one thing: it is told the frames a second. At a fixed number of them that is
a constant beside the time's embedding, and becomes a part of its bias. Every tensor is named and counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.durable import written_whole
from engine.base.errors import StudyError
from engine.records.accounting import Accounting
from engine.tasks.shared.checkpoints import load_tokenizer
from engine.tasks.shared.weights import some_names

if TYPE_CHECKING:
    import torch

FIELD = "djsb convert"
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.model."
CROSS = "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
GROUPS = 32  # of every norm
Tensors = dict[str, Any]
Rules = tuple[tuple[str, str], ...]

_BLOCK: Rules = (
    (r"in_layers\.0", "norm1"),
    (r"in_layers\.2", "conv1"),
    (r"emb_layers\.1", "time_emb_proj"),
    (r"out_layers\.0", "norm2"),
    (r"out_layers\.3", "conv2"),
    (r"skip_connection", "conv_shortcut"),
)
_ENDS: Rules = (
    (r"^time_embed\.0", "time_embedding.linear_1"),
    (r"^time_embed\.2", "time_embedding.linear_2"),
    (r"^time_cond_proj", "time_embedding.cond_proj"),
    (r"^input_blocks\.0\.0", "conv_in"),
    (r"^init_attn\.0", "transformer_in"),
    (r"^out\.0", "conv_norm_out"),
    (r"^out\.2", "conv_out"),
)
_VAE: Rules = (
    (r"\.(down)\.(\d+)\.block", r".\1_blocks.\2.resnets"),
    (r"\.(up)\.(\d+)\.block", r".\1_blocks.\2.resnets"),
    (r"\.(down|up)\.(\d+)\.(down|up)sample\.", r".\1_blocks.\2.\3samplers.0."),
    (r"\.mid\.block_1", ".mid_block.resnets.0"),
    (r"\.mid\.block_2", ".mid_block.resnets.1"),
    (r"\.mid\.attn_1\.norm", ".mid_block.attentions.0.group_norm"),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.mid\.attn_1\.proj_out", ".mid_block.attentions.0.to_out.0"),
    (r"nin_shortcut", "conv_shortcut"),
    (r"norm_out", "conv_norm_out"),
)
_TEXT: Rules = (
    (r"^token_embedding", "embeddings.token_embedding"),
    (r"^positional_embedding", "embeddings.position_embedding.weight"),
    (r"^transformer\.resblocks", "encoder.layers"),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.attn\.", ".self_attn."),
    (r"\.c_fc\.", ".fc1."),
    (r"\.c_proj\.", ".fc2."),
    (r"^ln_final", "final_layer_norm"),
)
NOT_READ = re.compile(r"text_projection$|logit_scale$|attn_mask$")


def is_videocrafter(source: Path) -> bool:
    """True for a folder of a VideoCrafter's weights: no config.json, tensors of three models in one file.

    Raises: StudyError for one of pickled weights.
    """
    from safetensors import SafetensorError, safe_open

    if (source / "config.json").exists() or (source / "model_index.json").exists():
        return False
    if any(source.glob("*.ckpt")) and not any(source.glob("*.safetensors")):
        raise StudyError(
            f"{FIELD}: pickled weights are never opened; write those of {source} as safetensors first "
            "(docs/reference/checkpoints.md has the lines)"
        )
    try:
        files: list[Any] = [safe_open(file, "pt") for file in source.glob("*.safetensors")]
    except (SafetensorError, OSError):
        return False
    return any(name.startswith(UNET) for file in files for name in file.keys())  # noqa: SIM118 (it is no mapping)


def convert(source: Path, target: Path, tokenizer: Path | None, fps: int) -> Accounting:
    """Write the folder of a pipeline; the tensors that were read.

    tokenizer: the folder of a CLIP's, which the file does not hold. fps: frames a second that the model is told, from
    now on always. Raises: StudyError that names what does not fit.
    """
    import diffusers

    if target.exists():
        raise StudyError(f"{target} is there already; give another folder")
    if tokenizer is None:
        raise StudyError(f"{FIELD}: {source} holds no tokenizer; give --tokenizer, the folder of a CLIP's")
    read, unread = _read(source)
    made: Any = diffusers
    unet = _filled(made.UNet3DConditionModel, _unet(read[UNET], fps))
    vae = _filled(made.AutoencoderKL, _vae(read[VAE]))
    text, last = _text(read[TEXT], tokenizer)
    scheduler = made.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    with written_whole(target) as scratch:
        pipeline = made.TextToVideoSDPipeline(
            unet=unet, vae=vae, text_encoder=text, tokenizer=_tokenizer(tokenizer), scheduler=scheduler
        )
        pipeline.save_pretrained(scratch)
    total = sum(len(part) for part in read.values())
    left = (("of the last layer of text, which is not heard", last), ("of nothing that is run", unread))
    return Accounting(
        f"weights of {source}", total + unread, total - last, tuple(x for x in left if x[1]), "a pipeline", "tensors"
    )


def _read(source: Path) -> tuple[dict[str, Tensors], int]:
    """Tensors by the model that they are of, and how many are of none. Raises: StudyError."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, Tensors] = {UNET: {}, VAE: {}, TEXT: {}}
    unread, more = 0, set()
    for file in sorted(source.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                    part = next((p for p in found if name.startswith(p)), None)
                    if part is not None and not NOT_READ.search(name):
                        found[part][name.removeprefix(part)] = opened.get_tensor(name)
                    elif part is not None or "." not in name:  # the noise's own numbers have no dot
                        unread += 1
                    else:
                        more.add(name)
        except SafetensorError as error:
            raise StudyError(f"{FIELD}: {file} cannot be read ({error}); copy it again") from error
    if gone := [part for part, tensors in found.items() if not tensors]:
        raise StudyError(f"{FIELD}: {source} has no tensors of {', '.join(gone)}; give VideoCrafter2's whole weights")
    if more:
        raise StudyError(f"{FIELD}: {source} has tensors of no VideoCrafter2: {some_names(more)}; it is another model")
    return found, unread


def _filled(kind: Any, made: tuple[Any, Tensors]) -> Any:
    """The model of a config with its tensors. Raises: StudyError."""
    import torch

    config, tensors = made
    with torch.device("meta"):
        model = kind(**config) if isinstance(config, dict) else kind(config)
    expected = {name: tuple(one.shape) for name, one in model.state_dict().items()}
    given = {name: tuple(one.shape) for name, one in tensors.items()}
    if expected != given:
        told = [("missing", set(expected) - set(given)), ("not of it", set(given) - set(expected))]
        told += [("of another shape", {n for n in set(expected) & set(given) if expected[n] != given[n]})]
        raise StudyError(
            f"{FIELD}: the weights are of no {kind.__name__}: "
            + "; ".join(f"{word}: {some_names(names)}" for word, names in told if names)
            + "; VideoCrafter2 is converted, and models of its architecture"
        )
    model.load_state_dict({name: one.contiguous() for name, one in tensors.items()}, assign=True)
    return model.eval()


def _renamed(name: str, rules: Rules) -> str:
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name


def _count(names: Iterable[str], pattern: str) -> int:
    """One more than the greatest number that stands where the pattern says."""
    return max((int(m[1]) for name in names if (m := re.match(pattern, name))), default=-1) + 1


def _unet(old: Tensors, fps: int) -> tuple[dict[str, Any], Tensors]:
    if missing := {"input_blocks.0.0.bias", "time_embed.2.bias", CROSS} - set(old):
        raise StudyError(f"{FIELD}: the UNet lacks {some_names(missing)}; give VideoCrafter2's whole weights")
    width, down, up = len(old["input_blocks.0.0.bias"]), "DownBlock3D", "UpBlock3D"
    ends = [int(m[1]) for name in old if (m := re.match(r"input_blocks\.(\d+)\.0\.op\.weight", name))]
    each = min(ends) if ends else _count(old, r"input_blocks\.(\d+)\.")  # blocks of a level with the one that halves it
    levels, layers = len(ends) + 1, each - 1
    attends = [f"input_blocks.{1 + level * each}.1.norm.weight" in old for level in range(levels)]
    channels = [len(old[f"input_blocks.{1 + level * each}.0.out_layers.3.bias"]) for level in range(levels)]
    config = {
        "block_out_channels": tuple(channels), "layers_per_block": layers, "norm_num_groups": GROUPS,
        "down_block_types": tuple("CrossAttn" * a + down for a in attends),
        "up_block_types": tuple("CrossAttn" * a + up if a else up for a in reversed(attends)),
        "cross_attention_dim": old[CROSS].shape[1],
        "attention_head_dim": len(old["init_attn.0.proj_in.bias"]) // 8 if "init_attn.0.proj_in.bias" in old else 64,
        "time_cond_proj_dim": old["time_cond_proj.weight"].shape[1] if "time_cond_proj.weight" in old else None,
    }  # fmt: skip
    new = {}
    for name, tensor in old.items():
        if not name.startswith("fps_embedding."):
            named = _unet_name(name, each)
            is_line = re.search(r"(transformer_in|attentions\.\d+)\.proj_(in|out)\.weight", named)
            new[named] = tensor.flatten(1) if is_line else tensor
    if "fps_embedding.0.weight" in old:
        new["time_embedding.linear_2.bias"] = new["time_embedding.linear_2.bias"] + _told_fps(old, width, fps)
    return config, new


def _told_fps(old: Tensors, width: int, fps: int) -> torch.Tensor:
    """What the model adds to the time's embedding at so many frames a second."""
    import torch
    from diffusers.models.embeddings import get_timestep_embedding
    from torch.nn.functional import linear, silu

    seen = get_timestep_embedding(torch.tensor([fps]), width, flip_sin_to_cos=True, downscale_freq_shift=0)
    first, second = (
        [old[f"fps_embedding.{n}.{part}"].float() for part in ("weight", "bias")] for n in (0, 2)
    )  # fmt: skip
    found: torch.Tensor = linear(silu(linear(seen, *first)), *second)[0]
    return found.to(old["time_embed.2.bias"].dtype)


def _unet_name(name: str, each: int) -> str:
    """Of a tensor in a UNet3DConditionModel. each: blocks of a level on the way down."""
    if match := re.match(r"input_blocks\.(\d+)\.(\d)\.(.*)", name):
        number = int(match[1]) - 1
        if number >= 0:
            return _part(f"down_blocks.{number // each}", number % each, int(match[2]), match[3])
    if match := re.match(r"output_blocks\.(\d+)\.(\d)\.(.*)", name):
        number = int(match[1])
        return _part(f"up_blocks.{number // each}", number % each, int(match[2]), match[3])
    if match := re.match(r"middle_block\.(\d)\.(.*)", name):
        at = int(match[1])
        return _part("mid_block", int(at == 3), 0, match[2]) if at in (0, 3) else _part("mid_block", 0, at, match[2])
    return _renamed(name, _ENDS)


def _part(block: str, layer: int, place: int, rest: str) -> str:
    """place: in a layer: 0 its convolutions, 1 attention in a frame, 2 attention over time; or what halves, doubles."""
    if rest.startswith("op."):
        return f"{block}.downsamplers.0.conv.{rest.removeprefix('op.')}"
    if rest.startswith("conv."):
        return f"{block}.upsamplers.0.{rest}"
    if place:
        return f"{block}.{'attentions' if place == 1 else 'temp_attentions'}.{layer}.{rest}"
    if rest.startswith("temopral_conv."):
        return f"{block}.temp_convs.{layer}.{rest.removeprefix('temopral_conv.')}"
    return f"{block}.resnets.{layer}.{_renamed(rest, _BLOCK)}"


def _vae(old: Tensors) -> tuple[dict[str, Any], Tensors]:
    levels = _count(old, r"encoder\.down\.(\d+)\.")
    sizes = [len(old[f"encoder.down.{level}.block.0.conv1.bias"]) for level in range(levels)]
    config = {
        "block_out_channels": tuple(sizes), "latent_channels": old["post_quant_conv.weight"].shape[1],
        "down_block_types": ("DownEncoderBlock2D",) * levels, "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": _count(old, r"encoder\.down\.0\.block\.(\d+)\."), "norm_num_groups": GROUPS,
        "scaling_factor": 0.18215,
    }  # fmt: skip

    def turned(match: re.Match[str]) -> str:  # the decoder counts its levels from the largest
        return f"decoder.up.{levels - 1 - int(match[1])}."

    new = {}
    for name, tensor in old.items():
        named = _renamed(re.sub(r"^decoder\.up\.(\d+)\.", turned, name), _VAE)
        is_line = ".attentions." in named and tensor.dim() == 4
        new[named] = tensor.flatten(1) if is_line else tensor
    return config, new


def _text(old: Tensors, tokenizer: Path) -> tuple[Any, int]:
    """The encoder without its last layer, which VideoCrafter does not hear, and how many tensors that has."""
    import transformers

    width, layers = old["positional_embedding"].shape[1], _count(old, r"transformer\.resblocks\.(\d+)\.")
    words, told = len(old["token_embedding.weight"]), len(load_tokenizer(tokenizer))
    if told > words:
        raise StudyError(f"{FIELD}: the tokenizer of {tokenizer} has {told} tokens, the weights {words}; give a CLIP's")
    config = transformers.CLIPTextConfig(
        vocab_size=words, hidden_size=width, intermediate_size=len(old["transformer.resblocks.0.mlp.c_fc.bias"]),
        num_hidden_layers=layers - 1, num_attention_heads=max(1, width // 64), hidden_act="gelu", projection_dim=width,
        max_position_embeddings=len(old["positional_embedding"]), pad_token_id=0, bos_token_id=words - 2,
        eos_token_id=words - 1,
    )  # fmt: skip
    last, new = f"transformer.resblocks.{layers - 1}.", Tensors()
    for name, tensor in old.items():
        if name.startswith(last):
            continue
        named = _renamed(name, _TEXT)
        if ".in_proj_" in named:  # query, key and value stand one below the other
            parts = zip("qkv", tensor.chunk(3), strict=True)
            new |= {named.replace("in_proj_", f"{one}_proj."): part for one, part in parts}
        else:
            new[named] = tensor
    make: Callable[..., Any] = transformers.CLIPTextModel
    return _filled(make, (config, new)), sum(name.startswith(last) for name in old)


def _tokenizer(folder: Path) -> Any:
    """Filled up with its token 0, as open_clip does."""
    found = load_tokenizer(folder)
    found.pad_token = found.convert_ids_to_tokens(0)
    found.model_max_length = min(found.model_max_length, 77)
    return found
