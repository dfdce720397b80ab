"""The families of video pipelines whose model is a UNet (see `families.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from engine.tasks.shared.checkpoints import load_tokenizer
from engine.tasks.t2v.families import TRANSFORMERS, Family, Latte, Text

if TYPE_CHECKING:
    import torch

SCALE = "scale"  # in a Text: the embedding of the scale of guidance


class UNet(Latte):
    """A UNet with layers over time, as ModelScope's and VideoCrafter's; captions by a CLIP.

    A student of consistency distillation is told the scale of guidance besides (`told_scale`).
    """

    part, pipeline, transformer = "unet", "TextToVideoSDPipeline", "UNet3DConditionModel"
    encoders: ClassVar[Mapping[str, Mapping[str, str]]] = {"text_encoder": {"clip_text_model": "CLIPTextModel"}}
    length = 77

    def scaling(self, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
        """See Family; a config of Stable Diffusion's first days does not say its factor."""
        import torch

        return torch.zeros(1), torch.tensor([float(self.vae.get("scaling_factor") or 0.18215)])

    def reader(self, folder: Path, encoders: Mapping[str, Any], device: torch.device) -> Callable[[list[str]], Text]:
        """See Family; as `encode_prompt` of the pipelines of Stable Diffusion."""
        tokenizer, encoder = load_tokenizer(folder / "tokenizer"), encoders["text_encoder"]
        length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        masked = bool(getattr(encoder.config, "use_attention_mask", False))

        def read(captions: list[str]) -> Text:
            ids = tokenizer(captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            mask = ids["attention_mask"].to(device) if masked else None
            return {"embeds": encoder(ids["input_ids"].to(device), attention_mask=mask).last_hidden_state}

        return read

    def predict(
        self, transformer: Any, noisy: torch.Tensor, steps: torch.Tensor, text: Text, fps: float
    ) -> torch.Tensor:
        """See Family."""
        out: torch.Tensor = transformer(
            noisy, timestep=steps, encoder_hidden_states=text["embeds"], timestep_cond=text.get(SCALE)
        ).sample
        return out


def told_scale(text: Text, w: torch.Tensor, width: int) -> Text:
    """What a UNet hears, with the scale of guidance. w: (clips,); 0 is none. width: of its embedding."""
    from diffusers.models.embeddings import get_timestep_embedding

    return text | {SCALE: get_timestep_embedding(w * 1000, width, flip_sin_to_cos=False, downscale_freq_shift=1)}


def width_of(unet: Any) -> int:
    """Of the embedding of w that a UNet takes; 0: it takes none."""
    return int(unet.config.time_cond_proj_dim or 0)


class MotionUNet(UNet):
    """AnimateDiff: a UNet of pictures with motion modules, as its pipeline saves both in one."""

    pipeline, transformer = "AnimateDiffPipeline", "UNetMotionModel"

    @property
    def most(self) -> int | None:
        """See Family."""
        return int(self.net.get("motion_max_seq_length") or 32)

    def predict(
        self, transformer: Any, noisy: torch.Tensor, steps: torch.Tensor, text: Text, fps: float
    ) -> torch.Tensor:
        """See Family; each frame is given the caption."""
        each = text["embeds"].repeat_interleave(noisy.shape[2], dim=0)
        return super().predict(transformer, noisy, steps, text | {"embeds": each}, fps)


EVERY: tuple[type[Family], ...] = (*TRANSFORMERS, UNet, MotionUNet)
FAMILIES = {family.transformer: family for family in EVERY}
