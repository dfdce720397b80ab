"""What tasks `vlm` and `caption` make once per study: the base model, decoded images, token ids, questions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from engine.base.arrays import new_array
from engine.base.durable import is_whole
from engine.base.errors import DataError
from engine.base.ids import content_id
from engine.base.paths import resolve
from engine.data.dataset import content_hash
from engine.data.images import open_image
from engine.settings.study import Study
from engine.tasks.contract import Progress, Rows
from engine.tasks.shared.caches import make_caches
from engine.tasks.shared.checkpoints import checkpoint_of, need_packages, read_config
from engine.tasks.shared.images import cache_images, fit_square
from engine.tasks.shared.tokens import cache_tokens, captions
from engine.tasks.shared.weights import accounted
from engine.tasks.vlm.benchmarks import Question, read_benchmark, read_instructions
from engine.tasks.vlm.evaluation import Asked
from engine.tasks.vlm.model import BASE, KINDS, LENGTH, PRESETS, image_mean_std, image_shape, make_base, needed_weights
from engine.tasks.vlm.text import NONE, Encoder, train_base_tokenizer

VERSION = 2  # of what lies in the caches


def shared_content(study: Study, folder: Path) -> list[Any]:
    """What results hang on beside data, model and training: the section, and what its paths hold."""
    vlm = study.vlm
    paths = {name: getattr(vlm, name) for name in ("instructions", "vision", "language")}
    return [vlm.model_dump(exclude=set(paths)), {n: content_hash(resolve(folder, p)) for n, p in paths.items() if p}]


def check_model(study: Study, folder: Path) -> None:
    """That packages are there and the checkpoints which the study names are of the right kind, before all else.

    Raises: StudyError.
    """
    need_packages(study, {"pycocoevalcap": study.task == "caption", "peft": study.lora.rank > 0}, "vlm")
    if checkpoint := checkpoint_of(study, folder):
        read_config(checkpoint, "model.checkpoint", KINDS)
    if study.vlm.vision is not None and study.vlm.language is not None:
        read_config(resolve(folder, study.vlm.vision), "vlm.vision", ("clip", "clip_vision_model"))
        read_config(resolve(folder, study.vlm.language), "vlm.language")
    accounted(folder, needed_weights(study, folder))


def prepare(
    study: Study, folder: Path, train: Rows, evaluation: Rows | None, workers: int, progress: Progress | None
) -> Path:
    """The folder of the caches, made unless it is there. Raises: StudyError, DataError."""
    check_model(study, folder)
    files = {n: content_hash(resolve(folder, p)) for n, p in study.evaluation.benchmarks.items()}
    held = evaluation.data.fingerprint if evaluation else None
    rows = [train.data.fingerprint, train.data.fields.model_dump(), held]
    key = content_id(
        [VERSION, rows, study.task, study.seed, study.model.model_dump(), files, shared_content(study, folder)]
    )

    def make(target: Path) -> dict[str, Any]:
        return _make(study, folder, target, train, evaluation, workers, progress)

    return make_caches(folder, f"{study.task}-{key}", make)


def _make(
    study: Study, folder: Path, target: Path, train: Rows, evaluation: Rows | None, workers: int,
    progress: Progress | None,
) -> dict[str, Any]:  # fmt: skip
    """Fill the folder of the caches; what is to be known of them."""
    train.share(target, [BASE, "tokenizer"], ["train-tokens.npy"], ["train-images.npy"])
    questions = {n: read_benchmark(n, resolve(folder, p)) for n, p in study.evaluation.benchmarks.items()}
    told, blind = read_instructions(resolve(folder, study.vlm.instructions)) if study.vlm.instructions else ([], 0)
    source = _source(study, folder, target, train, told)
    config = read_config(source, "model.checkpoint", KINDS)
    encoder = Encoder.of(source, config)
    side, length = image_shape(config)[0], _length(study)
    cache_images(train, side, target / "train-images.npy", workers, progress)
    prompt = study.vlm.prompt if study.task == "caption" else None

    def encode(texts: list[str]) -> Any:
        return encoder.captions(texts, length, prompt)

    cache_tokens(train, encode, length, target / "train-tokens.npy")
    head = encoder.caption_head if prompt is None else encoder.head
    examples: dict[str, Any] = {"train": {"head": head, "start": len(encoder.question(prompt)) if prompt else 0}}
    if told:
        examples["instructions"] = _cache_instructions(told, encoder, length, side, target)
    groups = {}
    for name, asked in questions.items():
        _cache_questions(asked, side, target, name)
        groups[name] = sorted({q.group for q in asked} - {""})
    if evaluation is not None:
        _cache_captions(evaluation, study.vlm.prompt, side, target, workers)
    mean, std = image_mean_std(source)
    return {
        "examples": examples, "groups": groups, "pad": encoder.pad, "mean": mean, "std": std, "blind": blind,
        "source": str(source),
    }  # fmt: skip


def _length(study: Study) -> int:
    """Tokens of a row's own text at most."""
    made = study.model.checkpoint is None and study.vlm.vision is None
    return PRESETS[study.model.preset].length if made else LENGTH


