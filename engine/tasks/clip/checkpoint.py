"""What a study's contrastive model takes: its kind, how it takes images and texts.

A CLIPModel, a SiglipModel (SigLIP, and SigLIP 2 of one resolution) or a checkpoint of open_clip, in a local folder.
"""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import StudyError
from engine.records.accounting import Accounting
from engine.settings.study import Study
from engine.tasks.clip import open_clip
from engine.tasks.shared.batches import CLIP_MEAN, CLIP_STD
from engine.tasks.shared.checkpoints import checkpoint_of, load_tokenizer, read_config
from engine.tasks.shared.images import BICUBIC, Fitted, Squares, Way
from engine.tasks.shared.tokens import Encode, is_bare, load_encoder
from engine.tasks.shared.weights import Weights

FIELD = "model.checkpoint"
KINDS = {"clip": "transformers.CLIPModel", "siglip": "transformers.SiglipModel"}
HALF = (0.5, 0.5, 0.5)
PROCESSOR = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Processor:
    """How an image becomes pixels. side: of the model's images. way, edge, resample, fill: see `Fitted`."""

    side: int
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    way: Way = "crop"
    edge: int = 0
    resample: int = BICUBIC
    fill: int = 0

    @property
    def medium(self) -> Squares:
        """The images in a cache."""
        if (self.way, self.edge, self.resample) == ("crop", self.side, BICUBIC):
            return Squares(self.side)
        return Fitted(self.side, self.way, self.edge, self.resample, self.fill)

    @property
    def differs(self) -> list[Any]:
        """What is not as CLIP has it, as JSON: part of ids. Empty for CLIP's own."""
        own = Processor(self.side, edge=self.side)
        return [] if self == own else [list(v) if isinstance(v, tuple) else v for v in astuple(self)]


@dataclass(frozen=True)
class Source:
    """A study's checkpoint. family: clip or siglip. folder: the user's. length, vocabulary: of its text tower.

    end: the id at which a CLIP reads a text; None where it reads the last place.
    """

    folder: Path
    family: str
    processor: Processor
    length: int
    vocabulary: int
    end: int | None

    def weights(self, study: Path, field: str = FIELD) -> Weights:
        """Its weights; those of open_clip are converted first. study: the study's folder. Raises: StudyError."""
        return Weights(field, KINDS[self.family], model_folder(self.folder, study))

    def encoder(self) -> Encode:
        """Texts as (texts, length) ids. Raises: StudyError for a tokenizer that isn't the model's."""
        if is_bare(self.folder):
            return load_encoder(self.folder, self.length)
        tokenizer = self._tokenizer()

        def encode(texts: list[str]) -> NDArray[np.int32]:
            if self.family == "siglip":  # both were trained on small letters, and not every tokenizer file says so
                texts = [text.lower() for text in texts]
            ids = tokenizer(texts, padding="max_length", truncation=True, max_length=self.length)["input_ids"]
            return np.asarray(ids, np.int32)

        return encode

    def accounting(self) -> list[Accounting]:
        """The tokenizer, as `djsb check` prints it. Raises: StudyError."""
        if is_bare(self.folder):
            return []
        ids = len(set(self._tokenizer().get_vocab().values()))
        note = f"its embedding has {self.vocabulary} rows; texts of {self.length} tokens"
        return [Accounting(f"tokenizer of {FIELD}", ids, ids, (), note, "tokens")]

    def _tokenizer(self) -> Any:
        tokenizer = load_tokenizer(self.folder)
        if tokenizer.pad_token is None:
            raise StudyError(
                f"{FIELD}: the tokenizer in {self.folder} has no padding token; copy the model's own there"
            )
        last = max(tokenizer.get_vocab().values(), default=-1)
        if last >= self.vocabulary:
            raise StudyError(
                f"{FIELD}: the tokenizer in {self.folder} has ids up to {last}, and the model's embedding has "
                f"{self.vocabulary} rows; copy the model's own tokenizer files there"
            )
        if self.end is not None:
            ids = tokenizer(["a"])["input_ids"][0]
            where = max(ids) if self.end == open_clip.LARGEST else self.end
            if where != ids[-1]:
                raise StudyError(
                    f"{FIELD}: the tokenizer in {self.folder} ends a text with id {ids[-1]}, and the model reads it at "
                    f"{where}; copy the model's own tokenizer files there"
                )
        return tokenizer


