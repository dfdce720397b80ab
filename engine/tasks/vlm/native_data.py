"""What tasks `vlm` and `caption` make once per study for a checkpoint that brings its processor.

Rows, instructions and questions are written as conversations, one by one; images stay where they are. Their headers say
how many tokens they will be, so that what does not fit the model is told before anything is trained.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from engine.base import machine
from engine.base.durable import checksum, write_text
from engine.base.errors import DataError
from engine.data.conversations import Conversation
from engine.data.dataset import as_list, utf8
from engine.data.readers.contract import Row
from engine.data.sift import Sieve, Sifted, Unusable
from engine.records.accounting import Accounting
from engine.tasks.contract import Progress, Rows
from engine.tasks.shared.media import (
    ROW,
    entry_of,
    in_order,
    place_of,
    run_rows,
    source_entry,
    whence_of,
    why,
    write_sources,
)
from engine.tasks.shared.tokens import captions
from engine.tasks.vlm.benchmarks import Question
from engine.tasks.vlm.chat import MARK, Chat, Talk, chat_of
from engine.tasks.vlm.evaluation import Asked
from engine.tasks.vlm.inner import Inner
from engine.tasks.vlm.instructions import Instructions
from engine.tasks.vlm.talks import Originals, Pictures, as_bytes, size_of, write_talks

CHUNK = 500  # rows of a job
LENGTH = 256  # tokens of a caption
TALK = 2048  # tokens of a conversation's text, as LLaVA has it
ANSWER = 64  # tokens that are kept free for an answer
Entry = tuple[bytes, list[bytes]]  # a conversation as it is kept, and where its images lie


def cache_rows(
    rows: Rows, chat: Chat, prompt: str, target: Path, name: str, workers: int, progress: Progress | None = None
) -> None:
    """Write the rows as conversations: all their images and the prompt, and the caption as its answer.

    Raises: Unreadable for rows whose images cannot be read, or that are too long for the model.
    """
    fields = rows.data.fields
    jobs = [(replace(rows, good=rows.good[a:b]), chat.source, prompt, a, b) for a, b in rows.data.chunks(CHUNK)]
    found = (entry for part, _ in in_order(run_rows(rows, jobs, _rows, workers, progress)) for entry in part)
    write_talks(target, name, found, lambda: whence_of(rows.data, rows.root, fields.images))


def _rows(job: tuple[Rows, Path, str, int, int]) -> tuple[int, int, list[Entry], int, dict[int, str]]:
    """One chunk; runs in a worker process."""
    rows, source, prompt, start, stop = job
    chat, fields = chat_of(source), rows.data.fields
    assert fields.images and fields.text
    made: list[Entry] = []
    unreadable = dict[int, str]()
    for number, row in enumerate(rows.data.reader.read(start, stop, [fields.images, fields.text]), start):
        made.append((b"", []))
        if not rows.good[number - start]:
            continue
        try:
            values = as_list(row[fields.images])
            sizes = [size_of(place_of(rows, value)) for value in values]
            answer = chat.shorten(chat.clean(utf8(row[fields.text])), LENGTH)
            talk = Talk(((MARK * len(values) + prompt, answer),))
            _refuse_long(chat, talk, sizes)
            made[-1] = as_bytes(talk), [_entry(value, number, fields.images, at) for at, value in enumerate(values)]
        except (OSError, ValueError) as error:
            machine.refuse(error, f"{rows.data.path}, row {number}")
            unreadable[number] = why(error)
    return start, stop, made, 0, unreadable


def _refuse_long(chat: Chat, talk: Talk, sizes: list[tuple[int, int]]) -> None:
    """Raises: ValueError when a conversation is longer than the model takes. sizes: of its images."""
    if (tokens := chat.count(talk) + sum(chat.image_tokens(sizes))) > chat.most:
        raise ValueError(f"too long: {tokens} tokens with its images, the model takes {chat.most}")


def _entry(value: Any, number: int, field: str, at: int) -> bytes:
    entry = entry_of(value)
    return ROW + json.dumps([number, field, at], allow_nan=False).encode() if entry == ROW else entry


def cache_references(evaluation: Rows, chat: Chat, prompt: str, target: Path, workers: int) -> None:
    """Write the evaluation rows as one question for each image (or group of them), whose answers are its captions."""
    cache_rows(evaluation, chat, prompt, target, "caption", workers)
    pictures = Pictures.of_cache(target, "caption")
    said: dict[str, list[str]] = {}
    first: dict[str, int] = {}
    for at, (text, good) in enumerate(zip(captions(evaluation), evaluation.good, strict=True)):
        if good and text.strip():
            seen = checksum(b"".join(f"{i.size}".encode() + i.tobytes() for i in pictures.of(at)))
            said.setdefault(seen, []).append(text.strip())
            first.setdefault(seen, at)
    if not said:
        raise DataError(f"{evaluation.data.path} has no captioned image; give rows with text and images")
    asked = [Asked(at, prompt, tuple(said[seen]), (), "", str(at)) for seen, at in first.items()]
    write_text(target / "caption.json", json.dumps([asdict(q) for q in asked], allow_nan=False))


def cache_instructions(told: Instructions, chat: Chat, max_bad: float, target: Path) -> Accounting:
    """Write instructions as conversations, one by one; what became of the entries.

    Raises: DataError when more than `max_bad` of them are bad.
    """
    sieve = Sieve("instructions", "entries", max_bad)
    cut = 0

    def read(place: str, row: Row) -> list[Entry]:
        nonlocal cut
        found = told.conversation(row)
        images = [told.image(image) for image in found.images]
        try:
            sizes = [size_of(image.read() if isinstance(image, Inner) else image) for image in images]
        except (OSError, ValueError) as error:
            machine.refuse(error, place)
            raise Unusable("unreadable image", f"the image cannot be read ({error})") from error
        places = [image.entry if isinstance(image, Inner) else source_entry(image) for image in images]
        made = []
        for talk in _talks(found, chat):
            short = _shortened(talk, sizes, chat)
            cut += short != talk
            made.append((as_bytes(short), places[: short.marks]))
        return made

    entries = (entry for made in sieve.through(told.rows(), read) for entry in made)
    count = write_talks(target, "instructions", entries, told.whence)
    sieve.refuse()
    if not count:
        raise DataError(f"{told.file} has no question with an image; give instructions with images")
    note = f"{count} conversations" + (f", {cut} of them cut to {TALK} tokens of text" if cut else "")
    return sieve.accounting.noted(note)


def _talks(found: Conversation, chat: Chat) -> list[Talk]:
    """A conversation as the model takes it: as a whole, or each question by itself."""
    turns = [
        (chat.question(asked), chat.clean(reply)) for asked, (_, reply) in zip(found.asked, found.pairs, strict=True)
    ]
    if chat.family.chats:
        return [Talk(tuple(turns), chat.clean(found.system))]
    marks = MARK * len(found.images)
    return [Talk(((marks + asked.replace(MARK, ""), reply),)) for asked, reply in turns]


def _shortened(talk: Talk, sizes: list[tuple[int, int]], chat: Chat) -> Talk:
    """The first turns of a conversation that fit, the answer of the first one cut. Raises: Unusable."""
    while (tokens := chat.count(talk)) > (most := min(TALK, chat.most - sum(chat.image_tokens(sizes[: talk.marks])))):
        if len(talk.turns) > 1:
            talk = replace(talk, turns=talk.turns[:-1])
            continue
        ((asked, reply),) = talk.turns
        room = most - chat.count(replace(talk, turns=((asked, ""),)))
        if room < 1:
            raise Unusable("question too long", f"a question of {tokens} tokens; {most} fit, shorten it")
        shorter = chat.shorten(reply, min(room, len(reply) - 1))
        talk = replace(talk, turns=((asked, shorter if shorter != reply else ""),))
    return talk


def cache_questions(asked: Sifted[Question], chat: Chat, max_bad: float, target: Path, name: str) -> Sifted[Question]:
    """Write a benchmark's questions and where their images lie; those that can be asked."""
    numbers = {
        source: at
        for at, source in enumerate(dict.fromkeys(q.image for q in asked))
        if not isinstance(source, Inner)  # of instructions only
    }
    broken, sizes = dict[Any, str](), dict[Any, tuple[int, int]]()
    for image in numbers:
        try:
            sizes[image] = size_of(image)
        except (OSError, ValueError) as error:
            machine.refuse(error, f"benchmark {name}, an image")
            broken[image] = f"the image cannot be read ({error})"
    write_sources(target, f"{name}-images", map(source_entry, numbers), Originals(), "exact", name)
    said = {q.place: f"{q.place}: {broken[q.image]}" for q in asked if q.image in broken}
    found = asked.without([q for q in asked if q.image not in broken], "unreadable image", list(said.values()), max_bad)
    long = {}
    for question in found:
        tokens = chat.count(Talk(((MARK + question.text, ""),))) + sum(chat.image_tokens([sizes[question.image]]))
        if tokens > chat.most - ANSWER:
            long[question.place] = f"{question.place}: {tokens} tokens with its image, the model takes {chat.most}"
    kept = [question for question in found if question.place not in long]
    found = found.without(kept, "question too long", list(long.values()), max_bad)
    places: dict[Any, int] = dict(numbers)
    written = [Asked(places[q.image], q.text, q.answers, q.options, q.group, q.item) for q in found]
    write_text(target / f"{name}.json", json.dumps([asdict(q) for q in written], allow_nan=False))
    return found
