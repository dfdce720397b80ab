"""Rows that name pictures by their addresses and hold none, as the metadata of LAION and DataComp do."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from engine.data.readers.contract import Row
from engine.data.readers.formats import format_of

WEB = re.compile(r"https?://", re.IGNORECASE)
PICTURE = re.compile(r"\.(jpe?g|png|webp|gif|bmp|tiff?)(?![a-z0-9])", re.IGNORECASE)
NAMED = re.compile(r"ima?ge?|photo|thumb|picture", re.IGNORECASE)
BESIDE = frozenset((
    "width", "height", "original_width", "original_height", "similarity", "punsafe", "pwatermark", "nsfw",
    "face_bboxes", "clip_b32_similarity_score", "clip_l14_similarity_score",
))  # fmt: skip
SHARE = 0.3  # of the addresses that end as a picture's
KEPT = 12  # columns that are kept beside url and text


def picture_addresses(rows: Sequence[Row]) -> str | None:
    """The field of addresses of pictures. Addresses of pages, as beside texts of the web, are none."""
    names = {name for row in rows for name in row}
    for name in sorted(names):
        values = [row[name] for row in rows if isinstance(row.get(name), str)]
        if not values or sum(bool(WEB.match(value)) for value in values) < 0.9 * len(values):
            continue
        pictures = sum(bool(PICTURE.search(value)) for value in values)
        beside = {other.lower() for other in names} & BESIDE
        if pictures >= SHARE * len(values) or NAMED.search(name) or beside:
            return name
    return None


def how_to_fetch(data: Path, rows: Sequence[Row], url: str, text: str | None) -> str:
    """The command that fetches the pictures of a file of metadata."""
    form = format_of(data) or "parquet"
    kind = {"json": "json" if data.suffix == ".json" else "jsonl", "table": data.suffix.lstrip(".")}.get(form, form)
    plain = (str, int, float, bool, type(None))
    others = [name for name in rows[0] if name not in (url, text) and all(isinstance(r.get(name), plain) for r in rows)]
    parts = ["img2dataset", "--url_list", str(data), "--input_format", kind, "--url_col", url]
    parts += ["--caption_col", text] if text else []
    parts += ["--save_additional_columns", json.dumps(others[:KEPT], allow_nan=False)] if others else []
    parts += [
        "--image_size",
        "256",
        "--output_format",
        "webdataset",
        "--output_folder",
        f"{data.stem.strip('*-_')}-images",
    ]
    return shlex.join(parts)
