"""Rows as WebDataset samples: KEY.txt, KEY.jpg …, KEY.json (all fields but media) in a tar."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path
from typing import Any

from engine.data.dataset import json_line
from engine.data.videos import HEAD, container_of

STARTS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"RIFF": ".webp", b"BM": ".bmp"}
VIDEOS = {
    "mov": ".mp4", "matroska": ".mkv", "avi": ".avi", "mpeg": ".mpg", "flv": ".flv", "ogg": ".ogv", "asf": ".wmv",
    "mpegts": ".ts",
}  # fmt: skip
SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
Media = bytes | Path


def suffix_of(media: Media) -> str:
    """What a file of these media is called by at its end, in small letters; `.bin` where nothing tells."""
    if isinstance(media, Path):
        if SUFFIX.fullmatch(suffix := media.suffix.lower()):
            return suffix
        with media.open("rb") as file:
            media = file.read(HEAD)
    picture = next((suffix for start, suffix in STARTS.items() if media.startswith(start)), None)
    if picture == STARTS[b"RIFF"] and media[8:12] != b"WEBP":
        picture = None
    return picture or VIDEOS.get(container_of(media[:HEAD]) or "", ".bin")


def add_sample(
    tar: tarfile.TarFile, key: str, row: dict[str, Any], text: str | None, media: dict[str, list[Media]]
) -> None:
    """Write one row. text: the field of the text. media: field → what it holds."""
    if text and isinstance(row.get(text), str):
        _add(tar, f"{key}.txt", row[text].encode("utf-8", "surrogatepass"))
    found = [m for each in media.values() for m in each]
    for k, m in enumerate(found):
        content = m if isinstance(m, bytes) else m.read_bytes()
        _add(tar, f"{key}{suffix_of(m)}" if len(found) == 1 else f"{key}.{k}{suffix_of(m)}", content)
    _add(tar, f"{key}.json", json_line({k: v for k, v in row.items() if k not in media}, str).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
