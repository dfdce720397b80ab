"""Mini-Gemini (arXiv 2403.18814), built from its parts: a LLaVA whose image tokens look into a second, finer picture.

A CLIP tower sees the image small, a ConvNeXt sees it large. Its four stages, resized to the grid of the first and put
side by side, are cut into as many patches as CLIP has. Each token of CLIP asks the cells of its own patch (patch info
mining): attention with the token as the query, the cells as keys and values; what it finds is added to it. A projector
then takes the tokens to the language model, as many as without the second tower.

The model is given the large picture; the small one is made of it. Weights of others in this form are not read: the
towers and the language model are, and projector and mining are trained by the study's first stage.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn
from torch.nn import functional

_hf: Any = transformers  # its own annotations are of no use here


class MiniGeminiConfig(_hf.LlavaConfig):  # type: ignore[misc]
    """A LLaVA's. high_config: of the ConvNeXt. high_image_size: pixels of the side that it sees."""

    model_type = "mini_gemini"
    high_config: dict | None = None  # type: ignore[type-arg]
    high_image_size: int = 768


class PatchMining(nn.Module):
    """What each token finds in the cells of its patch. width: of the tokens. channels: of the cells."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.key = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width))
        self.value = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width))

    def forward(self, tokens: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """tokens: (images, patches, width). cells: (images, patches, cells of a patch, channels)."""
        asked, keys, values = self.query(tokens)[:, :, None], self.key(cells), self.value(cells)
        found: torch.Tensor = functional.scaled_dot_product_attention(asked, keys, values)
        return found[:, :, 0]


class MiniGeminiModel(_hf.LlavaModel):  # type: ignore[misc]
    """Both towers, mining, projector and language model."""

    def __init__(self, config: MiniGeminiConfig) -> None:
        super().__init__(config)
        high = dict(config.high_config or {})
        self.high_tower = _hf.AutoModel.from_config(_hf.AutoConfig.for_model(high.pop("model_type"), **high))
        channels = sum(self.high_tower.config.hidden_sizes)
        self.mining = PatchMining(config.vision_config.hidden_size, channels)
        self.post_init()

    def get_image_features(self, pixel_values: torch.Tensor, **_options: Any) -> Any:
        """The tokens of each image, (patches, width of the language model), as `pooler_output`. pixel_values: large."""
        config = self.config
        side, patch = config.vision_config.image_size, config.vision_config.patch_size
        small = functional.interpolate(pixel_values.float(), (side, side), mode="bilinear", align_corners=False)
        seen = self.vision_tower(small.to(pixel_values.dtype), output_hidden_states=True, return_dict=True)
        tokens = seen.hidden_states[config.vision_feature_layer][:, 1:]
        cells = self._cells(pixel_values, side // patch)
        features = self.multi_modal_projector(tokens + self.mining(tokens, cells.to(tokens.dtype)))
        return _hf.modeling_outputs.BaseModelOutputWithPooling(pooler_output=list(features))

    def _cells(self, pixels: torch.Tensor, across: int) -> torch.Tensor:
        """(images, patches, cells of a patch, channels) of the large picture. across: patches of a side."""
        tower = self.high_tower
        stages = tower(pixels, output_hidden_states=True, return_dict=True).hidden_states
        stages = stages[-len(tower.config.hidden_sizes) :]
        size = stages[0].shape[-2:]
        grid = torch.cat(
            [functional.interpolate(stage.float(), size, mode="bilinear", align_corners=False) for stage in stages], 1
        )
        images, channels, height, width = grid.shape
        parts = grid.reshape(images, channels, across, height // across, across, width // across)
        return parts.permute(0, 2, 4, 3, 5, 1).reshape(images, across * across, -1, channels)


class MiniGeminiForConditionalGeneration(_hf.LlavaForConditionalGeneration):  # type: ignore[misc]
    """Mini-Gemini with its head, as `from_pretrained` and `save_pretrained` know it."""

    config_class = MiniGeminiConfig

    def __init__(self, config: MiniGeminiConfig) -> None:
        super(_hf.LlavaForConditionalGeneration, self).__init__(config)
        self.model = MiniGeminiModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()
