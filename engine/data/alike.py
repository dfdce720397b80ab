"""How alike rows are: texts by the shingles that they share, images by a perceptual hash and their colours.

What is sought among many rows is small, so that it is indexed and every other row is compared with it: the Jaccard
similarity of shingles is exact where MinHash estimates it. Of an indexed text of n shingles, any text that is like it
has at least one of its few rarest; only texts that have such a one are compared in full.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.data.imagehash import PHash
from engine.data.images import open_image
from engine.settings.data import DedupSection

if TYPE_CHECKING:
    from PIL import Image

Hashes = NDArray[np.uint64]
Colours = NDArray[np.uint8]
Starts = NDArray[np.int64]
# what is looked up, what it is like, and how alike they are, 0 … 1; in order of the first, and of the second
Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]

CANDIDATES = 1000  # texts that share rare shingles with one, at most, that it is compared with
UNSPACED = 8  # characters a word from which on a text has no spaces between its words
BITS = 8  # of 64 in which the hashes of images that are alike differ, at most
SIDE = 8  # pixels of the thumbnail whose colours are compared
SHADES = 8.0  # of 255, that the colours of such images differ on average, at most
ENDS = 1 << 16  # bytes of a video's beginning and end
KNOWN = 200_000  # tokens whose hashes are kept
ROOM = 16  # places of a table for each hash in it
AT_ONCE = 64  # images that are compared with all of nearly their brightness
FACTOR = np.uint64(0x9E3779B97F4A7C15)
_WORD = re.compile(r"\w+")


class _Known(dict[str, int]):
    """Token → hash."""

    def __missing__(self, token: str) -> int:
        found = self[token] = _hash(token)
        return found


_known = _Known()


def shingles(texts: Sequence[str], section: DedupSection) -> tuple[Hashes, Starts]:
    """(hashes of runs of tokens, text after text; (texts + 1,) where each text's begin).

    A text that is shorter than a run has one, of all of it. A long text of hardly any space is compared by its
    characters, whatever the section says.
    """
    if len(_known) > KNOWN:
        _known.clear()
    window, flat, sizes, short = section.window, list[str](), list[int](), dict[int, int]()
    for number, text in enumerate(texts):
        text = text.casefold()
        tokens: Sequence[str] = text.split()
        if section.tokens == "punctuation":
            tokens = _WORD.findall(text)
        if section.tokens == "character" or (len(tokens) < window <= len(text) // UNSPACED):
            tokens = "".join(text.split())
        if len(tokens) < window:
            short[number] = _hash("=" + " ".join(tokens))
        flat.extend(tokens)
        sizes.append(len(tokens))
    hashes = np.zeros(len(flat) + window, np.uint64)
    hashes[: len(flat)] = np.fromiter(map(_known.__getitem__, flat), np.uint64, len(flat))
    runs = np.zeros(len(flat) + 1, np.uint64)
    for at in range(window):
        runs = runs * FACTOR + hashes[at : at + len(runs)]
    ends = np.cumsum([0, *sizes])
    starts = np.cumsum([0, *np.maximum(np.array(sizes, np.int64) - window + 1, 1)]).astype(np.int64)
    places = np.arange(starts[-1]) + np.repeat(ends[:-1] - starts[:-1], np.diff(starts))
    found = runs[places]
    found[starts[list(short)]] = np.fromiter(short.values(), np.uint64, len(short))
    return found, starts


def each_once(hashes: Hashes, starts: Starts) -> tuple[Hashes, Starts]:
    """The same with each hash of a text once, in order."""
    owners = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    order = np.lexsort((hashes, owners))
    hashes, owners = hashes[order], owners[order]
    new = np.ones(len(hashes), bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    sizes = np.bincount(owners[new], minlength=len(starts) - 1)
    return hashes[new], np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def _hash(text: str) -> int:
    content = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def signature(source: bytes | Path) -> tuple[int, Colours]:
    """(hash, colours) of an image. Raises: OSError, ValueError."""
    with open_image(source, near=4 * SIDE) as image:
        return signature_of(image)


def signature_of(image: Image.Image) -> tuple[int, Colours]:
    """The same of one that is decoded."""
    from PIL import Image

    bits = PHash().encode_image(np.asarray(image))
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    return int(bits, 16), np.asarray(small, np.uint8).reshape(-1)


def ends_of(source: bytes | Path) -> int:
    """Hash of a video's size, beginning and end: equal for copies of a file. Raises: OSError."""
    if isinstance(source, bytes):
        size, head, tail = len(source), source[:ENDS], source[-ENDS:]
    else:
        size = source.stat().st_size
        with source.open("rb") as file:
            head = file.read(ENDS)
            file.seek(max(0, size - ENDS))
            tail = file.read()
    digest = hashlib.blake2b(b"%d" % size + head + tail, digest_size=8).digest()
    return int.from_bytes(digest, "little")


@dataclass(frozen=True)
class Texts:
    """Shingles of texts, to look others up in.

    flat, starts: as of `each_once`. keys, owners: hashes of each text's rarest shingles in order, and its number.
    similarity: from which on texts are alike. within: a text is alike, too, that holds such a share of an indexed one
    of so many shingles or more; 0: it is not.
    """

    flat: Hashes
    starts: Starts
    keys: Hashes
    owners: NDArray[np.int64]
    similarity: float
    within: int = 0

    @staticmethod
    def of(flat: Hashes, starts: Starts, similarity: float, within: int = 0) -> Texts:
        """An index of these texts."""
        sizes = np.diff(starts)
        owners = np.repeat(np.arange(len(sizes)), sizes)
        _, which, counts = np.unique(flat, return_inverse=True, return_counts=True)
        order = np.lexsort((counts[which], owners))
        enough = sizes - np.ceil(similarity * sizes - 1e-9).astype(np.int64) + 1
        order = order[np.arange(len(flat)) - np.repeat(starts[:-1], sizes) < np.repeat(enough, sizes)]
        order = order[np.argsort(flat[order], kind="stable")]
        return Texts(flat, starts, flat[order], owners[order], similarity, within)

    @cached_property
    def _table(self) -> NDArray[np.bool_]:
        """Which last bits any key has, so that few hashes are sought among the keys."""
        table = np.zeros(1 << max(10, (ROOM * len(self.keys)).bit_length()), bool)
        table[self.keys & np.uint64(len(table) - 1)] = True
        return table

    def matches(self, flat: Hashes, starts: Starts) -> Pairs:
        """All pairs of one of these texts and an indexed one that it is like."""
        likely = np.flatnonzero(self._table[flat & np.uint64(len(self._table) - 1)])
        first, last = (np.searchsorted(self.keys, flat[likely], side) for side in ("left", "right"))
        there = first < last
        likely, first, last = likely[there], first[there], last[there]
        texts = np.repeat(np.searchsorted(starts, likely, "right") - 1, last - first)
        skipped = np.cumsum(last - first) - (last - first)
        places = np.arange(len(texts)) + np.repeat(first - skipped, last - first)
        pairs = np.unique(np.stack([texts, self.owners[places]]), axis=1)
        found = [
            self._near(int(text), np.unique(flat[starts[text] : starts[text + 1]]), others[:CANDIDATES])
            for text, others in _groups(*pairs)
        ]
        what, of, alike = (np.concatenate([[], *(pair[k] for pair in found)]) for k in range(3))
        return what.astype(np.int64), of.astype(np.int64), alike

    def _near(self, number: int, text: Hashes, others: NDArray[np.int64]) -> Pairs:
        """Those of the other texts that it is like."""
        sizes = self.starts[others + 1] - self.starts[others]
        ends = np.cumsum(sizes)
        places = np.arange(ends[-1]) + np.repeat(self.starts[others] - (ends - sizes), sizes)
        own = self.flat[places]
        shared = text[np.minimum(np.searchsorted(text, own), len(text) - 1)] == own
        both = np.add.reduceat(shared.astype(np.int64), ends - sizes)
        holds = (sizes >= self.within) & bool(self.within)
        alike = both / np.where(holds, sizes, len(text) + sizes - both)
        good = alike >= self.similarity
        return np.full(int(good.sum()), number), others[good], alike[good]


def _groups(what: NDArray[np.int64], of: NDArray[np.int64]) -> list[tuple[np.int64, NDArray[np.int64]]]:
    """(what, all that it goes with) of pairs in order."""
    names, firsts = np.unique(what, return_index=True)
    return list(zip(names, np.split(of, firsts[1:]), strict=True)) if len(names) else []


@dataclass(frozen=True)
class Pictures:
    """Signatures of images or videos, to look others up in, the darkest first. owners: the number of each.

    bits: in which the hashes of those that are alike differ, at most.
    """

    hashes: Hashes
    colours: Colours
    owners: NDArray[np.int64]
    bits: int = BITS

    @staticmethod
    def of(hashes: Hashes, colours: Colours, bits: int = BITS) -> Pictures:
        """An index of these."""
        order = np.argsort(colours.mean(1), kind="stable")
        return Pictures(hashes[order], colours[order], order, bits)

    @cached_property
    def _shades(self) -> NDArray[np.float64]:
        return np.asarray(self.colours.mean(1))

    def matches(self, hashes: Hashes, colours: Colours) -> Pairs:
        """All pairs of one of these signatures and an indexed one that it is like: hash and colours are near enough.

        Where the colours are, so is their mean: only those of nearly the same are compared.
        """
        shades = colours.mean(1)
        order = np.argsort(shades, kind="stable")
        found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
        for start in range(0, len(order), AT_ONCE):
            some = order[start : start + AT_ONCE]
            reach = shades[some[0]] - SHADES - 1e-6, shades[some[-1]] + SHADES + 1e-6
            first, last = np.searchsorted(self._shades, reach).tolist()
            apart = np.bitwise_count(hashes[some, None] ^ self.hashes[None, first:last])
            rows, others = np.nonzero(apart <= self.bits)
            differ = np.abs(colours[some[rows]].astype(np.int16) - self.colours[first + others]).mean(1)
            rows, others = rows[differ <= SHADES], others[differ <= SHADES]
            found.append((some[rows], self.owners[first + others], apart[rows, others].astype(np.int64)))
        what, of, apart = (np.concatenate([np.zeros(0, np.int64), *(pair[k] for pair in found)]) for k in range(3))
        order = np.lexsort((of, what))
        return what[order], of[order], 1 - apart[order] / 64
