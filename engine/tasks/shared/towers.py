"""The size of an image–text model with two towers, as tasks `clip`, `vlm` and `caption` have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """One complexity dial. width, layers, heads: of the vision tower; text_*: of the text's. projection: of both."""

    image: int
    patch: int
    width: int
    layers: int
    heads: int
    text_width: int
    text_layers: int
    text_heads: int
    length: int
    vocabulary: int
    projection: int = 0

    @property
    def vision(self) -> dict[str, Any]:
        """What the configs of `transformers` call the size of the vision tower."""
        return {**_tower(self.width, self.layers, self.heads), "image_size": self.image, "patch_size": self.patch}

    @property
    def text(self) -> dict[str, Any]:
        """The same of the text tower."""
        return {**_tower(self.text_width, self.text_layers, self.text_heads), "vocab_size": self.vocabulary}


def _tower(width: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, "num_attention_heads": heads,
    }  # fmt: skip
