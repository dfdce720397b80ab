"""Conversations with images as one checkpoint's own processor makes them: tiles, native resolution, padding, tokens.

What is learned of a conversation is what the assistant says and the end of it. The chat template's generation spans
say where that is; where it has none, the conversation is rendered turn by turn, and every beginning must agree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import StudyError
from engine.tasks.shared.checkpoints import read_config, whole_config
from engine.tasks.vlm.families import FAMILIES, Family, family_of
from engine.tasks.vlm.model import NO_LABEL
from engine.tasks.vlm.text import LLAVA_TEMPLATE

if TYPE_CHECKING:
    from PIL import Image

MARK = "<image>"  # where an image stands in a question, as data sets write it
CONTEXT = 4096  # tokens of a language model that does not say how many it takes
_SPANS = re.compile(r"\{%-?\s*generation\s*-?%\}")
Pictures = Sequence[Sequence["Image.Image"]]  # of each conversation, in the order of their marks


@dataclass(frozen=True)
class Talk:
    """A conversation. turns: (question with a mark for each image, answer)."""

    turns: tuple[tuple[str, str], ...]
    system: str = ""

    @property
    def marks(self) -> int:
        """How many images it shows."""
        return sum(question.count(MARK) for question, _ in self.turns)

    def messages(self) -> list[dict[str, Any]]:
        """As chat templates take them."""
        said = [{"role": "system", "content": [{"type": "text", "text": self.system}]}] if self.system else []
        for question, answer in self.turns:
            said.append({"role": "user", "content": list(_parts(question))})
            said.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        return said


def _parts(question: str) -> list[dict[str, str]]:
    parts: list[dict[str, str]] = []
    for at, text in enumerate(question.split(MARK)):
        if at:
            parts.append({"type": "image"})
        if text := text.strip("\n"):
            parts.append({"type": "text", "text": text})
    return parts


@dataclass(frozen=True)
class Chat:
    """A checkpoint's processor. source: its folder. config: its config.json."""

    source: Path
    config: dict[str, Any]
    family: Family
    processor: Any

    @classmethod
    def of(cls, source: Path, field: str = "model.checkpoint") -> Chat:
        """That of a checkpoint's folder. Raises: StudyError in one line."""
        config = read_config(source, field, tuple(kind for kind, one in FAMILIES.items() if one.processor))
        family = family_of(config)
        chat = cls(source, config, family, _load(source, family, field))
        chat._check(field)
        return chat

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self.processor.tokenizer

    @cached_property
    def template(self) -> str:
        """Its chat template; LLaVA 1.5's where a LLaVA's older folder hides it."""
        found = self.processor.chat_template or self.tokenizer.chat_template
        if isinstance(found, dict):
            found = found.get("default")
        return found or (LLAVA_TEMPLATE if self.family is FAMILIES["llava"] else "")

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Ids that end what the assistant says."""
        ids = {self.tokenizer.eos_token_id}
        try:
            told = json.loads((self.source / "generation_config.json").read_text(encoding="utf-8"))
            more = told.get("eos_token_id")
            ids |= set(more if isinstance(more, list) else [more])
        except (OSError, ValueError, AttributeError):
            pass  # there is none: the tokenizer says it alone
        return tuple(sorted(one for one in ids if isinstance(one, int)))

    @cached_property
    def pad(self) -> int:
        """The id that fills up; the mask hides it."""
        own = self.tokenizer.pad_token_id
        return int(own if own is not None else self.ends[0])

    @cached_property
    def most(self) -> int:
        """Tokens of a conversation at most, those of its images among them."""
        told = self.config.get("text_config", self.config).get("max_position_embeddings")
        return int(told) if isinstance(told, int) and told > 0 else CONTEXT

    @cached_property
    def _control(self) -> re.Pattern[str]:
        """What no text of a data set may say: marks of images and of turns."""
        own = [getattr(self.processor, name, None) for name in ("image_token", "video_token")]
        words = {*self.tokenizer.all_special_tokens, *filter(None, own), MARK}
        return re.compile(
            "|".join(map(re.escape, sorted(words, key=len, reverse=True))) + r"|<__dj__\w+>|<\|__dj__\w+\|>"
        )

    def clean(self, text: str) -> str:
        """A text of a data set without the checkpoint's own marks, which would be read as images or turns."""
        return self._control.sub("", text).strip()

    def question(self, text: str) -> str:
        """The same of a question, whose images stay."""
        return MARK.join(self._control.sub("", part) for part in text.split(MARK))

    def count(self, talk: Talk) -> int:
        """Tokens of a conversation without those that its images become."""
        return len(self.tokenizer(self._rendered(talk)[0])["input_ids"]) - talk.marks

    def image_tokens(self, sizes: Sequence[tuple[int, int]]) -> list[int]:
        """Tokens that images of (width, height) become. Raises: ValueError for what the processor refuses."""
        if not sizes:
            return []
        count: Any = getattr(self.processor, "_get_num_multimodal_tokens", None)
        if count is not None:
            return [int(n) for n in count([[height, width] for width, height in sizes])["num_image_tokens"]]
        each, of = self.processor.image_seq_len, self.processor.image_processor.get_number_of_image_patches
        line, two = (len(self.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in ("\n", "\n\n"))
        grids = [
            of(height, width)[1:] for width, height in sizes
        ]  # SmolVLM's: rows and columns of tiles, and the whole
        return [each + 3 + rows * (line + columns * (each + 2)) + (two if rows else 0) for rows, columns in grids]

    def shorten(self, text: str, tokens: int) -> str:
        """The first tokens of a text."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return (
            text if len(ids) <= tokens else str(self.tokenizer.decode(ids[:tokens], skip_special_tokens=True)).strip()
        )

    def examples(self, talks: Sequence[Talk], pictures: Pictures) -> dict[str, Any]:
        """The model's inputs with `labels`, NO_LABEL where nothing is to be learned; padded on the right."""
        if not self.family.chats:
            texts = [talk.turns[0] for talk in talks]
            made = self._call([q for q, _ in texts], pictures, "right", suffix=[answer for _, answer in texts])
            made["labels"] = made["labels"].masked_fill(made["attention_mask"] == 0, NO_LABEL)
            return made
        rendered = [self._rendered(talk) for talk in talks]
        made = self._call(
            [text for text, _ in rendered], pictures, "right", return_offsets_mapping=True,
            return_text_replacement_offsets=True,
        )  # fmt: skip
        offsets, moved = made.pop("offset_mapping"), made.pop("text_replacement_offsets", None) or [()] * len(talks)
        made["labels"] = made["input_ids"].new_full(made["input_ids"].shape, NO_LABEL)
        for row, ((_, spans), moves) in enumerate(zip(rendered, moved, strict=True)):
            for start, end in spans:
                start, end = (_moved(place, moves) for place in (start, end))
                at = (offsets[row, :, 0] < end) & (offsets[row, :, 1] > start)
                made["labels"][row][at] = made["input_ids"][row][at]
        return made

    def asked(self, questions: Sequence[str], pictures: Pictures, begun: Sequence[int] = ()) -> dict[str, Any]:
        """The model's inputs up to where the answers begin, and `begun` of these; padded on the left."""
        texts = list(questions)
        if self.family.chats:
            texts = [self._render(Talk(((q, ""),)).messages()[:-1], True)[0] for q in questions]
        made = self._call(texts, pictures, "left")
        made.pop("labels", None)
        return _longer(made, begun) if begun else made

    def _call(self, texts: list[str], pictures: Pictures, side: str, **options: Any) -> dict[str, Any]:
        """What the processor makes of texts with marks. pictures: of each text."""
        if not self.family.chats:
            texts = [MARK * text.count(MARK) + text.replace(MARK, "").strip() for text in texts]
        images = [list(some) for some in pictures]
        extra = {} if self._adds(texts) else {"add_special_tokens": False}
        made = self.processor(
            images=images if any(images) else None, text=texts, padding=True, padding_side=side, return_tensors="pt",
            **extra, **options,
        )  # fmt: skip
        return dict(made)

    def _adds(self, texts: list[str]) -> bool:
        """True when the tokenizer is to begin texts as it does; a template may have done it."""
        bos = self.tokenizer.bos_token
        return not (self.family.chats and bos and texts and texts[0].startswith(bos))

    # -- rendering ---------------------------------------------------------------------------------

    def _rendered(self, talk: Talk) -> tuple[str, list[tuple[int, int]]]:
        """(text, places of what is learned) of a conversation. Raises: StudyError."""
        if not self.family.chats:
            ((question, answer),) = talk.turns
            return f"{question}\n{answer}", []
        said = talk.messages()
        text, spans = self._render(said)
        if spans is None:
            spans = self._by_turns(said, text)
        marks = [self.tokenizer.convert_ids_to_tokens(one) for one in self.ends]
        out, learned, behind = "", [], 0
        for start, end in spans:
            end, has_end = _ended(text, start, end, marks)
            out += text[behind:start]
            begin, behind = len(out), end
            # a template may leave the end out, and the model would never learn to stop
            out += text[start:end] if has_end else text[start:end].rstrip() + self.tokenizer.eos_token
            learned.append((begin, len(out)))
        return out + text[behind:], learned

    def _render(self, said: list[dict[str, Any]], prompt: bool = False) -> tuple[str, list[tuple[int, int]] | None]:
        """(text with image tokens, generation spans; None where the template has none)."""
        from transformers.utils.chat_template_utils import render_jinja_template

        has_spans = bool(_SPANS.search(self.template)) and not prompt
        render: Any = render_jinja_template  # its annotation says less than it gives
        (text,), spans = render(
            conversations=[said], chat_template=self.template, return_assistant_tokens_mask=has_spans,
            add_generation_prompt=prompt, **self.tokenizer.special_tokens_map,
        )  # fmt: skip
        own, marks = self.processor.image_token, sum(p["type"] == "image" for m in said for p in m["content"])
        if text.count(own) != marks:
            raise StudyError(
                f"{self.source}: its chat template makes {text.count(own)} marks of {marks} images; give the model's "
                "own chat_template.jinja"
            )
        return text, ([(int(a), int(b)) for a, b in spans[0]] or None) if has_spans else None

    def _by_turns(self, said: list[dict[str, Any]], text: str) -> list[tuple[int, int]]:
        """Where the answers stand: between a turn's prompt and its end. Raises: StudyError."""
        spans = []
        for at, message in enumerate(said):
            if message["role"] == "assistant":
                asked, told = self._render(said[:at], True)[0], self._render(said[: at + 1])[0]
                if not told.startswith(asked) or not text.startswith(told.rstrip()):
                    raise StudyError(
                        f"{self.source}: its chat template renders the beginning of a conversation otherwise than the "
                        "whole, so that answers cannot be told from questions; give a template with {% generation %}"
                    )
                spans.append((len(asked), min(len(told), len(text))))
        return spans

    def _check(self, field: str) -> None:
        """That template, tokenizer and processor fit the model. Raises: StudyError."""
        told = f"{field}: {self.source}"
        if self.family.chats and not self.template:
            raise StudyError(f"{told} has no chat template; copy its chat_template.jinja there")
        if not self.ends:
            raise StudyError(f"{told}: its tokenizer has no end of text; copy the model's own tokenizer files there")
        text = self.config.get("text_config", self.config)
        words, rows = len(self.tokenizer), text.get("vocab_size", self.config.get("vocab_size"))
        if isinstance(rows, int) and words > rows:
            raise StudyError(
                f"{told}: its tokenizer has {words} tokens, the model {rows}; copy the model's tokenizer files there"
            )
        image = self.config.get("image_token_id", self.config.get("image_token_index"))
        own = self.tokenizer.convert_tokens_to_ids(self.processor.image_token)
        if image is not None and own != image:
            raise StudyError(
                f"{told}: its processor marks images by the token {own}, the model by {image}; copy them again"
            )
        for what, own, model in self._sizes(field):
            if None not in (own, model) and own != model:
                raise StudyError(
                    f"{told}: its processor has {what} {own}, its model {model}; copy the model's processor files there"
                )
        if self.family.chats:
            self._rendered(Talk(((f"{MARK}a", "b"), ("c", "d"))))

    def _sizes(self, field: str) -> Iterator[tuple[str, Any, Any]]:
        """(what, as the processor has it, as the model has it) of all that must agree; None where one has none."""
        config = whole_config(self.source, field)
        seen, pixels = config.vision_config, self.processor.image_processor
        patch, side = (_one(getattr(seen, name, None)) for name in ("patch_size", "image_size"))
        own = getattr(self.processor, "patch_size", None) or getattr(pixels, "patch_size", None)
        yield "patches of", own, patch
        for name, other in (("merge_size", "spatial_merge_size"), ("temporal_patch_size", "temporal_patch_size")):
            yield name, getattr(pixels, name, None), getattr(seen, other, None)
        name = "vision_feature_select_strategy"
        yield name, getattr(self.processor, name, None), getattr(config, name, None)
        if side is None or patch is None:
            return
        yield "images of", _side(pixels), side
        shrink = getattr(config, "downsample_ratio", None) or 1 / (getattr(config, "scale_factor", None) or 1)
        cells = int(side // patch * shrink) ** 2
        names = ("image_seq_length", "image_seq_len", "num_image_tokens")
        each = next((n for n in (getattr(self.processor, name, None) for name in names) if n is not None), None)
        if self.config["model_type"] == "llava":
            cells += getattr(config, "vision_feature_select_strategy", "default") == "full"
            (each,) = self.image_tokens([(side, side)])
        yield "tokens for a square image:", each, cells


def _ended(text: str, start: int, end: int, marks: list[str]) -> tuple[int, bool]:
    """(place behind the mark that ends an answer, True); (its end, False) where it has none."""
    follows = len(text[end:]) - len(text[end:].lstrip())
    for mark in marks:
        if (at := text.find(mark, start, end + follows + len(mark))) >= 0:
            return at + len(mark), True
    return end, False


def _moved(place: int, moves: Sequence[dict[str, Any]]) -> int:
    """A place in a text once the images before it have become tokens."""
    before = [move for move in moves if move["span"][1] <= place]
    return place + (before[-1]["new_span"][1] - before[-1]["span"][1] if before else 0)


def _longer(made: dict[str, Any], begun: Sequence[int]) -> dict[str, Any]:
    """Inputs with some ids behind each row."""
    import torch

    ids = made["input_ids"]
    new = {"input_ids": torch.tensor(begun), "attention_mask": torch.ones(len(begun)), "token_type_ids": torch.ones(1)}
    for name, value in made.items():
        if value.shape == ids.shape and name != "pixel_values":
            tail = new.get(name, torch.zeros(1)).to(value.dtype).expand(len(begun))
            made[name] = torch.cat([value, tail.expand(len(ids), -1)], 1)
    return made


def _one(value: Any) -> Any:
    """The first of a pair that is one number."""
    return value[0] if isinstance(value, list | tuple) else value


def _side(pixels: Any) -> int | None:
    """Pixels of the side of what an image processor gives a tower of one size."""
    for name in ("max_image_size", "crop_size" if getattr(pixels, "do_center_crop", False) else "size", "size"):
        size = dict(getattr(pixels, name, None) or {})
        if found := size.get("height") or (name == "max_image_size" and size.get("longest_edge")):
            return int(found)
    return None


@lru_cache(maxsize=2)
def chat_of(source: Path) -> Chat:
    """That of a folder, once in a process."""
    return Chat.of(source)


def still(kind: Any) -> Any:
    """The class without its part for videos, which wants packages that images do not need."""
    module: Any = import_module(kind.__module__)
    if getattr(module, "num2words", "") is None:
        module.num2words = str  # SmolVLM's, for the number of a video's frames
    parts = kind.get_attributes()

    def arguments(cls: Any, *args: Any, **options: Any) -> list[Any]:
        return [*super(made, cls)._get_arguments_from_pretrained(*args, **options), *[None] * (len(parts) - 2)]

    changes = {
        "get_attributes": classmethod(lambda _: parts[:2]),
        "_get_arguments_from_pretrained": classmethod(arguments),
    }
    made: Any = type(kind.__name__, (kind,), changes)
    return made


def _load(source: Path, family: Family, field: str) -> Any:
    """The processor, by Pillow, so that an image is the same on every machine. Raises: StudyError."""
    import transformers

    kind = still(getattr(transformers, family.processor))
    try:
        return kind.from_pretrained(str(source), local_files_only=True, trust_remote_code=False, backend="pil")
    except Exception as error:  # transformers raises what it happens to meet: OSError, ValueError, TypeError, …
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise StudyError(
            f"{field}: the processor of {source} cannot be read as a {family.processor} ({reason}); copy its "
            "preprocessor and tokenizer files there"
        ) from error
