"""Task `lm`: a small causal language model on text, judged by perplexity and multiple choice.

The model is a Llama from a preset's config with a tokenizer trained on the study's own text, or any causal language
model of `transformers` with its tokenizer from a local folder. Rows are packed to sequences of a fixed length; every
pool trains on equally many tokens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.arrays import save_array, save_arrays
from engine.base.durable import written_whole
from engine.base.errors import DataError, StudyError
from engine.base.ids import content_id
from engine.base.paths import resolve
from engine.data.fingerprints import content_hash
from engine.data.judged import Judged
from engine.data.sift import Sifted
from engine.records.accounting import Accounting
from engine.records.metric import Metric
from engine.settings.study import Study
from engine.tasks.contract import Kept, Progress, Rows, Traits
from engine.tasks.lm.choices import Question, encode_questions, judged, judged_questions, measure, read_questions
from engine.tasks.lm.model import PRESETS, build_model, log_likelihoods, sequences, shell, train, weights_of
from engine.tasks.shared.caches import make_caches, read_meta
from engine.tasks.shared.checkpoints import checkpoint_of, load_tokenizer, read_config, save
from engine.tasks.shared.items import judged_rows
from engine.tasks.shared.kept import of_preset, of_shapes, shapes_in
from engine.tasks.shared.tokens import SPECIAL_TOKENS, captions, train_tokenizer
from engine.tasks.shared.trial import Training, TrainingTask
from engine.tasks.shared.weights import accounted

SCORED = 1024  # rows whose tokens are scored at once
LONGEST = 1024  # tokens of a sequence for a checkpoint that takes more
Encode = Callable[[list[str]], list[list[int]]]


def _shape(study: Study, folder: Path) -> tuple[Path | None, int]:
    """(checkpoint, tokens of a sequence) of the study's model.

    Raises: StudyError when the checkpoint is no causal language model with safetensors weights.
    """
    checkpoint = checkpoint_of(study, folder)
    if checkpoint is None:
        return None, PRESETS[study.model.preset].length
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = read_config(checkpoint, "model.checkpoint")
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    kinds = config.get("architectures") or [known.get(str(config.get("model_type")), "none")]
    length = int(config.get("max_position_embeddings") or config.get("n_positions") or LONGEST)
    if not set(kinds) & set(known.values()):
        raise StudyError(
            f"model.checkpoint: {checkpoint} is a {kinds[0]} ({config.get('model_type')}); task lm needs a causal "
            "language model, as LlamaForCausalLM or GPT2LMHeadModel"
        )
    return checkpoint, min(length, LONGEST)


def _tokenizer(study: Study, checkpoint: Path | None, train: Rows, target: Path) -> Any:
    """The checkpoint's tokenizer, or one trained on the text; a copy lies in `target/tokenizer`.

    Raises: StudyError when the checkpoint has none.
    """
    from transformers import PreTrainedTokenizerFast

    if checkpoint is None:
        file = target / "tokenizer.json"
        train_tokenizer(train, PRESETS[study.model.preset].vocabulary, file, lower=False)
        names = dict(zip(("pad_token", "bos_token", "unk_token", "eos_token"), SPECIAL_TOKENS, strict=True))
        build: Any = PreTrainedTokenizerFast
        found = build(tokenizer_file=str(file), **names)
    else:
        found = load_tokenizer(checkpoint)
        if set(found.get_vocab()) <= set(found.all_special_tokens):  # made up without its files
            raise StudyError(
                f"model.checkpoint: {checkpoint} has no tokenizer that can be read (no words in it); put "
                "tokenizer.json and tokenizer_config.json beside its weights"
            )
    found.save_pretrained(str(target / "tokenizer"))
    return found


def _tokens(tokenizer: Any, checkpoint: Path | None) -> tuple[dict[str, Any], Encode]:
    """The tokenizer's size and its tokens of beginning, end and padding; and a function from texts to token ids.

    Raises: StudyError when it has no end of text, or more tokens than the checkpoint's model.
    """
    eos, bos, pad = tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id
    if eos is None:
        raise StudyError(
            f"model.checkpoint: the tokenizer of {checkpoint} names no eos_token; add it to tokenizer_config.json"
        )
    if checkpoint is not None:
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        if len(tokenizer) > int(config.get("vocab_size", len(tokenizer))):
            raise StudyError(
                f"model.checkpoint: the tokenizer of {checkpoint} has {len(tokenizer)} tokens and its model "
                f"{config['vocab_size']}; they do not belong together"
            )

    def encode(texts: list[str]) -> list[list[int]]:
        found: list[list[int]] = tokenizer(texts, add_special_tokens=False, truncation=False)["input_ids"]
        return found

    special = {"bos": eos if bos is None else bos, "eos": eos, "pad": eos if pad is None else pad}
    return {"vocabulary": len(tokenizer), **special}, encode


def _cache(
    rows: Rows, encode: Encode, first: list[int], last: list[int], target: Path, name: str, progress: Progress | None
) -> tuple[int, int]:
    """Write `name-tokens.bin` (int32) and `name-offsets.npy`; (rows with text, their tokens)."""
    sizes = np.zeros(len(rows.data), np.int64)
    texts = captions(rows)
    with written_whole(target / f"{name}-tokens.bin") as scratch, scratch.open("wb") as out:
        for start, stop in rows.data.chunks(4096):
            chunk = [next(texts) for _ in range(start, stop)]
            for number, ids in enumerate(encode(chunk), start):
                if chunk[number - start]:
                    made = np.array([*first, *ids, *last], np.int32)
                    sizes[number] = len(made)
                    out.write(made.tobytes())
            if progress:
                progress(stop, len(rows.data))
    save_array(target / f"{name}-offsets.npy", np.concatenate([[0], np.cumsum(sizes)]))
    return int((sizes > 0).sum()), int(sizes.sum())


def _pieces(start: int, stop: int, length: int) -> list[tuple[int, int]]:
    """A text's tokens as pieces of at most `length`; a last one of a single token, which nothing foretells, is left."""
    return [(a, min(a + length, stop)) for a in range(start, stop, length) if min(a + length, stop) - a > 1]


