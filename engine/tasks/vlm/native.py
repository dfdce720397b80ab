"""Training and judging a checkpoint by its own processor: batches are what it makes of conversations and images."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.base import machine
from engine.base.errors import DataError, StudyError
from engine.base.parallel import crew
from engine.tasks.shared.batches import prefetched, to_device
from engine.tasks.shared.packed import readers
from engine.tasks.shared.procedure import autocast
from engine.tasks.shared.sharded import pieces, ranks, summed
from engine.tasks.vlm.chat import MARK, Chat, Talk, chat_of
from engine.tasks.vlm.model import NO_LABEL
from engine.tasks.vlm.talks import Talks

if TYPE_CHECKING:
    import torch
    from PIL import Image

Part = dict[str, Any]  # what the model takes, and `labels`
FIRST = "first_learned"  # of a part: a number
AT_ONCE = 8  # conversations that are judged at once, unless train.micro_batch says so
AHEAD = 3  # batches that processes beside a GPU make ahead of it


@dataclass(frozen=True)
class Told:
    """Conversations to learn from. source: the checkpoint's folder."""

    source: Path
    prepared: Path
    name: str

    def __len__(self) -> int:
        return len(_talks(self.prepared, self.name))

    def inputs(self, order: Iterator[NDArray[np.int64]], device: torch.device, micro: int) -> Iterator[list[Part]]:
        """The batches of row numbers as parts of `micro` rows on the device; of several devices this one's share."""

        def moved(part: Part) -> Part:
            tensors = {name: to_device(value, device) for name, value in part.items()}
            return {**tensors, FIRST: first_learned(part["labels"])}

        return prefetched(([moved(part) for part in parts] for parts in self._ahead(order, micro)), device)

    def backward(self, model: Any, _micro: int) -> Callable[[list[Part]], torch.Tensor]:
        """Leaves the gradients of a batch's mean loss over its answers' tokens."""

        import torch

        def run(parts: list[Part]) -> torch.Tensor:
            device = next(model.parameters()).device
            own = torch.stack([(part["labels"] != NO_LABEL).sum() for part in parts]).sum()
            words = own.clamp(min=1) if ranks() == 1 else max(1.0, summed(float(own)))  # alone nothing waits for it
            total = torch.zeros((), dtype=torch.float64, device=device)
            for part in parts:
                with autocast(device, keep=False):
                    loss = part_losses(model, part)[0].sum() / words
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
            return total

        return run

    def _ahead(self, order: Iterator[NDArray[np.int64]], micro: int) -> Iterator[list[Part]]:
        """Batches as NumPy arrays; beside a GPU, processes make them ahead."""
        count = readers()
        window: deque[list[tuple[NDArray[np.int64], Future[Part] | None]]] = deque()
        for rows in order:
            some = [rows[at] for at in pieces(len(rows), micro)]
            window.append([(part, self._ask(part, count) if count else None) for part in some])
            if len(window) > (AHEAD if count else 0):
                yield [self._arrived(*part) for part in window.popleft()]
        while window:
            yield [self._arrived(*part) for part in window.popleft()]

    def _ask(self, rows: NDArray[np.int64], count: int) -> Future[Part]:
        try:
            return _crew(count).submit(make_part, self, rows)
        except BrokenProcessPool:
            _crew.cache_clear()
            return _crew(count).submit(make_part, self, rows)

    def _arrived(self, rows: NDArray[np.int64], coming: Future[Part] | None) -> Part:
        """What was asked for. That of a process that was killed is made by this one."""
        try:
            return coming.result() if coming else make_part(self, rows)
        except BrokenProcessPool:
            _crew.cache_clear()
            return make_part(self, rows)


@lru_cache(maxsize=1)
def _crew(count: int) -> ProcessPoolExecutor:
    return crew(count, [__name__, "torch", "transformers"])


@lru_cache(maxsize=4)
def _talks(prepared: Path, name: str) -> Talks:
    return Talks(prepared, name)


def make_part(told: Told, rows: NDArray[np.int64]) -> Part:
    """What the processor makes of the rows, as NumPy arrays. Raises: DataError that names what cannot be read."""
    chat, talks = chat_of(told.source), _talks(told.prepared, told.name)
    pictures = []
    for row in rows.tolist():
        try:
            pictures.append(talks.pictures.of(row))
        except (OSError, ValueError) as error:
            machine.refuse(error, f"{told.name}, row {row}")
            text = " ".join(str(error).split())[:300]
            raise DataError(f"{told.name}, row {row}: {text}; mend it, or take the row out") from error
    made = chat.examples([talks[row] for row in rows.tolist()], pictures)
    return {name: value.numpy() for name, value in made.items()}


