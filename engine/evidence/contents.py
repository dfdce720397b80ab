"""What a pool keeps and drops: shares, sources, what has changed most, patterns that are concentrated, some rows.

At most LOOKED rows are read, in blocks drawn by the study's seed, so that the cost does not grow with the data.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.paths import folder_of
from engine.data.cuts import eligible
from engine.data.dataset import as_list, utf8
from engine.data.images import open_image
from engine.data.media import locate
from engine.data.tars import media_root
from engine.evidence.analysis import LONGEST, words
from engine.journal.pools import StoredPool
from engine.records.contents import Contents, Shift, ShownRow, SourceShare, Twin
from engine.study.opened import OpenStudy

LOOKED = 20_480  # rows that are compared at most
BLOCK = 256  # consecutive rows that are read at once
TOP = 12  # of each list
EXAMPLES = 6  # rows kept and rows dropped
TEXT = 300  # characters of a row that are shown
SIDE = 128  # pixels of a picture's longer side
PIXELS = 50_000_000  # of an image, beyond which it is not decoded
ALIKE = 0.7  # Spearman's rho from which on two statistics say much the same
LEAST = 0.02  # share of the kept rows from which on a pattern may be called concentrated
SEVERAL = 20  # kept rows that a pattern needs
SURE = 4.0  # standard errors that its share must have risen by
TEMPLATE = 3  # words
Weights = NDArray[np.float64]
RowNumbers = NDArray[np.int64]


def contents(opened: OpenStudy, stored: StoredPool, pictures: bool = False) -> Contents:
    """What a pool keeps and drops. pictures: with small copies of the examples' images."""
    good, weights = opened.scan.good, _weights(opened, stored)
    kept = weights > 0
    rows = _sample(opened)
    texts = _texts(opened, rows)
    spread = weights[rows] / max(1e-12, weights[rows].sum())
    statistics = _statistics(opened, rows, spread)
    said, begin, sources = _words(texts, spread), _templates(texts, spread), _sources(opened, kept)
    of_sources = [
        _shift(s.name, s.kept / max(1, int(kept.sum())), s.rows / max(1, int(good.sum()))) for s in sources
    ]  # fmt: skip
    several = SEVERAL / max(1, int((spread > 0).sum()))
    patterns = [("word", s) for s in said] + [("beginning", s) for s in begin] + [("source", s) for s in of_sources]
    doubled = [
        (kind, s) for kind, s in patterns
        if s.kept > 2 * s.all and s.kept >= max(LEAST, several if kind != "source" else 0)
        and (s.kept - s.all) > SURE * (s.all * (1 - s.all) / max(1, int((spread > 0).sum()))) ** 0.5
    ]  # fmt: skip
    return Contents(
        stored.id, stored.label, int(good.sum()), int(kept.sum()), len(rows), tuple(sources), _top(statistics),
        _top(said), _top(begin), tuple(sorted(doubled, key=lambda d: -d[1].shift)[:TOP]),
        tuple(_twins(opened, stored, rows)), _shown(opened, kept & good, pictures),
        _shown(opened, good & ~kept, pictures),
    )  # fmt: skip


def _weights(opened: OpenStudy, stored: StoredPool) -> Weights:
    """(rows,) how much of the pool each row is: of one layer all that it keeps alike, else as the first seed draws."""
    pool = stored.pool
    if len(pool.layers) == 1 and pool.max_repeats is None:
        columns, spans = opened.columns_of(pool), opened.data.spans
        return eligible(pool.layers[0], columns, opened.scan.good, spans).astype(np.float64)
    return np.bincount(opened.realise(pool), minlength=len(opened.data)).astype(np.float64)