def evaluate(model: Any, study: Study, prepared: Path) -> dict[str, float]:
    """Perplexity (its logarithm is nats per token) of the held-out text, and each file's multiple choice.

    A text that is longer than a sequence is scored piece by piece.
    """
    scores: dict[str, float] = {}
    meta = read_meta(prepared)
    if meta["held_out"]:
        offsets = np.load(prepared / "eval-offsets.npy")
        stream = np.memmap(prepared / "eval-tokens.bin", np.int32, "r")
        ends = list(pairwise(offsets.tolist()))
        rows = judged_rows(np.diff(offsets) > 0).tolist()
        spans = [span for row in rows for span in _pieces(ends[row][0], ends[row][1], meta["length"])]
        texts = [np.asarray(stream[a:b]) for a, b in spans]
        total = log_likelihoods(model, texts, [1] * len(texts)).sum()
        mean = -float(total) / sum(len(t) - 1 for t in texts)
        scores |= {"log_perplexity": mean, "perplexity": math.exp(min(mean, 700))}
    for name in study.evaluation.benchmarks:
        with np.load(prepared / f"choices-{name}.npz") as file:
            saved = judged_questions(name, dict(file))
        texts = [row[:size] for row, size in zip(saved["ids"], saved["sizes"].tolist(), strict=True)]
        scores |= measure(name, log_likelihoods(model, texts, saved["starts"].tolist()), saved)
    return scores


def save_model(model: Any, _study: Study, prepared: Path, folder: Path) -> None:
    """The model with its tokenizer."""
    save(model, folder, sorted((prepared / "tokenizer").iterdir()))


def sample(study: Study, prepared: Path) -> tuple[NDArray[np.int64], float]:
    """Rows with text; a step is worth rows of average length."""
    rows = np.flatnonzero(np.diff(np.load(prepared / "train-offsets.npy")) > 0)
    batch = study.train.batch_size
    return rows[: 64 * batch], batch / sequences(read_meta(prepared), 1_000_000) * 1e6


def _questions(study: Study, folder: Path) -> dict[str, Sifted[Question]]:
    """The questions of each file of evaluation.benchmarks. Raises: DataError."""
    files = study.evaluation.benchmarks.items()
    return {name: read_questions(name, resolve(folder, path), study.dataset.max_bad) for name, path in files}


