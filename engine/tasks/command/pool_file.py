"""A pool's rows as the file that a command trains on: JSONL, Parquet or WebDataset.

JSONL names media files by absolute paths (bytes are written to files first); Parquet holds them as {bytes, path}, as
Hugging Face's Image feature does; WebDataset is tar files of KEY.txt, KEY.jpg …, KEY.json.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.paths import folder_of
from engine.data.dataset import Dataset, as_list, json_line, utf8
from engine.data.media import locate
from engine.data.rows_file import in_parquet
from engine.data.samples import add_sample, suffix_of

CHUNK = 500  # rows in memory at once
SHARD = 1000  # rows of a tar
Row = dict[str, Any]


def write_pool(form: str, data: Dataset, root: Path, rows: NDArray[np.int64], repeat: int, folder: Path) -> str:
    """Write the rows, `repeat` times each, into `folder`; what {pool} stands for.

    form: `jsonl`, `parquet` or `webdataset`. root: folder of relative media paths. rows: row numbers; they are written
    in ascending order. The result is a path; of WebDataset a brace pattern, as its shards are several.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write = {"jsonl": _jsonl, "parquet": _parquet, "webdataset": _webdataset}[form]
    with in_parquet("command.format: parquet"):
        return write(data, root, rows, repeat, folder)


def _rows(data: Dataset, rows: NDArray[np.int64], repeat: int) -> Iterator[tuple[int, Row]]:
    """(row number, row), the whole pool again and again."""
    ordered = np.sort(rows)
    for _ in range(repeat):
        yield from zip(ordered.tolist(), data.take(ordered), strict=True)


def _parts(rows: Iterable[tuple[int, Row]], size: int) -> Iterator[list[tuple[int, Row]]]:
    """The rows, so many at a time."""
    left = iter(rows)
    while part := list(islice(left, size)):
        yield part


def _media(data: Dataset, root: Path, row: Row) -> dict[str, list[bytes | Path]]:
    """What the row's media fields hold."""
    base = folder_of(data.path)
    names = [n for n in (data.fields.images, data.fields.videos) if n]
    return {name: [locate(value, root, base) for value in as_list(row.get(name))] for name in names}


def _like(before: Any, found: list[Any]) -> Any:
    """One value where there was one, a list where there was a list."""
    return found if isinstance(before, list | tuple) or len(found) != 1 else found[0]


def _jsonl(data: Dataset, root: Path, rows: NDArray[np.int64], repeat: int, folder: Path) -> str:
    file = folder / "pool.jsonl"
    with file.open("w", encoding="utf-8") as out:
        for number, row in _rows(data, rows, repeat):
            paths: dict[str, Any] = {}
            for name, media in _media(data, root, row).items():
                named = [str(_on_disk(m, folder / "media", f"{number}-{k}")) for k, m in enumerate(media)]
                paths[name] = _like(row[name], named)
            out.write(json_line({**row, **paths}, str) + "\n")
    return str(file)


def _on_disk(media: bytes | Path, folder: Path, stem: str) -> Path:
    """The absolute path of a media file; bytes become one."""
    if isinstance(media, Path):
        return media.resolve()
    folder.mkdir(exist_ok=True)
    file = folder / f"{stem}{suffix_of(media)}"
    file.write_bytes(media)
    return file


def _parquet(data: Dataset, root: Path, rows: NDArray[np.int64], repeat: int, folder: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [n for n in (data.fields.images, data.fields.videos) if n]
    one = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schemas, many = [], dict.fromkeys(names, False)
    for chunk in _parts(_rows(data, rows, 1), CHUNK):
        plain = pa.array([{k: v for k, v in _clean(row).items() if k not in names} for _, row in chunk])
        schemas.append(pa.schema(list(plain.type)))  # a table would have the first row's names only
        many |= {n: many[n] or any(isinstance(row.get(n), list | tuple) for _, row in chunk) for n in names}
    schema = pa.unify_schemas(schemas, promote_options="permissive")
    for name in names:
        schema = schema.append(pa.field(name, pa.list_(one) if many[name] else one))
    file = folder / "pool.parquet"
    with pq.ParquetWriter(file, schema) as out:
        for chunk in _parts(_rows(data, rows, repeat), CHUNK):
            table = []
            for _, row in chunk:
                held = {n: [_struct(m) for m in found] for n, found in _media(data, root, row).items()}
                table.append({**_clean(row), **{n: h if many[n] else (h[0] if h else None) for n, h in held.items()}})
            out.write_table(pa.Table.from_pylist(table, schema=schema))
    return str(file)


def _clean(row: Row) -> Row:
    """The row with texts that Parquet can hold."""
    return {k: utf8(v) if isinstance(v, str) else v for k, v in row.items()}


def _struct(media: bytes | Path) -> Row:
    return {"bytes": media, "path": None} if isinstance(media, bytes) else {
        "bytes": media.read_bytes(), "path": media.name}  # fmt: skip


def _webdataset(data: Dataset, root: Path, rows: NDArray[np.int64], repeat: int, folder: Path) -> str:
    text, shards = data.fields.text, 0
    for shards, shard in enumerate(_parts(_rows(data, rows, repeat), SHARD), 1):
        with tarfile.open(folder / f"pool-{shards - 1:06d}.tar", "w") as tar:
            for place, (number, row) in enumerate(shard):
                key = f"{number:09d}-{shards - 1:06d}{place:04d}"
                add_sample(tar, key, row, text, _media(data, root, row))
    return str(folder / f"pool-{{000000..{shards - 1:06d}}}.tar")