def _sample(opened: OpenStudy) -> RowNumbers:
    """The good rows that are compared: all of few, else those of some blocks."""
    total = len(opened.data)
    blocks = -(-total // BLOCK)
    if total > LOOKED:
        rng = np.random.default_rng([opened.study.seed, total])
        chosen = np.sort(rng.choice(blocks, LOOKED // BLOCK, replace=False))
    else:
        chosen = np.arange(blocks)
    rows = (chosen[:, None] * BLOCK + np.arange(BLOCK)).ravel()
    rows = rows[rows < total]
    return np.asarray(rows[opened.scan.good[rows]], np.int64)


def _texts(opened: OpenStudy, rows: RowNumbers) -> list[list[str]]:
    """The words of each row's text; none without a field of texts."""
    if (field := opened.data.fields.text) is None:
        return []
    found = []
    for first in np.unique(rows // BLOCK).tolist():
        start = first * BLOCK
        read = opened.data.reader.read(start, min(start + BLOCK, len(opened.data)))
        inside = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + BLOCK)]
        found += [words(utf8(str(read[row - start].get(field) or ""))) for row in inside.tolist()]
    return found


def _shift(name: str, kept: float, every: float) -> Shift:
    """Of a share of the rows."""
    deviation = (every * (1 - every)) ** 0.5
    return Shift(name[:LONGEST], kept, every, (kept - every) / deviation if deviation > 0 else 0.0)


def _shares(having: Sequence[Iterable[str]], spread: Weights) -> list[Shift]:
    """Of each text the share of rows that have it, a row once. having: of each row."""
    kept: dict[str, float] = {}
    every: dict[str, int] = {}
    for weight, texts in zip(spread.tolist(), having, strict=True):
        for text in texts:
            every[text] = every.get(text, 0) + 1
            kept[text] = kept.get(text, 0.0) + weight
    return [_shift(text, kept[text], n / len(having)) for text, n in every.items() if n >= SEVERAL]


def _words(texts: Sequence[Sequence[str]], spread: Weights) -> list[Shift]:
    return _shares([dict.fromkeys(text) for text in texts], spread[: len(texts)])


def _templates(texts: Sequence[Sequence[str]], spread: Weights) -> list[Shift]:
    having = [[" ".join(text[:TEMPLATE])] if len(text) >= TEMPLATE else [] for text in texts]
    return _shares(having, spread[: len(texts)])


def _statistics(opened: OpenStudy, rows: RowNumbers, spread: Weights) -> list[Shift]:
    """Of each statistic that varies its means; rows without a value aside."""
    found = []
    for source in opened.statistic_columns:
        values = source.column.value[rows]
        known = np.isfinite(values)
        weight = float(spread[known].sum())
        deviation = float(values[known].std()) if known.any() else 0.0
        if weight > 0 and deviation > 0:
            kept = float((values[known] * spread[known]).sum()) / weight
            every = float(values[known].mean())
            found.append(Shift(source.statistic, kept, every, (kept - every) / deviation))
    return found


def _sources(opened: OpenStudy, kept: NDArray[np.bool_]) -> list[SourceShare]:
    return [
        SourceShare(name, int(opened.scan.good[span.start : span.stop].sum()), int(kept[span.start : span.stop].sum()))
        for name, span in opened.data.spans.items()
    ]


def _top(shifts: Iterable[Shift]) -> tuple[Shift, ...]:
    return tuple(sorted(shifts, key=lambda s: (-abs(s.shift), s.name))[:TOP])


def _twins(opened: OpenStudy, stored: StoredPool, rows: RowNumbers) -> list[Twin]:
    """Statistics that order the rows as those of the pool's slices do."""
    from scipy import stats

    own = list(dict.fromkeys(s.statistic for layer in stored.pool.layers for s in layer.slices))
    found = []
    for cut in own:
        for source in opened.statistic_columns:
            if source.statistic in own or cut not in opened.columns:
                continue
            a, b = opened.columns[cut].value[rows], source.column.value[rows]
            known = np.isfinite(a) & np.isfinite(b)
            if len(np.unique(a[known])) < 2 or len(np.unique(b[known])) < 2:
                continue
            rho = float(stats.spearmanr(a[known], b[known]).statistic)
            if abs(rho) >= ALIKE:
                found.append(Twin(cut, source.statistic, rho))
    return sorted(found, key=lambda t: -abs(t.rho))[:TOP]


def _shown(opened: OpenStudy, mask: NDArray[np.bool_], pictures: bool) -> tuple[ShownRow, ...]:
    """Some rows, chosen by their keys, so that the order of the file plays no part."""
    rows = np.flatnonzero(mask)
    if len(rows) > EXAMPLES:
        rows = np.sort(rows[np.argpartition(opened.scan.keys[rows], EXAMPLES)[:EXAMPLES]])
    folders = (media_root(opened.data.path, opened.state), folder_of(opened.data.path))
    field, images = opened.data.fields.text or "", opened.data.fields.images
    found = []
    for n in rows.tolist():
        (row,) = opened.data.reader.read(n, n + 1)
        held = as_list(row.get(images)) if images and pictures else []
        text = " ".join(utf8(str(row.get(field) or "")).split())
        shown = text if len(text) <= TEXT else text[: TEXT - 1] + "…"
        found.append(ShownRow(n, shown, _picture(held[0], *folders) if held else ""))
    return tuple(found)


def _picture(value: Any, *folders: Any) -> str:
    """A small copy of an image as a data URI; nothing where it cannot be shown."""
    try:
        image = open_image(locate(value, *folders), 2 * SIDE, PIXELS)
    except (OSError, ValueError):
        return ""
    image.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    image.save(out, format="PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
