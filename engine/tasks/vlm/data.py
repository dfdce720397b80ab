"""What tasks `vlm` and `caption` make once per study: the base model, decoded images, token ids, questions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base import machine
from engine.base.arrays import new_array, save_array
from engine.base.durable import checksum, discard, is_whole, write_text
from engine.base.errors import DataError
from engine.base.ids import content_id
from engine.base.paths import resolve
from engine.data.fingerprints import content_hash
from engine.data.media import Unreadable
from engine.data.readers.contract import as_list
from engine.data.sift import Sifted
from engine.records.accounting import refuse_gaps
from engine.settings.study import Study
from engine.tasks.contract import Progress, Rows
from engine.tasks.shared.batches import image_mean_std
from engine.tasks.shared.caches import make_caches
from engine.tasks.shared.checkpoints import checkpoint_of, need_packages, read_config
from engine.tasks.shared.images import Squares, cache_images
from engine.tasks.shared.media import (
    ROW,
    entry_of,
    files_of,
    key_of,
    place_of,
)
from engine.tasks.shared.packed import open_media
from engine.tasks.shared.tokens import cache_tokens, captions
from engine.tasks.shared.weights import accounted
from engine.tasks.vlm.benchmarks import Question, annotations_of, read_benchmark
from engine.tasks.vlm.chat import Chat, chat_of
from engine.tasks.vlm.evaluation import Asked
from engine.tasks.vlm.families import high_side
from engine.tasks.vlm.inner import Inner
from engine.tasks.vlm.instructions import Instructions, fingerprint, read_instructions
from engine.tasks.vlm.model import (
    BASE,
    KINDS,
    LENGTH,
    PRESETS,
    SQUARE,
    image_shape,
    is_native,
    make_base,
    needed_weights,
)
from engine.tasks.vlm.native_data import cache_instructions as cache_conversations
from engine.tasks.vlm.native_data import cache_questions, cache_references, cache_rows
from engine.tasks.vlm.square_instructions import cache_instructions
from engine.tasks.vlm.text import Encoder, train_base_tokenizer

VERSION = 3  # of what lies in the caches
BLOCK = 1_000  # rows that are looked at together
NATIVE_VERSION = 1  # of what a checkpoint's own processor is given


def shared_content(study: Study, folder: Path) -> list[Any]:
    """What results hang on beside data, model and training: the section, and what its paths hold."""
    vlm = study.vlm
    paths = {name: getattr(vlm, name) for name in ("instructions", "vision", "language", "vision_high")}
    hashes = {
        n: fingerprint(folder, p) if n == "instructions" else content_hash(resolve(folder, p))
        for n, p in paths.items()
        if p
    }
    if questions := study.evaluation.benchmarks.get("vqav2"):
        hashes["vqav2"] = content_hash(annotations_of(resolve(folder, questions)))
    found = [vlm.model_dump(exclude=set(paths)), hashes]
    return [*found, ["processor", NATIVE_VERSION]] if is_native(study, folder) else found


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
    if is_native(study, folder):
        assert checkpoint is not None
        Chat.of(checkpoint)
    elif checkpoint:
        read_config(checkpoint, "model.checkpoint", SQUARE)
    if study.vlm.vision_high is not None:
        read_config(resolve(folder, study.vlm.vision_high), "vlm.vision_high", ("convnext",))
    accounted(folder, needed_weights(study, folder))


def side_of(study: Study, folder: Path) -> int:
    """Pixels of an image's side, as the model sees it."""
    if checkpoint := checkpoint_of(study, folder):
        return image_shape(read_config(checkpoint, "model.checkpoint", KINDS))[0]
    if study.vlm.vision is None:
        return PRESETS[study.model.preset].image
    config = read_config(resolve(folder, study.vlm.vision), "vlm.vision", ("clip", "clip_vision_model"))
    seen = config.get("vision_config", config)
    side, patch = int(seen.get("image_size", 224)), int(seen.get("patch_size", 32))
    return side if study.vlm.vision_high is None else high_side(side, patch)


