"""Analysis: what statistics and metrics have in common, and how diverse pools are (Appendices D.1, E.3, E.4)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.journal.results import Correlation, Term

_WORD = re.compile(r"\w+", re.UNICODE)


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

    names = list(series)
    if len(names) < 2:
        return None
    r = pearson(series)
    distance = np.sqrt(2 * (1 - np.minimum(1, np.abs(np.nan_to_num(r, nan=0.0)))))
    np.fill_diagonal(distance, 0)
    linkage = hierarchy.ward(squareform(distance, checks=False))
    labels = hierarchy.fcluster(linkage, max(1, min(clusters, len(names))), "maxclust")
    return Correlation(
        names=names,
        r=[[None if math.isnan(x) else round(float(x), 6) for x in row] for row in r],
        order=[names[i] for i in hierarchy.leaves_list(linkage)],
        clusters={n: int(c) for n, c in zip(names, labels, strict=True)},
        linkage=linkage.tolist(),
    )


def words(text: str) -> list[str]:
    """Lower-case words."""
    return _WORD.findall(text.lower())


def _entropy(counts: NDArray[Any]) -> float:
    counts = counts[counts > 0]
    p = counts / counts.sum() if len(counts) else counts
    return float(-(p * np.log(p)).sum())


@dataclass(frozen=True)
class Words:
    """The words of many texts. ids: (all words,) numbers into `vocabulary`. starts: (texts + 1,) where each begins."""

    vocabulary: tuple[str, ...]
    ids: NDArray[np.int64]
    starts: NDArray[np.int64]


def split(texts: Iterable[str]) -> Words:
    """Every text's words, each text split once."""
    vocabulary: dict[str, int] = {}
    parts = [np.array([vocabulary.setdefault(w, len(vocabulary)) for w in words(t)], np.int64) for t in texts]
    ids = np.concatenate(parts) if parts else np.array([], np.int64)
    return Words(tuple(vocabulary), ids, np.cumsum([0, *(len(p) for p in parts)]))


def pool_entropies(texts: Words, pools: Mapping[str, NDArray[np.int64]]) -> dict[str, float]:
    """-Σ P(w) ln P(w) over the words of every pool, in nats (Eq. 2). pools: pool → row numbers into the texts."""
    entropies = {}
    for pool, rows in pools.items():
        times = np.bincount(rows, minlength=len(texts.starts) - 1)  # a row may stand in a pool more than once
        counts = np.bincount(texts.ids, np.repeat(times, np.diff(texts.starts)), minlength=1)
        entropies[pool] = _entropy(counts)
    return entropies


PRIOR = 10.0  # pseudo-rows: weight of a word's overall share in bucket and rest
LEVEL = 0.01  # chance that any word of a random bucket would be named
LONGEST = 30  # characters of a word that is shown


def distinctive(
    texts: Words, good: NDArray[np.bool_], buckets: Mapping[str, NDArray[np.bool_]], top: int
) -> dict[str, list[Term]]:
    """The words that tell each bucket from the other good rows, strongest first; at most `top` of each.

    Log-odds ratios with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008). A row counts once for a word,
    so one spam row is one row. The threshold is corrected for the number of words.
    good: (rows,). buckets: name → (rows,).
    """
    from scipy import stats

    size, many = len(texts.vocabulary), len(texts.starts) - 1
    if not size:
        return {name: [] for name in buckets}
    rows = np.repeat(np.arange(many), np.diff(texts.starts))
    pairs = np.unique(rows * size + texts.ids)  # each word once a row
    rows, ids = pairs // size, pairs % size
    whole = np.bincount(ids[good[rows]], minlength=size).astype(np.float64)
    share = PRIOR * whole / max(1, good.sum())
    bar = float(stats.norm.isf(LEVEL / size))
    terms = {}
    for name, inside in buckets.items():
        mask = inside & good
        n, rest = int(mask.sum()), int((good & ~mask).sum())
        here = np.bincount(ids[mask[rows]], minlength=size).astype(np.float64)
        sides = [(k + share, total - k + PRIOR - share) for k, total in ((here, n), (whole - here, rest))]
        with np.errstate(divide="ignore", invalid="ignore"):
            odds = [np.log(has) - np.log(lacks) for has, lacks in sides]
            z = (odds[0] - odds[1]) / np.sqrt(sum(1 / has + 1 / lacks for has, lacks in sides))
        best = np.argsort(-np.nan_to_num(z, nan=-np.inf), kind="stable")[:top].tolist()
        terms[name] = [
            Term(texts.vocabulary[w][:LONGEST], here[w] / max(1, n), (whole[w] - here[w]) / max(1, rest), float(z[w]))
            for w in best if z[w] > bar
        ]  # fmt: skip
    return terms