def first_learned(labels: NDArray[np.int64]) -> int:
    """The first place of (rows, tokens) at which a row has something to learn. On the host: a device would be waited
    for.
    """
    learned = np.flatnonzero((labels != NO_LABEL).any(0))
    return max(1, int(learned[0]) if len(learned) else labels.shape[1] - 1)


def part_losses(model: Any, part: Part) -> tuple[torch.Tensor, torch.Tensor]:
    """((rows, text) cross-entropy of every token, 0 where the label is none, in float32; its labels)."""
    from torch.nn import functional

    start = part.get(FIRST) or first_learned(part["labels"].cpu().numpy())
    labels = part["labels"][:, start:]
    given = {name: value for name, value in part.items() if name not in ("labels", FIRST)}
    logits = model(**given, logits_to_keep=labels.shape[1] + 1, use_cache=False).logits[:, :-1]
    losses = functional.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=NO_LABEL, reduction="none")
    return losses, labels


@dataclass(frozen=True)
class NativeJudge:
    """A model with its processor. rows: conversations at once."""

    model: Any
    chat: Chat
    rows: int = AT_ONCE

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def _parts(self, count: int) -> Iterator[slice]:
        return (slice(at, at + self.rows) for at in range(0, count, self.rows))

    def _on_device(self, made: Part) -> Part:
        first = {FIRST: first_learned(made["labels"].numpy())} if "labels" in made else {}
        return {name: value.to(self.device) for name, value in made.items()} | first

    def _asked(self, texts: list[str], images: list[list[Image.Image]], begun: Sequence[int] = ()) -> Part:
        questions = [MARK * len(some) + text for text, some in zip(texts, images, strict=True)]
        return self._on_device(self.chat.asked(questions, images, begun))

    def generate(self, texts: list[str], images: list[list[Image.Image]], tokens: int) -> list[str]:
        """See `Judge`."""
        said: list[str] = []
        for at in self._parts(len(texts)):
            made = self._asked(texts[at], images[at])
            with autocast(self.device):
                out = self.model.generate(
                    **made, max_new_tokens=tokens, do_sample=False, pad_token_id=self.chat.pad,
                    eos_token_id=list(self.chat.ends),
                )  # fmt: skip
            own = out[:, made["input_ids"].shape[1] :]
            said += [text.strip() for text in self.chat.tokenizer.batch_decode(own, skip_special_tokens=True)]
        return said

    def choose(
        self, texts: list[str], images: list[list[Image.Image]], options: tuple[str, ...]
    ) -> NDArray[np.float64]:
        """See `Judge`. Raises: StudyError when two options have their first token in common."""
        ids_of = [self.chat.tokenizer(option, add_special_tokens=False)["input_ids"] for option in options]
        same = next((at for at, ids in enumerate(zip(*ids_of, strict=False)) if len(set(ids)) > 1), None)
        begun = ids_of[0][: min(map(len, ids_of)) if same is None else same]
        first = [ids[len(begun)] if len(ids) > len(begun) else self.chat.ends[0] for ids in ids_of]
        if len(set(first)) < len(first):
            raise StudyError(f"the tokenizer begins two of the answers {', '.join(options)} alike; give another model")
        found = []
        for at in self._parts(len(texts)):
            made = self._asked(texts[at], images[at], begun)
            with autocast(self.device):
                logits = self.model(**made, logits_to_keep=1, use_cache=False).logits[:, -1]
            found.append(logits[:, first].double().softmax(-1).cpu().numpy())
        return np.concatenate(found)

    def likelihood(self, texts: list[str], answers: list[str], images: list[list[Image.Image]]) -> NDArray[np.float64]:
        """See `Judge`."""
        found = []
        for at in self._parts(len(texts)):
            told = zip(texts[at], answers[at], images[at], strict=True)
            talks = [Talk(((MARK * len(some) + text, answer),)) for text, answer, some in told]
            made = self._on_device(self.chat.examples(talks, images[at]))
            with autocast(self.device):
                losses, labels = part_losses(self.model, made)
            found.append((-losses.sum(1) / (labels != NO_LABEL).sum(1)).double().exp().cpu().numpy())
        return np.concatenate(found)