def _source(study: Study, folder: Path, target: Path, train: Rows, told: list[Question]) -> Path:
    """Folder of the model that trials start from; a preset's, or a joined one, is made in `target`."""
    if checkpoint := checkpoint_of(study, folder):
        return checkpoint
    base = target / BASE
    if study.vlm.vision is None and not is_whole(base):
        texts = [part for question in told for part in (question.text, *question.answers)] + [study.vlm.prompt]
        known = (text for source in (texts, captions(train)) for text in source)
        train_base_tokenizer(known, PRESETS[study.model.preset].vocabulary, target / "tokenizer")
    make_base(study, folder, base, study.seed)
    return base


def _cache_pictures(sources: Iterable[tuple[str, Path | bytes]], side: int, file: Path) -> list[int]:
    """Write the distinct images as (images, side, side, 3); which of them each source is.

    sources: (place for messages, image). Raises: DataError that names the place.
    """
    numbers: dict[Path | bytes, int] = {}
    distinct: list[tuple[str, Path | bytes]] = []
    places = []
    for place, source in sources:
        if source not in numbers:
            numbers[source] = len(distinct)
            distinct.append((place, source))
        places.append(numbers[source])
    pixels = new_array(file, np.uint8, (len(distinct), side, side, 3))
    for number, (place, source) in enumerate(distinct):
        try:
            pixels[number] = fit_square(open_image(source), side)
        except (OSError, ValueError) as error:
            raise DataError(f"{place}: the image cannot be read ({error}); mend it, or take it out") from error
    pixels.flush()
    return places


def _cache_questions(asked: list[Question], side: int, target: Path, name: str) -> None:
    """Write a benchmark's questions and images."""
    places = _cache_pictures(((q.place, q.image) for q in asked), side, target / f"{name}-images.npy")
    kept = [Asked(at, q.text, q.answers, q.options, q.group, q.item) for at, q in zip(places, asked, strict=True)]
    (target / f"{name}.json").write_text(json.dumps([asdict(q) for q in kept]))


def _cache_instructions(told: list[Question], encoder: Encoder, length: int, side: int, target: Path) -> dict[str, Any]:
    """Write instructions to train on; their head, and where each answer begins.

    Raises: DataError when a question leaves no room for its answer.
    """
    rows, starts = np.full((len(told), length), NONE, np.int32), []
    for row, question in zip(rows, told, strict=True):
        asked = encoder.question(question.text)
        if len(asked) > length - 2:
            raise DataError(f"{question.place}: a question of {len(asked)} tokens; {length - 2} fit, shorten it")
        ids = [*asked, *encoder.answer(question.answers[0])[: length - len(asked) - 1], encoder.end]
        row[: len(ids)] = ids
        starts.append(len(asked))
    np.save(target / "instructions-tokens.npy", rows)
    file = target / "instructions-images.npy"
    scratch = file.with_name("instructions-pictures.npy")
    places = _cache_pictures(((q.place, q.image) for q in told), side, scratch)
    pictures = np.load(scratch, mmap_mode="r")
    images = new_array(file, np.uint8, (len(told), side, side, 3))
    for at, place in enumerate(places):
        images[at] = pictures[place]
    images.flush()
    scratch.unlink()
    return {"head": encoder.head, "starts": starts}


def _cache_captions(evaluation: Rows, prompt: str, side: int, target: Path, workers: int) -> None:
    """Write the evaluation rows as one question an image, whose answers are the captions of all its rows."""
    scratch = target / "eval-images.npy"
    cache_images(evaluation, side, scratch, workers)
    images = np.load(scratch, mmap_mode="r")
    said: dict[bytes, list[str]] = {}
    first: dict[bytes, int] = {}
    for at, (text, good) in enumerate(zip(captions(evaluation), evaluation.good, strict=True)):
        if good and text.strip():
            pixels = images[at].tobytes()
            said.setdefault(pixels, []).append(text.strip())
            first.setdefault(pixels, at)
    if not said:
        raise DataError(f"{evaluation.data.path} has no captioned image; give rows with text and images")
    np.save(target / "caption-images.npy", images[list(first.values())])
    asked = [Asked(at, prompt, tuple(texts), (), "", str(at)) for at, texts in enumerate(said.values())]
    (target / "caption.json").write_text(json.dumps([asdict(q) for q in asked]))
    scratch.unlink()
