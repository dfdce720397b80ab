"""Small data sets in the layouts that people have: real JPEGs, clips and captions, made in a second."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from PIL import Image

from tests.conftest import COLOURS, caption, write_jsonl

TRAIN, HELD = 72, 18  # rows
Row = dict[str, Any]
Pair = tuple[str, str]  # what --data and --eval are given


def rows(count: int, seed: int, video: bool = False) -> list[Row]:
    """id, caption, label, a number, and a picture or a clip as bytes."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        label = list(COLOURS)[i % len(COLOURS)]
        pixels = np.clip(np.array(COLOURS[label]) + rng.normal(0, 20, (16, 16, 3)), 0, 255).astype(np.uint8)
        media = _clip(pixels) if video else _jpeg(pixels)
        number = round(float(rng.random()), 3)
        made.append({"id": f"{seed}-{i:03d}", "text": caption(rng, label), "label": label, "n": number, "media": media})
    return made


def _jpeg(pixels: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


def _clip(pixels: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for _ in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


def both(make: Callable[[Path, list[Row]], str], folder: Path, video: bool = False) -> Pair:
    """The layout for training and for evaluation rows, each in a folder of its own."""
    paths = []
    for name, count, seed in (("train", TRAIN, 0), ("held", HELD, 1)):
        (folder / name).mkdir(parents=True)
        paths.append(make(folder / name, rows(count, seed, video)))
    return paths[0], paths[1]


def _files(folder: Path, made: list[Row]) -> list[Row]:
    """The pictures as files; the rows with their names as `image`."""
    (folder / "i").mkdir()
    for row in made:
        (folder / "i" / f"{row['id']}.jpg").write_bytes(row["media"])
    return [{k: v for k, v in row.items() if k != "media"} | {"image": f"i/{row['id']}.jpg"} for row in made]


def _held(made: list[Row]) -> list[Row]:
    """The pictures as Hugging Face holds them in tables."""
    return [{k: v for k, v in r.items() if k != "media"} | {"image": {"bytes": r["media"], "path": None}} for r in made]


def json_lines(folder: Path, made: list[Row]) -> str:
    """One object a line."""
    return str(write_jsonl(folder / "rows.jsonl", _files(folder, made)))


def packed_lines(folder: Path, made: list[Row]) -> str:
    """The same by gzip or zstd."""
    content = "".join(json.dumps(row) + "\n" for row in _files(folder, made)).encode()
    if len(made) == TRAIN:
        (folder / "rows.jsonl.gz").write_bytes(gzip.compress(content))
        return str(folder / "rows.jsonl.gz")
    (folder / "rows.jsonl.zst").write_bytes(zstandard.compress(content))
    return str(folder / "rows.jsonl.zst")


def llava(folder: Path, made: list[Row]) -> str:
    """One list of conversations, as LLaVA-558k."""
    (folder / "blip.json").write_text(json.dumps([
        {"id": r["id"], "image": r["image"], "label": r["label"], "conversations": [
            {"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": r["text"]}]}
        for r in _files(folder, made)
    ]))  # fmt: skip
    return str(folder / "blip.json")


def share_gpt(folder: Path, made: list[Row]) -> str:
    """Conversations without pictures, a line each, as ShareGPT."""
    said = [("Say more", "{text}"), ("And?", "{n} {text}")]

    def turns(row: Row) -> list[Row]:
        pairs = [(ask, answer.format_map(row)) for ask, answer in said]
        return [
            {"from": who, "value": text} for pair in pairs for who, text in zip(("human", "gpt"), pair, strict=True)
        ]

    talks = [{"id": row["id"], "conversations": turns(row)} for row in made]
    return str(write_jsonl(folder / "talks.jsonl", talks))


def comma_separated(folder: Path, made: list[Row]) -> str:
    """A table of paths and captions."""
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["id", "image", "text", "label", "n"])
        writer.writeheader()
        writer.writerows(_files(folder, made))
    return str(folder / "rows.csv")


def parquet_shards(folder: Path, made: list[Row]) -> str:
    """Several Parquet files of one table, pictures in them."""
    half = len(made) // 2
    for number, part in enumerate((made[:half], made[half:])):
        pq.write_table(pa.Table.from_pylist(_held(part)), folder / f"part-{number:05d}.parquet")
    return str(folder)


def arrow(folder: Path, made: list[Row]) -> str:
    """An Arrow file of text, as `datasets` caches it."""
    table = pa.Table.from_pylist([{"id": r["id"], "text": r["text"], "n": r["n"]} for r in made])
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return str(folder / "rows.arrow")


def saved(folder: Path, made: list[Row]) -> str:
    """What `save_to_disk` writes of several splits."""
    one = datasets.Dataset.from_list(_held(made)).cast_column("image", datasets.Image(decode=False))
    datasets.DatasetDict({"train": one}).save_to_disk(str(folder / "saved"))
    return str(folder / "saved")


def image_folder(folder: Path, made: list[Row]) -> str:
    """Pictures beside a table of their captions, as `imagefolder`."""
    named = [{"file_name": r.pop("image"), **r} for r in _files(folder, made)]
    write_jsonl(folder / "metadata.jsonl", named)
    return str(folder)


def laion(folder: Path, made: list[Row]) -> str:
    """Metadata only: addresses, captions, scores."""
    table = [{"URL": f"http://x/{r['id']}", "TEXT": r["text"], "similarity": r["n"], "uid": r["id"]} for r in made]
    pq.write_table(pa.Table.from_pylist(table), folder / "part-0.parquet")
    return str(folder / "part-0.parquet")


def tar(file: Path, made: list[Row], suffix: str = "jpg") -> None:
    """A WebDataset shard."""
    with tarfile.open(file, "w") as archive:
        for row in made:
            extra = json.dumps({"similarity": row["n"], "label": row["label"]}).encode()
            for name, content in ((suffix, row["media"]), ("txt", row["text"].encode()), ("json", extra)):
                info = tarfile.TarInfo(f"{row['id']}.{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def one_tar(folder: Path, made: list[Row]) -> str:
    """One shard."""
    tar(folder / "all.tar", made)
    return str(folder / "all.tar")


def shards(folder: Path, made: list[Row], suffix: str = "jpg") -> str:
    """A folder of shards."""
    for number in range(3):
        tar(folder / f"cc3m-{number:04d}.tar", made[number::3], suffix)
    return str(folder)


def brace_pattern(folder: Path, made: list[Row]) -> str:
    """Shards by a pattern with braces."""
    return shards(folder, made) + "/cc3m-{0000..0002}.tar"


def clips(folder: Path, made: list[Row]) -> str:
    """Shards of clips."""
    return shards(folder, made, "mp4")


def hub_splits(folder: Path) -> Pair:
    """A folder of train and test shards, each given by its pattern."""
    folder.mkdir(parents=True)
    for name, count, seed in (("train", TRAIN, 0), ("test", HELD, 1)):
        pq.write_table(pa.Table.from_pylist(_held(rows(count, seed))), folder / f"{name}-00000-of-00001.parquet")
    return str(folder / "train-*.parquet"), str(folder / "test-*.parquet")


def hub_cache(home: Path) -> Pair:
    """The hub's local cache of two data sets."""
    for name, count, seed in (("train", TRAIN, 0), ("held", HELD, 1)):
        repository = home / f"datasets--us--{name}"
        snapshot = repository / "snapshots" / ("a" * 40) / "data"
        snapshot.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("a" * 40)
        pq.write_table(pa.Table.from_pylist(_held(rows(count, seed))), snapshot / "train-00000-of-00001.parquet")
    return "hf://datasets/us/train", "hf://datasets/us/held"