class LmTask(TrainingTask):
    """See the module."""

    traits = Traits(
        holds_back=True,
        version=1,
        presets=tuple(PRESETS),
        spreads=True,
        needs=("dataset.text",),
        uses=frozenset({"evaluation.benchmarks", "model.checkpoint"}),
        reads_evaluation=frozenset({"text"}),
        suits=frozenset({"text"}),
        scores="model_loss",
        demo="engine.demo.text",
    )
    training = Training(build_model, train, evaluate, save_model, sample=sample, shell=shell)

    def lacks(self, study: Study) -> str | None:
        """Something to be judged by."""
        if study.evaluation.path is None and not study.evaluation.benchmarks:
            return "task lm needs evaluation.path, text that is never trained on, or evaluation.benchmarks"
        return None

    def metrics(self, study: Study, prepared: Path) -> list[Metric]:
        """Perplexity of held-out text; accuracy and likelihood of each multiple-choice file."""
        meta = read_meta(prepared)
        found = []
        if meta["held_out"]:
            found += [
                Metric("log_perplexity", False, 0, math.log(meta["vocabulary"])),
                Metric("perplexity", False, 1, meta["vocabulary"], main=False),
            ]
        for name in study.evaluation.benchmarks:
            found += [
                Metric(f"{name}_accuracy", True, 0, 1),
                Metric(f"{name}_accuracy_norm", True, 0, 1, main=False),
                Metric(f"{name}_likelihood", True, 0, 1),
            ]
        return found

    def kept(self, study: Study, folder: Path) -> Kept | None:
        """See Task."""
        source = checkpoint_of(study, folder)
        return of_shapes(shapes_in(source), study) if source else of_preset("lm", study)

    def judged_by(self, study: Study, folder: Path) -> list[Judged]:
        """The questions of each file."""
        files = study.evaluation.benchmarks.items()
        return [judged(name, resolve(folder, path), study.dataset.max_bad) for name, path in files]

    def inputs(self, study: Study, folder: Path, _prepared: Path) -> list[Accounting]:
        """The questions of each file, and the checkpoint's tensors."""
        checkpoint = checkpoint_of(study, folder)
        asked = [questions.accounting for questions in _questions(study, folder).values()]
        return [*asked, *accounted(folder, [weights_of(checkpoint)] if checkpoint else [])]

    def prepare(
        self, study: Study, folder: Path, train: Rows, evaluation: Rows | None, _workers: int, progress: Progress | None
    ) -> Path:
        """Train or load the tokenizer, and encode both texts and the questions, once per study."""
        checkpoint, length = _shape(study, folder)
        if checkpoint:
            accounted(folder, [weights_of(checkpoint)])
        files = {name: resolve(folder, path) for name, path in study.evaluation.benchmarks.items()}
        questions = _questions(study, folder)
        key = content_id([
            1, train.data.fingerprint, train.data.key, evaluation and evaluation.data.fingerprint,
            {name: content_hash(file) for name, file in files.items()}, length,
            content_hash(checkpoint) if checkpoint else study.model.preset,
        ])  # fmt: skip

        def make(target: Path) -> dict[str, Any]:
            train.share(target, ["tokenizer.json"])
            tokenizer = _tokenizer(study, checkpoint, train, target)
            meta, encode = _tokens(tokenizer, checkpoint)
            first, last = [meta["bos"]], [] if meta["eos"] == meta["bos"] else [meta["eos"]]
            rows, tokens = _cache(train, encode, first, last, target, "train", progress)
            if evaluation is not None:
                held_rows, _ = _cache(evaluation, encode, first, last, target, "eval", None)
                if not held_rows:
                    raise DataError(f"{evaluation.data.path} has no text to judge by; give rows with text")
            for name, asked in questions.items():
                arrays: dict[str, Any] = encode_questions(asked, encode, meta["bos"], length)
                save_arrays(target / f"choices-{name}.npz", **arrays)
            return {
                **meta, "length": length, "tokens_per_row": tokens / max(1, rows), "held_out": evaluation is not None,
            }  # fmt: skip

        return make_caches(folder, f"lm-{key}", make)

    def score(self, study: Study, prepared: Path, checkpoint: str) -> NDArray[np.float64]:
        """Nats per token of every row; a row that is longer than a sequence is scored piece by piece."""
        meta = read_meta(prepared)
        model = build_model(study, prepared, 0, checkpoint)
        offsets = np.load(prepared / "train-offsets.npy")
        stream = np.memmap(prepared / "train-tokens.bin", np.int32, "r")
        total, counted = np.zeros(len(offsets) - 1), np.zeros(len(offsets) - 1)
        for first in range(0, len(total), SCORED):
            rows = range(first, min(first + SCORED, len(total)))
            pieces = [
                (row, a, b) for row in rows
                for a, b in _pieces(int(offsets[row]), int(offsets[row + 1]), meta["length"])
            ]  # fmt: skip
            texts = [np.asarray(stream[a:b]) for _, a, b in pieces]
            told = log_likelihoods(model, texts, [1] * len(texts))
            at = np.array([row for row, _, _ in pieces], np.int64)
            np.add.at(total, at, -told)
            np.add.at(counted, at, [len(t) - 1 for t in texts])
        found: NDArray[np.float64] = np.divide(total, counted, out=np.full(len(total), np.nan), where=counted > 0)
        return found


TASK = LmTask()