def source_of(study: Study, folder: Path) -> Source | None:
    """The study's checkpoint, as its files describe it; None for a preset. Raises: StudyError."""
    checkpoint = checkpoint_of(study, folder)
    if checkpoint is None:
        return None
    if native := open_clip.is_native(checkpoint):
        described = open_clip.describe(checkpoint)
        config = described.config
    else:
        config = read_config(checkpoint, FIELD)
        _refuse_others(checkpoint, config)
    sees, reads = config.get("vision_config") or {}, config.get("text_config") or {}
    family, siglip = str(config["model_type"]), config["model_type"] == "siglip"
    side = sees.get("image_size", 224)
    if not isinstance(side, int):
        raise StudyError(f"{FIELD}: {checkpoint} takes images of {side} pixels; only square ones are read")
    processor = _of_open_clip(described.processor, side) if native else _processor(checkpoint, side, siglip)
    end = None if siglip else int(reads.get("eos_token_id") or open_clip.LARGEST)
    length = int(reads.get("max_position_embeddings", 64 if siglip else 77))
    return Source(checkpoint, family, processor, length, int(reads.get("vocab_size", 32000 if siglip else 49408)), end)


def _refuse_others(checkpoint: Path, config: dict[str, Any]) -> None:
    kind = config.get("model_type")
    if kind == "siglip2":
        raise StudyError(
            f"{FIELD}: {checkpoint} is a SigLIP 2 of NaFlex, whose images have any shape; give one of a fixed "
            "resolution, as siglip2-base-patch16-224"
        )
    if kind not in KINDS:
        raise StudyError(
            f"{FIELD}: {checkpoint} is a {kind} model; this needs one of {', '.join(KINDS)}, or a folder with "
            f"{open_clip.CONFIG}"
        )


def model_folder(checkpoint: Path, study: Path) -> Path:
    """The checkpoint as `transformers` reads it; one of open_clip is converted into the study's cache."""
    return open_clip.converted(study, checkpoint) if open_clip.is_native(checkpoint) else checkpoint


# -- what the processor says -------------------------------------------------------------------


def _of_open_clip(given: dict[str, Any], side: int) -> Processor:
    def three(value: Any, default: tuple[float, ...]) -> tuple[float, ...]:
        return default if value is None else tuple(value) if isinstance(value, list) else (float(value),) * 3

    return Processor(
        side, three(given["mean"], CLIP_MEAN), three(given["std"], CLIP_STD), given["way"], side, given["resample"],
        given["fill"],
    )  # fmt: skip


def _processor(checkpoint: Path, side: int, siglip: bool) -> Processor:
    """That of a checkpoint's folder, or its family's. Raises: StudyError where it isn't the model's."""
    own = Processor(side, HALF, HALF, "squash", side) if siglip else Processor(side, edge=side)
    file = next((checkpoint / name for name in PROCESSOR if (checkpoint / name).is_file()), None)
    if file is None:
        return own
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
        given = given.get("image_processor", given)
        mean, std = (
            tuple(float(v) for v in given.get(f"image_{n}", d)) for n, d in (("mean", own.mean), ("std", own.std))
        )
        crops = bool(given.get("do_center_crop", not siglip))
        size, cut = given.get("size"), given.get("crop_size")
        edge, square = _sides(size, side)
        out = _sides(cut, edge)[0] if crops else edge
        resample, scale = int(given.get("resample", BICUBIC)), float(given.get("rescale_factor", 1 / 255))
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise StudyError(f"{FIELD}: {file} is no image processor that is read here ({error}); copy it again") from None
    if out != side or (not square and not crops):
        raise StudyError(
            f"{FIELD}: {file} makes images of {out} pixels{'' if square or crops else ' a shorter side'}, and the "
            f"model takes {side} × {side}; copy the model's own processor there"
        )
    if abs(scale * 255 - 1) > 1e-3 or not all(
        given.get(f"do_{what}", True) for what in ("resize", "rescale", "normalize")
    ):
        raise StudyError(
            f"{FIELD}: {file} leaves out resizing, scaling to 1 or normalisation; copy the model's own there"
        )
    if crops and (edge < side or (square and edge != side)):
        raise StudyError(f"{FIELD}: {file} resizes to {edge} and cuts {side} out of it; that is not read here")
    return Processor(side, mean, std, "squash" if square and not crops else "crop", edge, resample)


def _sides(size: Any, default: int) -> tuple[int, bool]:
    """(pixels, whether both sides are so long). Raises: ValueError."""
    if size is None:
        return default, False
    if isinstance(size, int):
        return size, False
    if "shortest_edge" in size:
        return int(size["shortest_edge"]), False
    if size["height"] != size["width"]:
        raise ValueError(f"size {size}")
    return int(size["height"]), True
