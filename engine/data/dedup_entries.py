"""Deduplicators in a recipe: those that may stand there, and their parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.base.errors import OpError

# which field each reads
READS = {"document_deduplicator": "text", "document_minhash_deduplicator": "text", "image_deduplicator": "image"}
_Range = tuple[float, float]
PARAMS: dict[str, dict[str, type[bool] | tuple[str, ...] | _Range]] = {
    "document_deduplicator": {"lowercase": bool, "ignore_non_character": bool},
    "document_minhash_deduplicator": {
        "tokenization": ("space", "punctuation", "character"),
        "window_size": (1, 100),
        "lowercase": bool,
        "num_permutations": (1, 1024),
        "jaccard_threshold": (0.0, 1.0),
        "num_bands": (1, 1024),
        "num_rows_per_band": (1, 1024),
    },
    "image_deduplicator": {"method": ("phash", "dhash", "ahash")},
}
UNUSED: dict[str, Any] = {"ignore_pattern": None, "tokenizer_model": None, "consider_text": False}  # as by default
SHARE = "jaccard_threshold"  # the one parameter that is no whole number


def dedup_params(name: str, params: Mapping[Any, Any]) -> dict[str, Any]:
    """A deduplicator's parameters, checked. Raises: OpError that names the parameter and what it takes."""
    found: dict[str, Any] = {}
    for key, value in params.items():
        if key in UNUSED and value == UNUSED[key]:
            continue
        takes = PARAMS[name].get(key)
        if takes is None:
            raise OpError(f"{name}: {str(key)[:60]!r} may not be set by a recipe; remove it")
        if takes is bool:
            right, form = isinstance(value, bool), "true or false"
        elif isinstance(takes, tuple) and isinstance(takes[0], str):
            right, form = value in takes, " or ".join(map(str, takes))
        else:
            low, high = takes
            kinds = (int, float) if key == SHARE else (int,)
            right = type(value) in kinds and low <= value <= high
            form = f"a {'number' if key == SHARE else 'whole number'} of {low} … {high}"
        if not right:
            raise OpError(f"{name}: {key} does not take {str(value)[:60]!r}; write {form}")
        found[key] = value
    return found
