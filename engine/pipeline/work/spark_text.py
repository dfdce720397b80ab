"""Data-Juicer's classifiers of text quality, read of the files in which Spark keeps them; Spark is not needed.

A text becomes lower-case words, each word a place among many by its hash, and the counts a probability by a logistic
regression.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.pipeline.contract import ComponentError

SEED = 42
BLANKS = re.compile(r"[ \t\n\x0b\f\r]")
M = 0xFFFFFFFF


@dataclass(frozen=True)
class Classifier:
    """places: that words are hashed to; weights: one each."""

    places: int
    weights: NDArray[np.float64]
    intercept: float

    def score(self, text: str) -> float:
        """The probability that a text is a good one."""
        counts = Counter(murmur3(word.encode()) % self.places for word in words(text))
        z = self.intercept + math.fsum(self.weights[place] * count for place, count in counts.items())
        return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def words(text: str) -> list[str]:
    """As Spark's Tokenizer: split at each blank, those at the end left out."""
    found = BLANKS.split(text.lower())
    while found and not found[-1]:
        found.pop()
    return found if text else [""]


def murmur3(data: bytes, seed: int = SEED) -> int:
    """MurmurHash3 of 32 bits, as a signed number, which `%` brings to a place as Spark does."""
    h = seed
    whole = len(data) - len(data) % 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * 0xCC9E2D51 & M
        h ^= _turned(k, 15) * 0x1B873593 & M
        h = (_turned(h, 13) * 5 + 0xE6546B64) & M
    if tail := data[whole:]:
        k = int.from_bytes(tail, "little") * 0xCC9E2D51 & M
        h ^= _turned(k, 15) * 0x1B873593 & M
    h ^= len(data)
    h = (h ^ h >> 16) * 0x85EBCA6B & M
    h = (h ^ h >> 13) * 0xC2B2AE35 & M
    h ^= h >> 16
    return h - (1 << 32) if h >> 31 else h


def _turned(x: int, by: int) -> int:
    return (x << by | x >> 32 - by) & M


def read_classifier(folder: Path) -> Classifier:
    """A pipeline of Tokenizer, HashingTF and LogisticRegression. Raises: ComponentError."""
    import pyarrow.parquet as pq

    try:
        stages = [(stage, _metadata(stage)) for stage in sorted((folder / "stages").iterdir())]
        kinds = {str(meta["class"]).rpartition(".")[2]: (stage, meta) for stage, meta in stages}
        hashing, (regression, _) = kinds["HashingTF"][1], kinds["LogisticRegressionModel"]
        params: Mapping[str, Any] = {**hashing.get("defaultParamMap", {}), **hashing.get("paramMap", {})}
        row = pq.read_table(regression / "data").to_pylist()[0]
        vector = row["interceptVector"]
        intercept = float((vector["values"] or [0.0])[0])
        return Classifier(int(params["numFeatures"]), _weights(row["coefficientMatrix"]), intercept)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ComponentError(
            f"{folder} is no classifier of Spark that can be read ({error}); fetch it again"
        ) from error


def _metadata(stage: Path) -> dict[str, Any]:
    (file,) = sorted((stage / "metadata").glob("part-*"))
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _weights(matrix: Mapping[str, Any]) -> NDArray[np.float64]:
    """A matrix of one row, dense or sparse."""
    if matrix["numRows"] != 1:
        raise ValueError(f"{matrix['numRows']} classes")
    values = np.asarray(matrix["values"], np.float64)
    if matrix["type"] == 1:
        return values
    found = np.zeros(matrix["numCols"])
    if matrix["isTransposed"]:  # by rows: the numbers of columns
        found[np.asarray(matrix["rowIndices"], np.int64)] = values
    else:
        pointers = np.asarray(matrix["colPtrs"], np.int64)
        found[np.flatnonzero(np.diff(pointers))] = values
    return found
