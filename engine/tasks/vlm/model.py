"""The image-to-text models of tasks `vlm` and `caption`: presets, checkpoints, LoRA, the loss, checkpoints written.

A model is of one of the families of families.py. A preset, or a vision tower and a language model that a new projector
joins, is a LLaVA that is written once per study as `base`, which all trials share and which a LoRA checkpoint is loaded
onto.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.durable import is_whole
from engine.base.paths import resolve
from engine.settings.study import Study
from engine.tasks.shared.checkpoints import adapter_of, checkpoint_of, read_config, save, with_lora
from engine.tasks.shared.procedure import load_dtype, the_device
from engine.tasks.shared.resident import frozen_base, let_go
from engine.tasks.shared.tokens import BOS, EOS, PAD
from engine.tasks.shared.towers import Preset
from engine.tasks.shared.weights import EARLIER, Weights
from engine.tasks.vlm.families import FAMILIES, Family, class_of, family_of, has_processor, high_side

if TYPE_CHECKING:
    import torch

KINDS = tuple(FAMILIES)
SQUARE = ("llava", "internvl", "mini_gemini")  # those that do without their processor, by one square image a row
IMAGE_ID, IMAGE_TOKEN = 4, "<image>"
NO_LABEL = -100
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BASE = "base"


PRESETS = {
    "tiny": Preset(32, 16, 64, 2, 2, 64, 2, 2, 64, 1024),
    "small": Preset(112, 14, 384, 6, 6, 384, 6, 6, 128, 8192),
}
LENGTH = 256  # text tokens of a checkpoint's rows


def llava_config(preset: Preset) -> dict[str, Any]:
    """The keyword arguments of a LlavaConfig."""
    return {
        "vision_config": {"model_type": "clip_vision_model", **preset.vision, "projection_dim": preset.width},
        "text_config": {
            "model_type": "llama",
            **preset.text,
            "num_key_value_heads": preset.text_heads,
            "max_position_embeddings": 2048,
            "pad_token_id": PAD,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "initializer_range": preset.text_width**-0.5,  # 0.02 is for thousands of features
        },
        "image_token_index": IMAGE_ID,
        "image_seq_length": (preset.image // preset.patch) ** 2,
        "vision_feature_layer": -1,  # CLIP's last but one is meant for towers of many layers
    }


def make_base(study: Study, folder: Path, target: Path, seed: int) -> None:
    """Write the model that all trials start from, complete or not at all, unless it is there.

    folder: the study's. A preset gets seeded weights; `vlm.vision` and `vlm.language` are joined by a new projector.
    """
    if is_whole(target):
        return
    import torch
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(seed)
    if study.vlm.vision is None:
        model = LlavaForConditionalGeneration(LlavaConfig(**llava_config(PRESETS[study.model.preset])))
    else:
        model = _joined(study, folder, target.with_name("tokenizer"))
    save(model, target, [target.with_name("tokenizer") / name for name in TOKENIZER_FILES])


def parts_of(study: Study, folder: Path) -> list[Weights]:
    """The vision tower and the language model that a new projector joins, where the study names them."""
    kinds = {"vision": "CLIPVisionModel", "language": "AutoModelForCausalLM", "vision_high": "ConvNextModel"}
    named = [(part, getattr(study.vlm, part), kind) for part, kind in kinds.items()]
    return [Weights(f"vlm.{part}", f"transformers.{kind}", resolve(folder, p)) for part, p, kind in named if p]


def weights_of(study: Study, source: Path, field: str = "model.checkpoint") -> Weights:
    """The weights of an image–text model. Raises: StudyError when the folder is of another architecture."""
    family = family_of(read_config(source, field, KINDS))
    new = field != EARLIER and makes_projector(study)
    return Weights(field, class_of(family), source, family.projector if new else ())


def makes_projector(study: Study) -> bool:
    """True when a trial starts with a projector of its own."""
    return study.task == "vlm" and study.vlm.trains == "projector" and not study.lora.rank


def needed_weights(study: Study, folder: Path) -> list[Weights]:
    """Those that the study names."""
    checkpoint = checkpoint_of(study, folder)
    return [weights_of(study, checkpoint)] if checkpoint else parts_of(study, folder)


def _joined(study: Study, folder: Path, words: Path) -> Any:
    """A vision tower and a language model with a new projector between them, as LLaVA starts.

    words: folder that the language model's tokenizer is written to, with a token for images.
    """
    from transformers import AutoTokenizer, LlavaConfig
    from transformers import LlavaForConditionalGeneration as Llava

    assert study.vlm.language
    language = resolve(folder, study.vlm.language)
    tower, text, *high = (weights.load() for weights in parts_of(study, folder))
    seen: dict[str, Any] = tower.config.to_dict()
    tokenizer = AutoTokenizer.from_pretrained(str(language), local_files_only=True, trust_remote_code=False)
    tokenizer.add_tokens([IMAGE_TOKEN], special_tokens=True)  # none is added where it is known
    tokenizer.save_pretrained(words)
    image: Any = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if image >= text.config.vocab_size:
        text.resize_token_embeddings(image + 1)
    told: dict[str, Any] = {
        "vision_config": seen, "text_config": text.config.to_dict(), "image_token_index": image,
        "image_seq_length": (seen["image_size"] // seen["patch_size"]) ** 2,
    }  # fmt: skip
    model: Any
    if high:
        from engine.tasks.vlm import mini_gemini as own  # here, as it imports torch

        side = high_side(seen["image_size"], seen["patch_size"])
        config = own.MiniGeminiConfig(**told, high_config=high[0].config.to_dict(), high_image_size=side)
        model = own.MiniGeminiForConditionalGeneration(config)
        model.model.high_tower.load_state_dict(high[0].state_dict())
    else:
        model = Llava(LlavaConfig(**told))
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.language_model.load_state_dict(text.get_decoder().state_dict())
    model.lm_head.load_state_dict(text.get_output_embeddings().state_dict())
    return model


def source_of(study: Study, prepared: Path) -> Path:
    """Folder of the whole model that trials start from: the study's checkpoint, or the base made of a preset."""
    return checkpoint_of(study, prepared.parents[2]) or prepared / BASE


