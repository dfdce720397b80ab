"""Texts as token ids: a byte-level BPE trained on the study's own captions, or a checkpoint's tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.arrays import new_array
from engine.base.durable import is_whole, written_whole
from engine.data.dataset import utf8
from engine.tasks.contract import Rows

# 2 is no end of text: for that id transformers pools at the largest token instead (its legacy CLIP tokenizers)
PAD, BOS, EOS = 0, 1, 3
SPECIAL_TOKENS = ("<pad>", "<bos>", "<unk>", "<eos>")
TRAINING_TEXTS = 200_000
Encode = Callable[[list[str]], NDArray[np.int32]]  # (texts, length) ids


def captions(rows: Rows) -> Iterator[str]:
    """The text of every row; empty where the row is quarantined."""
    data, field = rows.data, rows.data.fields.text or ""
    for start, stop in data.chunks(4096):
        for row, ok in zip(data.reader.read(start, stop), rows.good[start:stop], strict=True):
            yield utf8(row[field]) if ok else ""


def train_tokenizer(rows: Rows, vocabulary: int, file: Path, lower: bool = True) -> None:
    """Write `file`, unless it is there: a byte-level BPE of at most `vocabulary` tokens from the first good texts.

    lower: it takes capitals for small.
    """
    if not is_whole(file):
        with written_whole(file) as scratch:
            byte_level_bpe(captions(rows), vocabulary, lower=lower).save(str(scratch))


def byte_level_bpe(
    texts: Iterator[str], vocabulary: int, special: Sequence[str] = SPECIAL_TOKENS, lower: bool = True
) -> Any:
    """A `tokenizers` Tokenizer of at most `vocabulary` tokens from the first texts; the special ones come first."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    steps = [normalizers.NFC(), normalizers.Lowercase()] if lower else [normalizers.NFC()]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(special), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    known = (t for t, _ in zip(filter(None, texts), range(TRAINING_TEXTS), strict=False))
    tokenizer.train_from_iterator(known, trainer)
    return tokenizer


def load_encoder(folder: Path, length: int) -> Encode:
    """A function from a list of texts to (texts, length) int32 ids, padded and cut to `length`.

    folder: with the tokenizer.json of `train_tokenizer`.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(texts: list[str]) -> NDArray[np.int32]:
        out = np.full((len(texts), length), PAD, np.int32)
        for row, encoding in zip(out, tokenizer.encode_batch(texts), strict=True):
            ids = [BOS, *encoding.ids[: length - 2], EOS]
            row[: len(ids)] = ids
        return out

    return encode


def is_bare(folder: Path) -> bool:
    """True for a checkpoint whose tokenizer.json is one of `train_tokenizer`, with nothing that says how it is used."""
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if (folder / "tokenizer_config.json").exists() or not file.exists():
        return False
    tokenizer = Tokenizer.from_file(str(file))
    return [tokenizer.id_to_token(i) for i in range(len(SPECIAL_TOKENS))] == list(SPECIAL_TOKENS)


def save_tokenizer(file: Path, length: int, folder: Path) -> None:
    """Write the tokenizer of `train_tokenizer` as `AutoTokenizer` reads it, with the same ids as `load_encoder`'s."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    pad, bos, unknown, eos = SPECIAL_TOKENS
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.post_processor = TemplateProcessing(single=f"{bos} $A {eos}", special_tokens=[(bos, BOS), (eos, EOS)])
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token=pad, bos_token=bos, unk_token=unknown, eos_token=eos,
        model_max_length=length, padding_side="right",
    ).save_pretrained(folder)  # fmt: skip


def cache_tokens(rows: Rows, encode: Encode, length: int, file: Path) -> None:
    """Write `file`: (rows, length) int32 token ids of every row's caption."""
    if is_whole(file):
        return
    with written_whole(file) as scratch:
        cache = new_array(scratch, np.int32, (len(rows.data), length))
        texts = captions(rows)
        for start, stop in rows.data.chunks(4096):
            cache[start:stop] = encode([next(texts) for _ in range(start, stop)])
        cache.flush()
