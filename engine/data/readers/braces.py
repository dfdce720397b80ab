"""Patterns with braces, as WebDataset and shells have them: `cc3m-{0000..0331}.tar`, `{a,b}.tar`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import product

from engine.base.errors import DataError

BRACES = re.compile(r"\{(\d{1,18}\.\.\d{1,18}|[^{},]*(?:,[^{},]*)+)\}")
MOST = 1_000_000  # files that a pattern may mean


def expand(pattern: str) -> list[str]:
    """The names that a pattern means. Raises: DataError."""
    fixed, groups = BRACES.split(pattern)[::2], [_names(group) for group in BRACES.findall(pattern)]
    if math.prod(map(len, groups)) > MOST:
        raise DataError(f"{pattern} means more than {MOST} files; give fewer")
    return ["".join(a + b for a, b in zip(fixed, (*one, ""), strict=True)) for one in product(*groups)]


def _names(group: str) -> Sequence[str]:
    if "," in group:
        return group.split(",")
    first, last = group.split("..")
    low, high = sorted((int(first), int(last)))
    return [str(n).zfill(len(first)) for n in range(low, min(high, low + MOST) + 1)]
