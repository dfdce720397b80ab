"""Conversations in the forms that data sets have: who says what by its role, and the images that belong to it.

`messages` (role, content), `conversations` (from, value) and plain `question` and `answer` are read here by every
reader. A content may be a list of parts, of text or of an image. `image` or `images` name one or a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.data.readers.contract import BROKEN, as_list
from engine.data.sift import Unusable

IMAGE_MARK = "<image>"
ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
    "system": "system",
}  # fmt: skip
FORMS = "question and answer, conversations (from, value) or messages (role, content)"


@dataclass(frozen=True)
class Conversation:
    """pairs: (question, answer) of each turn of a person and its reply, without marks of images; what a system says
    stands before the first question. images: as the entry names them, in order. asked: the questions with a mark for
    each image, where the entry has it; what has no mark stands before the first question. system: what a system says.
    """

    pairs: tuple[tuple[str, str], ...]
    images: tuple[Any, ...]
    asked: tuple[str, ...] = ()
    system: str = ""


def read_conversation(entry: Any) -> Conversation:
    """Who says what in an entry. Raises: Unusable."""
    if not isinstance(entry, dict):
        raise Unusable("not a JSON object")
    if BROKEN in entry:
        raise Unusable("not JSON", str(entry[BROKEN]))
    images = [image for name in ("image", "images") for image in as_list(entry.get(name))]
    forms = [name for name in ("conversations", "messages", "question") if entry.get(name) is not None]
    if len(forms) != 1:
        told = "in several forms at once" if forms else f"none of {FORMS}"
        raise Unusable("no conversation" if not forms else "several forms", f"it is {told}")
    if forms == ["question"]:
        turns = [("user", entry["question"]), ("assistant", entry.get("answer"))]
    else:
        turns = _turns(entry[forms[0]])
    said, marks, asked, system = [], 0, [], ""
    for role, content in turns:
        text, marked, shown = _content(content, role)
        images += shown
        marks += text.count(IMAGE_MARK)
        said.append((role, text.replace(IMAGE_MARK, "").strip()))
        if role == "user":
            asked.append(marked)
        elif role == "system":
            system = system or said[-1][1]
    if images and marks > len(images):
        raise Unusable("missing image", f"it marks {marks} images and names {len(images)}")
    pairs = _pairs(said)
    return Conversation(pairs, tuple(images), _marked(asked, len(images)), system)


def _marked(asked: list[str], images: int) -> tuple[str, ...]:
    """Questions with as many marks as there are images; those that lack one come first."""
    marks = sum(question.count(IMAGE_MARK) for question in asked)
    if marks > images:
        asked, marks = [question.replace(IMAGE_MARK, "").strip() for question in asked], 0
    return (IMAGE_MARK * (images - marks) + asked[0], *asked[1:])


def _turns(listed: Any) -> list[tuple[str, Any]]:
    """(role, content) of every turn."""
    if not isinstance(listed, list) or not all(isinstance(turn, dict) for turn in listed):
        raise Unusable("no conversation", "its turns are no list of objects")
    turns = []
    for turn in listed:
        name = turn.get("from", turn.get("role"))
        role = ROLES.get(name.lower()) if isinstance(name, str) else None
        if role is None:
            raise Unusable("unknown role", f"the role {str(name)[:40]!r} is none of {', '.join(ROLES)}")
        turns.append((role, turn.get("value", turn.get("content"))))
    return turns


def _content(content: Any, role: str) -> tuple[str, str, list[Any]]:
    """(text, the same with marks where its parts are images, images) of what one says."""
    what = {"user": "question", "assistant": "answer", "system": "system text"}[role]
    if not isinstance(content, list):
        return (text := text_of(content, what)), text, []
    texts, marked, images = list[str](), list[str](), list[Any]()
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            texts.append(text_of(part.get("text"), what))
            marked.append(texts[-1])
        elif kind in ("image", "image_url"):
            value = part.get(kind, part.get("image", part.get("path", part.get("url"))))
            more = as_list(value.get("url") if isinstance(value, dict) and "url" in value else value)
            marked.append(IMAGE_MARK * len(more))
            images += more
        else:
            raise Unusable(
                "unknown part", f"a part of the {what} is of type {str(kind)[:40]!r}; text and image are read"
            )
    return "\n".join(texts) if images else text_of("\n".join(texts), what), "\n".join(marked), images


def text_of(value: Any, what: str) -> str:
    """A text or a number as text. Raises: Unusable where it is null, empty, or of another type."""
    if value is None:
        raise Unusable(f"null {what}", f"the {what} is null")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Unusable(f"{what} of a wrong type", f"the {what} is {type(value).__name__}, not a text")
    text = str(value)
    if not text.strip():
        raise Unusable(f"empty {what}", f"the {what} is empty")
    return text


def _pairs(said: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Questions with their replies, by role."""
    before = ""
    if said and said[0][0] == "system":
        before = said[0][1] + "\n"
        said = said[1:]
    roles = [role for role, _ in said]
    if not roles or len(roles) % 2 or roles != ["user", "assistant"] * (len(roles) // 2):
        raise Unusable("roles out of turn", f"after {', '.join(roles) or 'nothing'} each question lacks its own answer")
    texts = [text for _, text in said]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    return ((before + pairs[0][0], pairs[0][1]), *pairs[1:])
