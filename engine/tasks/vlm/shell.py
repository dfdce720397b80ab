"""An image–text model without weights, and the loss of rows like those of the study: for the forecast of its memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.settings.study import Study
from engine.tasks.shared.checkpoints import read_config, with_lora
from engine.tasks.vlm.chat import chat_of
from engine.tasks.vlm.families import family_of
from engine.tasks.vlm.model import (
    LENGTH,
    adapted,
    answer_losses,
    image_shape,
    is_native,
    set_trained,
    source_of,
    weights_of,
)
from engine.tasks.vlm.native import Part, part_losses
from engine.tasks.vlm.talks import Talks

if TYPE_CHECKING:
    import torch

    from engine.tasks.shared.memory import Shell

LOOKED = 64  # rows of which the longest is taken
Loss = Callable[[Any, int], "torch.Tensor"]


def shell(study: Study, prepared: Path) -> Shell:
    """See `Training.shell`."""
    import torch

    from engine.tasks.shared.memory import Shell, image_text, without_weights

    source = source_of(study, prepared)
    config = read_config(source, "model.checkpoint")
    model = without_weights(weights_of(study, source))
    if study.lora.rank:
        with torch.device("meta"):
            model = with_lora(model, study, None, adapted(study, family_of(config)), "language model")
    first = study.vlm.trains if study.task == "vlm" else "all"
    set_trained(model, "lora" if study.lora.rank else "language" if study.vlm.instructions else first)
    rows, adapters = study.train.batch_size, bool(study.lora.rank)
    if is_native(study, prepared.parents[2]):
        names = ["train", "instructions"] if study.vlm.instructions else ["train"]
        return Shell(model, of_processor(source, prepared, tuple(names)), rows, adapters)
    tokens = prepared / "train-tokens.npy"
    text = np.load(tokens, mmap_mode="r").shape[1] if tokens.exists() else LENGTH
    if config["model_type"] in ("llava", "internvl"):
        return image_text(model, image_shape(config)[0], text, rows, adapters)
    return Shell(model, of_square(config, text), rows, adapters)


@lru_cache(4)
def of_processor(source: Path, prepared: Path, names: tuple[str, ...]) -> Loss:
    """The loss of the longest of the first conversations, as the model's own processor makes it, some times over."""
    from engine.tasks.shared.tracing import computed

    chat = chat_of(source)
    longest, most = None, -1
    for name in names:
        talks = Talks(prepared, name)
        for number in talks.there(LOOKED).tolist():
            images = talks.pictures.of(number)
            tokens = chat.count(talks[number]) + sum(chat.image_tokens([image.size for image in images]))
            if tokens > most:
                longest, most = (talks[number], images), tokens
    assert longest is not None
    talk, pictures = longest

    @lru_cache(4)
    def part(rows: int) -> Part:
        with computed():
            return chat.examples([talk] * rows, [pictures] * rows)

    return lambda like, rows: part_losses(like, part(rows))[0].sum()


def of_square(config: dict[str, Any], text: int) -> Loss:
    """The loss of rows of one square image and so many tokens."""
    import torch

    side, tokens = image_shape(config)
    image = config.get("image_token_id", config.get("image_token_index"))

    def loss(like: Any, rows: int) -> torch.Tensor:
        ids = torch.tensor([[image] * tokens + [0] * text] * rows)
        labels = ids[:, tokens:]
        pixels = torch.empty(rows, 3, side, side)
        return answer_losses(like, ids, torch.ones_like(ids), labels, pixels).sum()

    return loss