def prepare(
    study: Study, folder: Path, train: Rows, evaluation: Rows | None, workers: int, progress: Progress | None
) -> Path:
    """The folder of the caches, made unless it is there. Raises: StudyError, DataError."""
    check_model(study, folder)
    files = {n: content_hash(resolve(folder, p)) for n, p in study.evaluation.benchmarks.items()}
    held = evaluation.data.fingerprint if evaluation else None
    rows = [train.data.fingerprint, train.data.key, held, *key_of(train, evaluation)]
    if is_native(study, folder):  # where images lie is kept, so that it counts
        rows += [str(some.data.path) for some in (train, evaluation) if some is not None]
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
    if is_native(study, folder):
        return _make_native(study, folder, target, train, evaluation, workers, progress)
    train.share(target, [BASE, "tokenizer"], ["train-tokens.npy"], files_of("train-images"))
    limit, benchmarks = study.dataset.max_bad, study.evaluation.benchmarks
    questions = {n: read_benchmark(n, resolve(folder, p), limit) for n, p in benchmarks.items()}
    told = None
    if study.vlm.instructions:
        told, _ = read_instructions(resolve(folder, study.vlm.instructions), limit, folder, target)
    inputs = []
    source = _source(study, folder, target, train, told or ())
    config = read_config(source, "model.checkpoint", KINDS)
    encoder = Encoder.of(source, config)
    side, length = image_shape(config)[0], _length(study)
    cache_images(train, side, target, "train-images", workers, progress)
    prompt = study.vlm.prompt if study.task == "caption" else None

    def encode(texts: list[str]) -> Any:
        return encoder.captions(texts, length, prompt)

    cache_tokens(train, encode, length, target / "train-tokens.npy")
    head = encoder.caption_head if prompt is None else encoder.head
    examples: dict[str, Any] = {"train": {"head": head, "start": len(encoder.question(prompt)) if prompt else 0}}
    if told is not None:
        cache_instructions(told, encoder, length, side, target, limit, study.cache)
        examples["instructions"] = {"head": encoder.head}
        inputs.append(told.accounting)
    groups = {}
    for name, found in questions.items():
        asked, places = _cache_pictures(found, side, target, f"{name}-images", limit)
        _cache_questions(asked, places, target / f"{name}.json")
        groups[name] = sorted({q.group for q in asked} - {""})
        inputs.append(asked.accounting)
    refuse_gaps(inputs)
    if evaluation is not None:
        _cache_captions(evaluation, study.vlm.prompt, side, target, workers)
    mean, std = image_mean_std(source)
    return {
        "examples": examples, "groups": groups, "pad": encoder.pad, "mean": mean, "std": std, "source": str(source),
        "inputs": [i.to_json() for i in inputs],
    }  # fmt: skip


def _make_native(
    study: Study, folder: Path, target: Path, train: Rows, evaluation: Rows | None, workers: int,
    progress: Progress | None,
) -> dict[str, Any]:  # fmt: skip
    """The same for a checkpoint that brings its processor."""
    source, limit = checkpoint_of(study, folder), study.dataset.max_bad
    assert source is not None
    chat = chat_of(source)
    benchmarks = study.evaluation.benchmarks.items()
    questions = {n: read_benchmark(n, resolve(folder, p), limit) for n, p in benchmarks}
    cache_rows(train, chat, study.vlm.prompt, target, "train", workers, progress)
    inputs, groups = [], {}
    if study.vlm.instructions:
        told = Instructions.of(resolve(folder, study.vlm.instructions), folder)
        inputs.append(cache_conversations(told, chat, limit, target))
    for name, found in questions.items():
        asked = cache_questions(found, chat, limit, target, name)
        groups[name] = sorted({q.group for q in asked} - {""})
        inputs.append(asked.accounting)
    refuse_gaps(inputs)
    if evaluation is not None:
        cache_references(evaluation, chat, study.vlm.prompt, target, workers)
    return {"groups": groups, "source": str(source), "inputs": [i.to_json() for i in inputs]}


def _length(study: Study) -> int:
    """Tokens of a row's own text at most."""
    made = study.model.checkpoint is None and study.vlm.vision is None
    return PRESETS[study.model.preset].length if made else LENGTH


