"""Which items of an evaluation are held back from the search.

An item's own key decides under the study's seed, so that it stays on its side when others are added or leave.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from engine.data.cuts import mix

SALT = 0x48454C44  # apart from what draws the pools' rows


def held_back(keys: NDArray[np.uint64], share: float, seed: int) -> NDArray[np.bool_]:
    """(items,) True for about that share of them."""
    return np.asarray(mix(mix(keys, SALT), seed) < np.uint64(min(int(share * 2**64), 2**64 - 1)))


def keys_of(names: Iterable[str]) -> NDArray[np.uint64]:
    """The keys of items that are known by names."""
    digests = [hashlib.blake2b(n.encode("utf-8", "surrogatepass"), digest_size=8).digest() for n in names]
    return np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64)
