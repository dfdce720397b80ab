"""Analysis: what statistics and metrics have in common, and how diverse pools are (Appendices D.1, E.3, E.4)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\w+", re.UNICODE)


@dataclass(frozen=True)
class Correlation:
    """Pearson's r between named series, and their Ward clusters.

    r: (names, names), NaN where a series is constant. order: names as the dendrogram lays them out.
    clusters: name → 1 … k. linkage: SciPy's (names - 1, 4) matrix.
    """

    names: tuple[str, ...]
    r: NDArray[np.float64]
    order: tuple[str, ...]
    clusters: dict[str, int]
    linkage: list[list[float]]

    def to_json(self) -> dict[str, Any]:
        """JSON without NaN."""
        table = [[None if math.isnan(x) else round(float(x), 6) for x in row] for row in self.r]
        return {
            "names": list(self.names), "r": table, "order": list(self.order),
            "clusters": self.clusters, "linkage": self.linkage,
        }  # fmt: skip


def pearson(series: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """(names, names) Pearson's r over the rows where both series are finite."""
    data = np.stack([np.asarray(v, np.float64) for v in series.values()])
    finite = np.isfinite(data)
    if finite.all():
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.atleast_2d(np.corrcoef(data))
    n = len(data)
    r = np.full((n, n), np.nan)
    for i in range(n):
        for j in range(i, n):
            both = finite[i] & finite[j]
            a, b = data[i][both], data[j][both]
            if len(a) > 1 and a.std() > 0 and b.std() > 0:
                r[i, j] = r[j, i] = float(np.corrcoef(a, b)[0, 1])
    return r


def correlate(series: Mapping[str, NDArray[np.float64]], clusters: int) -> Correlation | None:
    """Pearson's r and Ward's clusters (Ward 1963); None for fewer than two series.

    The distance is sqrt(2 (1 - |r|)): that of standardised series, where an opposite says the same.
    """
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    names = tuple(series)
    if len(names) < 2:
        return None
    r = pearson(series)
    distance = np.sqrt(2 * (1 - np.minimum(1, np.abs(np.nan_to_num(r, nan=0.0)))))
    np.fill_diagonal(distance, 0)
    linkage = hierarchy.ward(squareform(distance, checks=False))
    labels = hierarchy.fcluster(linkage, max(1, min(clusters, len(names))), "maxclust")
    order = tuple(names[i] for i in hierarchy.leaves_list(linkage))
    return Correlation(names, r, order, {n: int(c) for n, c in zip(names, labels, strict=True)}, linkage.tolist())


def words(text: str) -> list[str]:
    """Lower-case words."""
    return _WORD.findall(text.lower())


def word_entropy(texts: Iterable[str]) -> float:
    """-Σ P(w) ln P(w) over the words of all texts, in nats (Eq. 2)."""
    counts: dict[str, int] = {}
    for text in texts:
        for word in words(text):
            counts[word] = counts.get(word, 0) + 1
    return _entropy(np.array(list(counts.values()), np.float64))


def _entropy(counts: NDArray[np.float64]) -> float:
    counts = counts[counts > 0]
    p = counts / counts.sum() if len(counts) else counts
    return float(-(p * np.log(p)).sum())


def pool_entropies(texts: Sequence[str], pools: Mapping[str, NDArray[np.int64]]) -> dict[str, float]:
    """Word entropy of every pool; each text is split once.

    pools: pool → row numbers into `texts`.
    """
    vocabulary: dict[str, int] = {}
    ids = [np.array([vocabulary.setdefault(w, len(vocabulary)) for w in words(t)], np.int64) for t in texts]
    found = {}
    for pool, rows in pools.items():
        chosen = [ids[r] for r in rows.tolist()]
        flat = np.concatenate(chosen) if chosen else np.array([], np.int64)
        found[pool] = _entropy(np.bincount(flat, minlength=1).astype(np.float64))
    return found
