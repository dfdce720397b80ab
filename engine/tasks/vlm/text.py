"""Text of the image-to-text models as token ids: captions, questions, answers, and the place of the image.

A row is a head that all rows share (what stands before the image, and the image's tokens) and its own text: what
stands after the image, then the answer. The head is written once, in meta.json; files hold the rows' own text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import StudyError
from engine.tasks.shared.checkpoints import load_tokenizer
from engine.tasks.shared.tokens import BOS, EOS, PAD, byte_level_bpe
from engine.tasks.vlm.model import IMAGE_TOKEN, NO_LABEL, image_shape

NONE = -1  # fills a row behind its end
SPECIAL_TOKENS = ("<pad>", "<bos>", "<unk>", "<eos>", IMAGE_TOKEN)  # their ids are PAD, BOS, 2, EOS, IMAGE_ID

# a checkpoint's own template comes first; these are of presets, and of LLaVA 1.5, whose older folders hide theirs
TINY_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{{ '\n' }}{% endfor %}"
)
LLAVA_TEMPLATE = (
    "{% for m in messages %}{{ 'USER: ' if m['role'] == 'user' else 'ASSISTANT: ' }}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{{ '\n' }}{% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
_MARKS = re.compile(r"<__dj__\w+>|<\|__dj__\w+\|>|" + IMAGE_TOKEN)


def train_base_tokenizer(texts: Iterator[str], vocabulary: int, folder: Path) -> None:
    """A lower-casing byte-level BPE of at most `vocabulary` tokens, written where a base model goes."""
    from transformers import PreTrainedTokenizerFast

    made: Any = PreTrainedTokenizerFast
    fast = made(
        tokenizer_object=byte_level_bpe(texts, vocabulary, SPECIAL_TOKENS), pad_token="<pad>", bos_token="<bos>",
        eos_token="<eos>", unk_token="<unk>", chat_template=TINY_TEMPLATE,
    )  # fmt: skip
    assert (fast.pad_token_id, fast.bos_token_id, fast.eos_token_id) == (PAD, BOS, EOS)
    fast.save_pretrained(folder)


def plain(text: str) -> str:
    """A caption without the marks of images and of Data-Juicer."""
    return _MARKS.sub("", text).strip()


@dataclass(frozen=True)
class Encoder:
    """From texts to ids, as one checkpoint wants them.

    head: ids before a question's own text, the image's tokens among them. caption_head: the same before a bare caption.
    mark: the image token as text, as the chat template writes it.
    """

    tokenizer: Any
    head: tuple[int, ...]
    caption_head: tuple[int, ...]
    mark: str

    @classmethod
    def of(cls, source: Path, config: dict[str, Any]) -> Encoder:
        """That of a checkpoint's folder with this config.json. Raises: StudyError."""
        tokenizer = load_tokenizer(source)
        image = config.get("image_token_id", config.get("image_token_index"))
        mark = tokenizer.convert_ids_to_tokens(image) if image is not None else None
        if mark is None:
            raise StudyError(f"{source}: its tokenizer does not know the image token {image} of config.json")
        if tokenizer.chat_template is None:
            tokenizer.chat_template = LLAVA_TEMPLATE
        assert image is not None
        tokens: list[int] = [image] * image_shape(config)[1]
        if config["model_type"] == "internvl":  # as its processor does
            around = tokenizer.convert_tokens_to_ids(["<img>", "</img>"])
            if None in around or tokenizer.unk_token_id in around:
                raise StudyError(
                    f"{source}: its tokenizer lacks <img> or </img>; copy InternVL's tokenizer files there"
                )
            tokens = [around[0], *tokens, around[1]]
        start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
        draft = cls(tokenizer, (), (*start, *tokens), mark)
        before, _ = draft._split("x")
        return cls(tokenizer, (*draft._ids(before, first=True), *tokens), draft.caption_head, mark)

    def _split(self, question: str) -> tuple[str, str]:
        """What the template puts before and after the image."""
        question = question.replace(self.mark, "").strip()
        content: Any = [{"type": "image"}, {"type": "text", "text": question}]
        asked = [{"role": "user", "content": content}]
        text = self.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        if text.count(self.mark) != 1:  # a template for text only: the image goes first, as LLaVA has it
            asked = [{"role": "user", "content": question}]
            text = self.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
            before, found, after = text.partition(question)
            if not found:
                raise StudyError(
                    "the tokenizer's chat template drops the question; give the model's own tokenizer files"
                )
            return before, f"\n{found}{after}"
        before, after = text.split(self.mark)
        return before, after

    def _ids(self, text: str, first: bool = False) -> list[int]:
        """Ids of a piece of text; special tokens are added before the first unless it names them."""
        bos = self.tokenizer.bos_token
        add = first and not (bos and text.startswith(bos))
        start = [self.tokenizer.bos_token_id] if add and self.tokenizer.bos_token_id is not None else []
        return [*start, *(self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else [])]

    def question(self, text: str) -> list[int]:
        """What stands after the image, up to where the answer begins."""
        return self._ids(self._split(text)[1])

    def answer(self, text: str) -> list[int]:
        """The answer, without an end."""
        return self._ids(text)

    @property
    def pad(self) -> int:
        """The id that fills up; the mask hides it."""
        return int(self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.end)

    @property
    def end(self) -> int:
        """The id that ends an answer."""
        return int(self.tokenizer.eos_token_id)

    def captions(self, texts: list[str], length: int, prompt: str | None) -> NDArray[np.int32]:
        """(texts, length) rows of bare captions, or of answers to one prompt; NONE behind the end."""
        asked = [] if prompt is None else self.question(prompt)
        out = np.full((len(texts), length), NONE, np.int32)
        for row, text in zip(out, texts, strict=True):
            ids = [*asked, *self.answer(plain(text))[: max(0, length - len(asked) - 1)], self.end][:length]
            row[: len(ids)] = ids
        return out


def collate(
    tokens: NDArray[np.int64], starts: NDArray[np.int64], head: NDArray[np.int64], pad: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(ids, mask, labels) of a batch: ids and mask (rows, head + text), labels (rows, text), cut to its longest row.

    tokens: (rows, length) own text, NONE behind its end. starts: (rows,) where the answer begins.
    """
    width = max(1, int((tokens != NONE).sum(1).max()))
    tokens = tokens[:, :width]
    there = tokens != NONE
    ids = np.concatenate([np.broadcast_to(head, (len(tokens), len(head))), np.where(there, tokens, pad)], 1)
    mask = np.concatenate([np.ones((len(tokens), len(head)), bool), there], 1)
    learned = there & (np.arange(width) >= starts[:, None])
    return ids, mask.astype(np.int64), np.where(learned, tokens, NO_LABEL)