def is_native(study: Study, folder: Path) -> bool:
    """True where a checkpoint brings its processor, which then makes pixels and tokens. folder: the study's."""
    checkpoint = checkpoint_of(study, folder)
    return checkpoint is not None and has_processor(checkpoint)


def build_model(study: Study, prepared: Path, seed: int, init: str | None) -> Any:
    """The model on this worker's device; with `lora.rank`, a peft model around it.

    init: folder of a checkpoint of an earlier trial, whole or LoRA. seed: of a new projector and of LoRA's weights.
    """
    import torch

    torch.manual_seed(seed)
    source = source_of(study, prepared)
    adapter = adapter_of(init)
    weights = weights_of(study, Path(init), EARLIER) if init and not adapter else weights_of(study, source)
    family = family_of(read_config(source, "model.checkpoint", KINDS))
    if study.lora.rank or adapter:
        base = frozen_base(weights, study, dtype=load_dtype(study))
        return with_lora(base, study, adapter, adapted(study, family), "language model").to(the_device())
    let_go()
    model: Any = weights.load(dtype=load_dtype(study))
    if init is None and makes_projector(study):
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and any(word in name for word in family.projector):
                torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    torch.nn.init.zeros_(module.bias)
    return model.to(the_device())


def adapted(study: Study, family: Family) -> str:
    """Which layers get adapters: inside the language model only, as the vision tower has layers of the same names."""
    words = "language_model" if "text_model" not in family.language else "text_model"
    return rf".*{words}.*\.(" + "|".join(map(re.escape, study.lora.targets or LORA_TARGETS)) + ")"


def set_trained(model: Any, part: str) -> None:
    """Freeze all but a part: `projector`, `language` (projector and language model), `all`, or `lora`."""
    family = family_of({"model_type": model.config.model_type})
    parts = {
        "all": ("",),
        "projector": family.projector,
        "language": (*family.projector, *family.language),
        "lora": ("lora_",),
    }
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(word in name for word in parts[part]))


def image_shape(config: dict[str, Any]) -> tuple[int, int]:
    """(side of an image in pixels, tokens that it becomes) of a LLaVA's or InternVL's config.json."""
    seen = config["vision_config"]
    side, patch = (v[0] if isinstance(v, list) else v for v in (seen["image_size"], seen["patch_size"]))
    cells = side // patch
    if config["model_type"] == "internvl":
        return side, int(cells * config.get("downsample_ratio", 0.5)) ** 2
    if config["model_type"] == "mini_gemini":
        return int(config["high_image_size"]), cells * cells
    return side, cells * cells + (config.get("vision_feature_select_strategy", "default") == "full")


def answer_losses(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor, pixels: torch.Tensor
) -> torch.Tensor:
    """(batch, text) cross-entropy of every token, 0 where the label is none; in float32.

    ids, mask: (batch, head + text). labels: (batch, text), NO_LABEL where nothing is to be learned.
    """
    from torch.nn import functional

    text = labels.shape[1]
    logits = model(
        input_ids=ids, attention_mask=mask, pixel_values=pixels, logits_to_keep=text + 1, use_cache=False
    ).logits[:, :-1]
    return functional.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=NO_LABEL, reduction="none")


TOKENIZER_FILES = tuple(
    "tokenizer.json tokenizer_config.json tokenizer.model special_tokens_map.json vocab.json merges.txt "  # noqa: SIM905
    "added_tokens.json preprocessor_config.json processor_config.json video_preprocessor_config.json "
    "chat_template.json chat_template.jinja generation_config.json".split()
)
