"""Checkpoints in the layouts of their authors, written as those of `transformers`: `internvl_chat` and LLaVA's own.

Weights and configuration only; no code that comes with them is run. Every tensor is accounted for against the model
that is meant, before the folder stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.durable import written_whole
from engine.base.errors import StudyError
from engine.records.accounting import Accounting
from engine.tasks.shared.checkpoints import load_tokenizer, read_config
from engine.tasks.shared.weights import some_names
from engine.tasks.vlm.chat import still

if TYPE_CHECKING:
    import torch

FIELD = "djsb convert"
SHARD = 4 << 30  # bytes of a file
Named = Iterator[tuple[str, "torch.Tensor"]]
Rules = tuple[tuple[str, str], ...]  # (what is looked for in a name, what stands for it), one after the other

_VISION: Rules = (
    (r"^vision_model\.encoder\.layers\.", "model.vision_tower.encoder.layer."),
    (r"^vision_model\.embeddings\.class_embedding", "model.vision_tower.embeddings.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding$", "model.vision_tower.embeddings.position_embeddings"),
    (r"^vision_model\.embeddings\.patch_embedding", "model.vision_tower.embeddings.patch_embeddings.projection"),
    (r"\.ls([12])$", r".lambda_\1"),
    (r"\.attn\.proj\.", ".attention.projection_layer."),
    (r"\.attn\.", ".attention."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
)
_PROJECTOR: Rules = (
    (r"^mlp1\.0\.", "model.multi_modal_projector.layer_norm."),
    (r"^mlp1\.1\.", "model.multi_modal_projector.linear_1."),
    (r"^mlp1\.3\.", "model.multi_modal_projector.linear_2."),
)
_LANGUAGE: Rules = (
    (r"^language_model\.(lm_head|output)\.", "lm_head."),
    (r"^language_model\.model\.", "model.language_model."),
)
_INTERNLM: Rules = (
    (r"\.tok_embeddings\.", ".embed_tokens."),
    (r"\.attention\.wo\.", ".self_attn.o_proj."),
    (r"\.feed_forward\.w1\.", ".mlp.gate_proj."),
    (r"\.feed_forward\.w2\.", ".mlp.down_proj."),
    (r"\.feed_forward\.w3\.", ".mlp.up_proj."),
    (r"\.attention_norm\.", ".input_layernorm."),
    (r"\.ffn_norm\.", ".post_attention_layernorm."),
)
_LLAVA: Rules = (
    (r"^model\.vision_tower\.(?:vision_tower\.)?(?:vision_model\.)?", "model.vision_tower."),
    (r"^model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"^model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"^model\.(?=embed_tokens|layers|norm)", "model.language_model."),
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions.{% for m in messages %}{% if m['role'] == 'user' %}{{ ' USER: ' }}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% elif m['role'] == 'assistant' %}{{ ' ASSISTANT: ' }}{% for c in m['content'] %}{{ c['text'] }}"
    "{% endfor %}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)


@dataclass(frozen=True)
class Plan:
    """What a checkpoint becomes. kind: the class. tensors: from a name and its tensor to those that are written."""

    kind: str
    config: Any
    processor: Any
    end: int
    tensors: Callable[[str, torch.Tensor], Named]


def convert(source: Path, target: Path, vision: Path | None = None) -> Accounting:
    """Write a checkpoint in an author's layout as one of `transformers`; its tensors.

    vision: the CLIP vision tower of a LLaVA whose file has none. Raises: StudyError that names what does not fit.
    """
    if target.exists():
        raise StudyError(f"{target} is there already; give another folder")
    config = read_config(source, FIELD)
    plan = _plan(source, config, vision)
    expected = _expected(plan)
    with written_whole(target) as scratch:
        scratch.mkdir()
        written, more, total = _write(plan, source, vision, scratch, expected)
        if missing := set(expected) - written:
            raise StudyError(
                f"{FIELD}: {len(written)} of {len(expected)} tensors of a {plan.kind} are in {source} (missing: "
                f"{some_names(missing)}{'; not of it: ' + some_names(more) if more else ''}); copy it again"
            )
        if more:
            raise StudyError(
                f"{FIELD}: {source} has tensors that no {plan.kind} has: {some_names(more)}; it is another model"
            )
        plan.config.architectures = [plan.kind]
        plan.config.save_pretrained(scratch)
        plan.processor.save_pretrained(scratch)
        ends = json.dumps({"eos_token_id": plan.end}, allow_nan=False)
        (scratch / "generation_config.json").write_text(ends, encoding="utf-8")
    return Accounting(f"weights of {source}", total, total, (), f"{len(written)} of a {plan.kind}", "tensors")


def _plan(source: Path, config: dict[str, Any], vision: Path | None) -> Plan:
    if config.get("model_type") == "internvl_chat":
        return _internvl(source, config)
    if "mm_projector_type" in config or "mm_hidden_size" in config:
        return _llava(source, config, vision)
    raise StudyError(
        f"{FIELD}: {source} is a {config.get('model_type')} model; internvl_chat and LLaVA's own layout are converted"
    )


def _expected(plan: Plan) -> dict[str, tuple[int, ...]]:
    """The tensors that the model must have, tied ones once, with their shapes."""
    import torch
    import transformers

    with torch.device("meta"):
        model = getattr(transformers, plan.kind)(plan.config)
    kept = set(model.state_dict())
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tuple(one.shape) for name, one in named if name in kept}


def _write(
    plan: Plan, source: Path, vision: Path | None, scratch: Path, expected: dict[str, tuple[int, ...]]
) -> tuple[set[str], set[str], int]:
    """(names that were written, names that no model has, tensors read), in files of at most `SHARD` bytes."""
    from safetensors.torch import save_file

    shard: dict[str, torch.Tensor] = {}
    places: dict[str, str] = {}
    more: set[str] = set()
    total = size = number = 0

    def flush() -> None:
        nonlocal shard, size, number
        if shard:
            name = f"model-{number:05d}.safetensors"
            save_file(shard, scratch / name, {"format": "pt"})
            places.update(dict.fromkeys(shard, name))
            shard, size, number = {}, 0, number + 1

    for old, tensor in _read(source, vision, expected):
        total += 1
        for name, made in plan.tensors(old, tensor):
            if name not in expected:
                if not (name == "lm_head.weight" and plan.config.tie_word_embeddings):
                    more.add(old)
                continue
            if tuple(made.shape) != expected[name]:
                raise StudyError(
                    f"{FIELD}: {old} of {source} is {tuple(made.shape)}, the model wants {expected[name]}; its "
                    "config.json and weights do not belong together"
                )
            shard[name] = made.contiguous().clone()
            size += made.numel() * made.element_size()
            if size >= SHARD:
                flush()
    flush()
    index = {"metadata": {}, "weight_map": places}
    (scratch / "model.safetensors.index.json").write_text(json.dumps(index, allow_nan=False), encoding="utf-8")
    return set(places), more, total


def _read(source: Path, vision: Path | None, expected: dict[str, tuple[int, ...]]) -> Named:
    """All tensors of the folder's safetensors, then the vision tower's. Raises: StudyError."""
    from safetensors import SafetensorError, safe_open

    folders = [(source, ""), *([(vision, "model.vision_tower.")] if vision else [])]
    for folder, prefix in folders:
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise StudyError(f"{FIELD}: {folder} has no *.safetensors; pickled weights are never opened")
        for file in files:
            try:
                with safe_open(file, "pt") as opened:
                    for name in opened.keys():  # noqa: SIM118 - it is no mapping
                        if not prefix:
                            yield name, opened.get_tensor(name)
                        elif (whole := prefix + name.removeprefix("vision_model.")) in expected:
                            yield whole, opened.get_tensor(name)
            except SafetensorError as error:
                raise StudyError(f"{FIELD}: {file} cannot be read ({error}); copy it again") from error


def _renamed(name: str, rules: Rules) -> str:
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name


# -- internvl_chat -----------------------------------------------------------------------------


def _internvl(source: Path, config: dict[str, Any]) -> Plan:
    """InternVL 2, 2.5 and 3 with a language model that `transformers` has (InternLM2 becomes a Llama)."""
    import transformers

    if config.get("ps_version", "v2") != "v2":
        raise StudyError(
            f"{FIELD}: {source} shuffles pixels by {config['ps_version']}; InternVL 2 and later are converted"
        )
    seen, told = dict(config["vision_config"]), dict(config["llm_config"])
    side, patch = int(config.get("force_image_size") or seen["image_size"]), int(seen["patch_size"])
    ratio = float(config.get("downsample_ratio", 0.5))
    each = int(side // patch * ratio) ** 2
    fused = told.get("model_type") == "internlm2"
    own = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    tokenizer = load_tokenizer(source, extra_special_tokens={**own, "video_token": "<video>"})
    ids = {name: tokenizer.convert_tokens_to_ids(word) for name, word in own.items()}
    words = int(told["vocab_size"])
    if unknown := [own[name] for name, one in ids.items() if one is None or one >= words]:
        raise StudyError(
            f"{FIELD}: the tokenizer of {source} lacks {', '.join(unknown)}; copy its tokenizer files there"
        )
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    if end in (None, tokenizer.unk_token_id):
        raise StudyError(
            f"{FIELD}: the tokenizer of {source} has no <|im_end|>; only ChatML conversations are converted"
        )
    text = {
        name: value for name, value in told.items() if name not in ("auto_map", "architectures", "attn_implementation")
    }
    text |= {"model_type": "llama", "attention_bias": bool(told.get("bias", False))} if fused else {}
    made = transformers.InternVLConfig(
        vision_config=_vision_config(seen, side), text_config=text, downsample_ratio=ratio, image_seq_length=each,
        image_token_id=ids["context_image_token"], vision_feature_layer=int(config.get("select_layer", -1)),
        tie_word_embeddings=bool(told.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
    )  # fmt: skip
    pixels = transformers.GotOcr2ImageProcessorPil(
        size={"height": side, "width": side}, crop_to_patches=bool(config.get("dynamic_image_size", True)),
        min_patches=int(config.get("min_dynamic_patch", 1)), max_patches=int(config.get("max_dynamic_patch", 12)),
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    processor = still(transformers.InternVLProcessor)(
        image_processor=pixels, tokenizer=tokenizer, video_processor=None, image_seq_length=each, chat_template=CHATML
    )
    sizes = (int(seen["hidden_size"]), made.text_config)

    def tensors(name: str, tensor: torch.Tensor) -> Named:
        return _internvl_tensors(name, tensor, *sizes, fused)

    return Plan("InternVLForConditionalGeneration", made, processor, int(end), tensors)


def _vision_config(seen: dict[str, Any], side: int) -> dict[str, Any]:
    names = {"attention_bias": "qkv_bias", "use_qk_norm": "qk_normalization", "attention_dropout": "attention_dropout"}
    same = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size", "hidden_act",
            "layer_norm_eps", "norm_type", "initializer_range")  # fmt: skip
    made = {name: seen[name] for name in same if name in seen}
    made |= {new: seen[old] for new, old in names.items() if old in seen}
    return {**made, "image_size": side, "use_absolute_position_embeddings": True, "use_mean_pooling": True}


def _internvl_tensors(name: str, tensor: torch.Tensor, width: int, text: Any, fused: bool) -> Named:
    if name.startswith("vision_model."):
        new = _renamed(name, _VISION)
        if ".qkv." in new:  # query, key and value stand one below the other
            parts = zip(("q_proj", "k_proj", "v_proj"), tensor.reshape(3, width, *tensor.shape[1:]), strict=True)
            yield from ((new.replace("qkv", part), one) for part, one in parts)
            return
        yield new, tensor
    elif fused and ".wqkv." in name:
        yield from _internlm_heads(_renamed(name, _LANGUAGE), tensor, text)
    else:
        yield _renamed(name, (*_PROJECTOR, *_LANGUAGE, *(_INTERNLM if fused else ()))), tensor


def _internlm_heads(name: str, tensor: torch.Tensor, text: Any) -> Named:
    """InternLM2's attention: of each group the heads of queries, then the key's and the value's."""
    groups, width = text.num_key_value_heads, text.hidden_size // text.num_attention_heads
    each = text.num_attention_heads // groups
    heads = tensor.reshape(groups, each + 2, width, -1)
    parts = {"q_proj": heads[:, :each], "k_proj": heads[:, -2], "v_proj": heads[:, -1]}
    for part, one in parts.items():
        yield name.replace("attention.wqkv", f"self_attn.{part}"), one.reshape(-1, *tensor.shape[1:])