def _source(study: Study, folder: Path, target: Path, train: Rows, told: Iterable[Question]) -> Path:
    """Folder of the model that trials start from; a preset's, or a joined one, is made in `target`."""
    if checkpoint := checkpoint_of(study, folder):
        return checkpoint
    base = target / BASE
    if study.vlm.vision is None and not is_whole(base):
        asked = (part for question in told for part in (question.text, *question.answers))
        known = chain(asked, [study.vlm.prompt], captions(train))
        train_base_tokenizer(known, PRESETS[study.model.preset].vocabulary, target / "tokenizer")
    make_base(study, folder, base, study.seed)
    return base


def _cache_pictures(
    asked: Sifted[Question], side: int, target: Path, name: str, max_bad: float
) -> tuple[Sifted[Question], list[int]]:
    """Cache the distinct images as (images, side, side, 3); the questions whose image can be read, and which it is.

    Raises: DataError when more than `max_bad` of the items have none.
    """
    numbers = {source: at for at, source in enumerate(dict.fromkeys(q.image for q in asked))}
    medium = Squares(side)
    broken: dict[Path | bytes | Inner, str] = {}
    pixels = new_array(target / f"{name}.npy", np.uint8, (len(numbers), *medium.shape))
    for image, at in numbers.items():
        assert not isinstance(image, Inner)  # of instructions only
        try:
            pixels[at], _ = medium.decode(image, at)
        except (OSError, ValueError) as error:
            machine.refuse(error, f"{name}, an image")
            broken[image] = str(error)
    pixels.flush()
    kept = [q for q in asked if q.image not in broken]
    said = {q.place: f"{q.place}: the image cannot be read ({broken[q.image]})" for q in asked if q.image in broken}
    return asked.without(kept, "unreadable image", list(said.values()), max_bad), [numbers[q.image] for q in kept]


def _cache_questions(asked: list[Question], places: list[int], file: Path) -> None:
    """Write a benchmark's questions. places: of their images."""
    kept = [Asked(at, q.text, q.answers, q.options, q.group, q.item) for at, q in zip(places, asked, strict=True)]
    write_text(file, json.dumps([asdict(q) for q in kept], allow_nan=False))


def _cache_captions(evaluation: Rows, prompt: str, side: int, target: Path, workers: int) -> None:
    """Write the evaluation rows as one question an image, whose answers are the captions of all its rows."""
    # the distinct ones are all that is kept, and few: captions are generated for each
    firsts = _firsts(evaluation)
    one_each = evaluation.good & (firsts == np.arange(len(firsts)))
    try:
        cache_images(replace(evaluation, good=one_each, form="raw"), side, target, "eval-images", workers)
    except Unreadable as error:
        alike = {row: why for at, why in error.rows.items() for row in np.flatnonzero(firsts == at).tolist()}
        raise Unreadable(error.data, alike) from None
    images = open_media(target, "eval-images")
    of_image: dict[int, str] = {}
    said: dict[str, list[str]] = {}
    first: dict[str, int] = {}
    for text, at in zip(captions(evaluation), firsts.tolist(), strict=True):
        if at >= 0 and text.strip():
            pixels = of_image[at] = of_image.get(at) or checksum(images[at].tobytes())
            said.setdefault(pixels, []).append(text.strip())
            first.setdefault(pixels, at)
    if not said:
        raise DataError(f"{evaluation.data.path} has no captioned image; give rows with text and images")
    save_array(target / "caption-images.npy", images[list(first.values())])
    asked = [Asked(at, prompt, tuple(texts), (), "", str(at)) for at, texts in enumerate(said.values())]
    write_text(target / "caption.json", json.dumps([asdict(q) for q in asked], allow_nan=False))
    discard(target / "eval-images.npy")


def _firsts(rows: Rows) -> NDArray[np.int64]:
    """The first good row that names the same image, for each good row; -1 for the others."""
    field = str(rows.data.fields.images)
    found = np.full(len(rows.data), -1)
    seen: dict[str, int] = {}
    for start, stop in rows.data.chunks(BLOCK):
        for number, row in enumerate(rows.data.reader.read(start, stop, [field]), start):
            if rows.good[number]:
                value = as_list(row[field])[0]
                entry = entry_of(value)
                content = place_of(rows, value) if entry == ROW else entry
                assert isinstance(content, bytes)  # only bytes stay in their row
                found[number] = seen.setdefault(checksum(content), number)
    return found
