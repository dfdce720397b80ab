"""How alike rows are: texts by the shingles that they share, images by a perceptual hash and their colours.

What is sought among many rows is small, so that it is indexed and every other row is compared with it: the Jaccard
similarity of shingles is exact where MinHash estimates it.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
# (number of what is looked up, number of what it is like, how alike they are, 0 … 1)
Match = tuple[int, int, float]

CANDIDATES = 1000  # texts that share rare shingles with one, at most, that it is compared with
UNSPACED = 8  # characters a word from which on a text has no spaces between its words
BITS = 8  # of 64 in which the hashes of images that are alike differ, at most
SIDE = 8  # pixels of the thumbnail whose colours are compared
SHADES = 8.0  # of 255, that the colours of such images differ on average, at most
ENDS = 1 << 16  # bytes of a video's beginning and end
_WORD = re.compile(r"\w+")


def shingles(text: str, section: DedupSection) -> Hashes:
    """Hashes of a text's runs of tokens, each once, in order; of a text that is shorter than a run one, of all of it.

    A long text of hardly any space is compared by its characters, whatever the section says.
    """
    text = text.casefold()
    tokens: Sequence[str] = text.split()
    if section.tokens == "punctuation":
        tokens = _WORD.findall(text)
    if section.tokens == "character" or (len(tokens) < section.window <= len(text) // UNSPACED):
        tokens = "".join(text.split())
    many = len(tokens) - section.window + 1
    if many < 1:
        return np.array([_hash("=" + " ".join(tokens))], np.uint64)
    return np.unique(np.array([_hash(" ".join(tokens[i : i + section.window])) for i in range(many)], np.uint64))


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

    flat: (shingles,) all of them, text after text. starts: (texts + 1,) where each begins. hashes, owners:
    (shingles,) the same in order, with the number of their text.
    """

    flat: Hashes
    starts: NDArray[np.int64]
    hashes: Hashes
    owners: NDArray[np.int32]

    @staticmethod
    def of(texts: Sequence[Hashes]) -> Texts:
        """An index of these."""
        sizes = [len(t) for t in texts]
        flat = np.concatenate([*texts, np.zeros(0, np.uint64)])
        owners = np.repeat(np.arange(len(texts), dtype=np.int32), sizes)
        order = np.argsort(flat, kind="stable")
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
        return Texts(flat, starts, flat[order], owners[order])

    def matches(self, texts: Sequence[Hashes], similarity: float) -> Iterator[Match]:
        """For each text the indexed one that it is most like, where the Jaccard similarity is at least so high."""
        if not len(self.hashes) or not texts:
            return
        sizes = np.array([len(t) for t in texts])
        flat = np.concatenate(texts)
        at = np.minimum(np.searchsorted(self.hashes, flat), len(self.hashes) - 1)
        shared = np.bincount(np.repeat(np.arange(len(texts)), sizes), self.hashes[at] == flat, len(texts))
        for number in np.flatnonzero(shared >= similarity * sizes).tolist():
            best = max(self._near(texts[number], similarity), key=lambda pair: pair[1], default=(0, 0.0))
            if best[1] >= similarity:
                yield number, *best

    def _near(self, text: Hashes, similarity: float) -> Iterator[tuple[int, float]]:
        """(number, similarity) of texts that may be alike: of so many shingles at least one is shared by all such."""
        first = np.searchsorted(self.hashes, text)
        last = np.searchsorted(self.hashes, text, "right")
        enough = len(text) - math.ceil(similarity * len(text)) + 1
        rarest = np.argsort(last - first, kind="stable")[:enough].tolist()
        for other in np.unique(np.concatenate([self.owners[first[i] : last[i]] for i in rarest]))[:CANDIDATES].tolist():
            own = self.flat[self.starts[other] : self.starts[other + 1]]
            both = len(np.intersect1d(text, own, assume_unique=True))
            yield other, both / (len(text) + len(own) - both)


@dataclass(frozen=True)
class Pictures:
    """Signatures of images or videos, to look others up in. owners: (signatures,) the row of each."""

    hashes: Hashes
    colours: Colours
    owners: NDArray[np.int32]

    def matches(self, hashes: Hashes, colours: Colours, bits: int) -> Iterator[Match]:
        """For each signature the indexed one whose hash is nearest, where it and the colours are near enough."""
        step = max(1, 2**23 // max(1, len(self.hashes)))
        for start in range(0, len(hashes) if len(self.hashes) else 0, step):
            apart = np.bitwise_count(hashes[start : start + step, None] ^ self.hashes[None])
            rows, others = np.nonzero(apart <= bits)
            shades = colours[start + rows].astype(np.int16) - self.colours[others]
            near = np.abs(shades).mean(1) <= SHADES
            found: dict[int, tuple[int, int]] = {}
            for row, other in zip(rows[near].tolist(), others[near].tolist(), strict=True):
                found[row] = min(found.get(row, (65, 0)), (int(apart[row, other]), other))
            yield from ((start + row, int(self.owners[other]), 1 - d / 64) for row, (d, other) in found.items())