# -- LLaVA -------------------------------------------------------------------------------------


def _llava(source: Path, config: dict[str, Any], vision: Path | None) -> Plan:
    """LLaVA 1.5 with a Llama (Vicuna) and a CLIP tower."""
    import transformers

    if config.get("mm_projector_type") != "mlp2x_gelu" or config.get("mm_patch_merge_type", "flat") != "flat":
        raise StudyError(
            f"{FIELD}: {source} is no LLaVA 1.5 (mm_projector_type mlp2x_gelu, flat patches); only those are read"
        )
    if "Llama" not in str(config.get("architectures")):
        raise StudyError(f"{FIELD}: {source} has {config.get('architectures')}; LLaVA with a Llama is converted")
    tower = vision or source / "vision_tower"
    if not (tower / "config.json").exists():
        raise StudyError(f"{FIELD}: give --vision, the folder of {config.get('mm_vision_tower', 'its CLIP tower')}")
    seen = read_config(tower, "--vision", ("clip", "clip_vision_model"))
    seen = {**seen.get("vision_config", seen), "model_type": "clip_vision_model"}
    tokenizer = load_tokenizer(source)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    image = tokenizer.convert_tokens_to_ids("<image>")
    text = {name: value for name, value in config.items() if not name.startswith(("mm_", "image_", "tune_", "freeze_"))}
    words = int(config["vocab_size"])
    text |= {"model_type": "llama", "vocab_size": max(words, image + 1), "architectures": ["LlamaForCausalLM"]}
    made = transformers.LlavaConfig(
        vision_config=seen, text_config=text, image_token_index=image,
        vision_feature_layer=int(config.get("mm_vision_select_layer", -2)),
        vision_feature_select_strategy="full" if config.get("mm_vision_select_feature") == "cls_patch" else "default",
        image_seq_length=(seen["image_size"] // seen["patch_size"]) ** 2,
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
    )  # fmt: skip
    side = int(seen["image_size"])
    pixels = transformers.LlavaImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side},
        do_pad=config.get("image_aspect_ratio") == "pad",
    )  # fmt: skip
    kind: Any = transformers.LlavaProcessor
    processor = kind(
        image_processor=pixels, tokenizer=tokenizer, patch_size=int(seen["patch_size"]), num_additional_image_tokens=1,
        vision_feature_select_strategy=made.vision_feature_select_strategy, chat_template=VICUNA,
    )  # fmt: skip

    def tensors(name: str, tensor: torch.Tensor) -> Named:
        new = _renamed(name, _LLAVA)
        if name.endswith(("inv_freq", "position_ids")) or name == "model.image_newline":
            return iter(())
        if new in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
            tensor = _grown(tensor, max(words, image + 1))
        return iter(((new, tensor),))

    return Plan("LlavaForConditionalGeneration", made, processor, int(tokenizer.eos_token_id), tensors)


def _grown(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """With rows for the image's token, whose place its features take: the mean of the others."""
    import torch

    more = rows - len(tensor)
    return tensor if more <= 0 else torch.cat([tensor, tensor.mean(0, keepdim=True).expand(more, -1)])
