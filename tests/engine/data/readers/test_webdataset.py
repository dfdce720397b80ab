"""WebDataset: rows from tar shards by their places; what is wrong with a shard costs what it touches, and is told."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.errors import DataError
from engine.data.dataset import Dataset
from engine.data.media import locate
from engine.data.readers import shards, webdataset
from engine.data.readers.braces import expand
from engine.data.readers.contract import BROKEN, Options, Row
from engine.data.readers.opening import open_reader
from engine.data.tars import unpack
from engine.settings.data import DatasetSection
from tests.conftest import fuzz

Members = list[tuple[str, bytes] | tarfile.TarInfo]
JPG = b"\xff\xd8\xff picture"


def shard(file: Path, members: Members, form: int = tarfile.GNU_FORMAT) -> Path:
    """A tar of these members; a TarInfo stands for one without content."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", format=form) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return file


def sample(key: str, text: str = "a dog") -> Members:
    """A picture and its caption."""
    return [(f"{key}.jpg", JPG + key.encode()), (f"{key}.txt", text.encode())]


def rows_of(path: Path, options: Options | None = None) -> list[Row]:
    """All rows."""
    reader = open_reader(path, options or Options())
    return reader.read(0, len(reader))


def reasons(path: Path) -> list[str]:
    """Why rows are broken."""
    return [str(row[BROKEN]) for row in rows_of(path) if BROKEN in row]


def test_a_sample_is_a_row_whose_media_stay_in_their_shard(tmp_path: Path) -> None:
    members = [*sample("d/1"), ("d/1.json", b'{"similarity": 0.3, "txt": "other"}'), ("d/1.CLS", b"7\n"), *sample("2")]
    file = shard(tmp_path / "a.tar", members)
    first, second = rows_of(file)
    assert {k: v for k, v in first.items() if k != "jpg"} == {
        "__key__": "d/1", "txt": "a dog", "cls": "7", "similarity": 0.3, "json.txt": "other"
    }  # fmt: skip
    assert locate(first["jpg"], tmp_path, tmp_path) == JPG + b"d/1"
    assert first["jpg"] == {"path": "a.tar", "offset": 512, "size": len(JPG) + 3}
    assert second["__key__"] == "2" and json.loads(json.dumps(second)) == second


def test_numbered_members_are_a_list_and_pickles_are_never_loaded(tmp_path: Path) -> None:
    members: Members = [
        ("1.10.jpg", JPG),
        ("1.9.jpg", JPG + b"9"),
        ("1.pkl", b"cos\nsystem\n"),
        ("1.list.json", b"[1]"),
    ]
    (row,) = rows_of(shard(tmp_path / "a.tar", members))
    assert [locate(v, tmp_path, tmp_path) for v in row["jpg"]] == [JPG + b"9", JPG]
    assert row["pkl"]["size"] == 11 and row["list.json"] == [1]


def test_pictures_of_several_extensions_are_one_field(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", [*sample("1"), ("2.png", b"png"), ("2.txt", b"x")])
    rows = rows_of(tmp_path)
    assert [locate(r["image"], tmp_path, tmp_path) for r in rows] == [JPG + b"1", b"png"]


@pytest.mark.parametrize("path", ["", "s-*.tar", "s-{0000..0002}.tar", "s-{0000,0001,0002}.tar"])
def test_shards_are_a_folder_or_a_pattern(tmp_path: Path, path: str) -> None:
    for i in range(3):
        shard(tmp_path / f"s-{i:04d}.tar", [*sample(f"{i}-0"), *sample(f"{i}-1")])
    data = Dataset(tmp_path / path, DatasetSection(path=path or "."))
    assert [r["__key__"] for r in data.reader.read(1, 5)] == ["0-1", "1-0", "1-1", "2-0"]
    assert len(data) == 6 and data.reader.note == "3 shards"
    assert unpack(data, tmp_path / "state") == {}, "shards are no tars beside the data"


def test_shards_of_several_splits_are_not_mixed(tmp_path: Path) -> None:
    for name in ("train-0.tar", "val-0.tar"):
        shard(tmp_path / name, sample(name[0]))
    with pytest.raises(DataError, match=r"several splits: train \(1\), validation \(1\)"):
        open_reader(tmp_path)
    (row,) = rows_of(tmp_path, Options("validation"))
    assert row["__key__"] == "v"


def test_shards_beside_their_metadata_are_what_is_read(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    shard(tmp_path / "00000.tar", sample("1"))
    pq.write_table(pa.table({"url": ["http://x"]}), tmp_path / "00000.parquet")
    assert [row["__key__"] for row in rows_of(tmp_path)] == ["1"]


def test_keys_that_other_shards_have_too_get_their_shard(tmp_path: Path) -> None:
    for i in range(2):
        shard(tmp_path / f"s-{i}.tar", sample("0"))
    assert [row["__key__"] for row in rows_of(tmp_path)] == ["s-0/0", "s-1/0"]
    assert "so __key__ is SHARD/KEY" in open_reader(tmp_path).note


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names(tmp_path: Path, form: int) -> None:
    key = "d" * 90 + "/" + "é" * 80
    (row,) = rows_of(shard(tmp_path / "a.tar", sample(key), form))
    assert row["__key__"] == key and locate(row["jpg"], tmp_path, tmp_path) == JPG + key.encode()


def test_only_fields_that_are_needed_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = shard(tmp_path / "a.tar", [*sample("1"), ("1.json", b'{"n": 1}')])
    reader = open_reader(file)
    assert reader.read(0, 1, ("n",))[0]["n"] == 1
    monkeypatch.setattr(webdataset, "_text", lambda *_: pytest.fail("a text is read"))
    assert set(reader.read(0, 1, ("jpg", "__key__"))[0]) == {"__key__", "jpg"}


def odd(name: str, kind: bytes) -> tarfile.TarInfo:
    """A member that is no regular file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("1.jpg", JPG), ("1.jpg", JPG), ("1.txt", b"x")], "two members of one name: a.tar, 1.jpg"),
        ([("1.jpg", JPG), ("1.txt", b"x" * (8 << 20) + b"x")], "too large a text of 8388609 bytes"),
        ([("1.jpg", JPG), ("1.json", b"{")], "not JSON"),
        ([("1.jpg", JPG), ("1.json", b"[" * 100_000)], "maximum recursion depth"),
        ([("1.jpg", JPG), ("1.txt", b"\xff\xfe")], "a text that is no UTF-8"),
        ([("1.txt", b"x"), odd("1.jpg", tarfile.SYMTYPE)], "a member is no regular file: a.tar, 1.jpg"),
        ([("1.txt", b"x"), odd("1.jpg", tarfile.LNKTYPE)], "a member is no regular file: a.tar, 1.jpg"),
        ([("1.txt", b"x"), odd("1.jpg", tarfile.CHRTYPE)], "a member is no regular file: a.tar, 1.jpg"),
        ([("/etc/1.jpg", JPG), ("/etc/1.txt", b"x")], "a member's name leads out of the shard: a.tar, /etc/1.jpg"),
        ([("../1.jpg", JPG), ("../1.txt", b"x")], "a member's name leads out of the shard: a.tar, ../1.jpg"),
        ([("1" * 2000 + ".jpg", JPG)], "a member's name is too long"),
    ],
)
def test_what_is_wrong_with_a_sample_breaks_its_row_only(tmp_path: Path, members: Members, reason: str) -> None:
    file = shard(tmp_path / "a.tar", [*sample("0"), *members, *sample("2")])
    rows = rows_of(file)
    assert [row.get("__key__") for row in rows] == ["0", None, "2"]
    assert str(rows[1][BROKEN]).startswith(reason)


def test_a_key_that_comes_again_breaks_the_later_row(tmp_path: Path) -> None:
    file = shard(tmp_path / "a.tar", [*sample("0"), *sample("1"), ("0.json", b"{}")])
    assert [row.get("__key__") for row in rows_of(file)] == ["0", "1", None]
    assert reasons(file) == ["a key comes again after others: a.tar, 0"]


def test_members_without_a_key_are_counted(tmp_path: Path) -> None:
    file = shard(tmp_path / "a.tar", [("README", b"x"), ("._1.jpg", b"x"), *sample("1"), odd("d", tarfile.DIRTYPE)])
    assert len(rows_of(file)) == 1
    assert open_reader(file).left_out == (("members without a key or an extension", 2),)


def test_a_missing_member_is_a_missing_field(tmp_path: Path) -> None:
    assert "txt" not in rows_of(shard(tmp_path / "a.tar", [("1.jpg", JPG), *sample("2")]))[0]


def test_a_truncated_shard_loses_what_is_cut_off_and_says_so(tmp_path: Path) -> None:
    file = shard(tmp_path / "a.tar", [*sample("0"), ("1.txt", b"x"), ("1.jpg", JPG * 200)])
    file.write_bytes(file.read_bytes()[: 6 * 512 + 1000])
    assert [row.get("__key__") for row in rows_of(file)] == ["0", None]
    assert reasons(file) == ["truncated shard: a.tar, 1.jpg"]


def test_a_shard_cut_between_members_is_told(tmp_path: Path) -> None:
    file = shard(tmp_path / "a.tar", [*sample("0"), *sample("1")])
    file.write_bytes(file.read_bytes()[: 4 * 512])
    assert open_reader(file).note == "1 shards, 1 of them without an end mark, perhaps cut off"


@pytest.mark.parametrize("at", [0, 1024, 2048])
def test_a_bad_header_costs_its_own_member(tmp_path: Path, at: int) -> None:
    file = shard(tmp_path / "a.tar", [*sample("0"), *sample("1"), *sample("2")])
    content = bytearray(file.read_bytes())
    content[at : at + 100] = b"x" * 100
    file.write_bytes(content)
    assert [r["__key__"] for r in rows_of(file) if {"jpg", "txt"} <= set(r)] == [
        k for k in "012" if k != ("0" if at < 2048 else "1")
    ]
    assert reasons(file)[0] == "bad header: a.tar"


def test_joined_tars_are_read_to_their_end(tmp_path: Path) -> None:
    parts = [shard(tmp_path / "parts" / f"{i}.tar", sample(str(i))).read_bytes() for i in range(3)]
    (tmp_path / "a.tar").write_bytes(b"".join(parts))
    assert [row["__key__"] for row in rows_of(tmp_path / "a.tar")] == ["0", "1", "2"]


def test_shards_that_cannot_be_read(tmp_path: Path) -> None:
    for i in range(9):
        shard(tmp_path / f"{i}.tar", sample(str(i)))
    (tmp_path / "9.tar").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"9.tar cannot be read \(.*\); 1 of 10 shards are so, check them"):
        len(open_reader(tmp_path))
    reader = open_reader(tmp_path, Options(max_bad=0.1))
    assert len(reader) == 9 and "1 shards left out: 9.tar cannot be read" in reader.note


def test_compressed_shards_are_refused_with_a_remedy(tmp_path: Path) -> None:
    import gzip

    packed = gzip.compress(shard(tmp_path / "a.tar", sample("1")).read_bytes())
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.tar.gz").write_bytes(packed)
    (tmp_path / "a.tar").write_bytes(packed)
    for path in (tmp_path / "p", tmp_path / "p" / "a.tar.gz", tmp_path / "a.tar"):
        with pytest.raises(DataError, match=r"is compressed, so that no member can be read by itself.*gunzip"):
            len(open_reader(path))


def test_missing_shards_of_a_pattern_are_told(tmp_path: Path) -> None:
    shard(tmp_path / "s-0.tar", sample("1"))
    with pytest.raises(DataError, match=r"2 of its 3 files are missing, as s-1.tar"):
        open_reader(tmp_path / "s-{0..2}.tar")
    with pytest.raises(DataError, match="more than 1000000 files"):
        expand("{0..999999}-{0..999999}")


def test_the_index_is_made_once_and_again_when_a_shard_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(index=tmp_path / "index")
    file = shard(tmp_path / "a.tar", sample("1"))
    assert len(rows_of(file, options)) == 1
    with monkeypatch.context() as patch:
        patch.setattr(shards, "look", lambda *_: pytest.fail("the index is made again"))
        assert len(rows_of(file, options)) == 1
    shard(file, [*sample("1"), *sample("2")] + sample("3") * 20)
    assert len(rows_of(file, options)) == 3 + 1 - 1


def test_many_members_are_looked_at_in_parallel_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(6):
        shard(tmp_path / f"{i}.tar", [m for k in range(i + 1) for m in sample(f"{i}-{k}")] + [("x", b"")])
    alone = rows_of(tmp_path)
    monkeypatch.setattr(shards, "IN_PROCESS", 0)
    assert rows_of(tmp_path) == alone and len(alone) == 21
    assert open_reader(tmp_path).left_out == (("members without a key or an extension", 6),)


def test_the_index_holds_no_object_a_row(tmp_path: Path) -> None:
    file = shard(tmp_path / "a.tar", [m for k in range(500) for m in sample(f"{k:06d}")])
    folder = tmp_path / "index"
    len(open_reader(file, Options(index=folder)))
    size = sum(f.stat().st_size for f in folder.rglob("*.npy"))
    assert size <= 500 * (2 * 20 + 6 + 16) + 6 * 128 + 8
    assert isinstance(open_reader(file, Options(index=folder))._index[1]["offsets"], np.memmap)  # type: ignore[attr-defined]


def test_the_fingerprint_is_that_of_names_sizes_and_texts(tmp_path: Path) -> None:
    def made(name: str, text: str, jpg: bytes) -> str:
        file = shard(tmp_path / name / "a.tar", [("1.jpg", jpg), ("1.txt", text.encode())])
        return Dataset(file, DatasetSection(path=str(file))).fingerprint

    assert made("a", "one", JPG) == made("b", "one", JPG) != made("c", "two", JPG)
    assert made("d", "one", JPG + b"x") != made("a", "one", JPG)


def test_conversations_in_shards_have_a_text_and_the_fingerprint_of_their_shards(tmp_path: Path) -> None:
    said = {"conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "a dog"}]}
    file = shard(tmp_path / "a.tar", [("1.jpg", JPG), ("1.json", json.dumps(said).encode())])
    data = Dataset(file, DatasetSection(path=str(file), images="jpg"))
    assert data.reader.read(0, 1)[0]["text"] == "a dog"
    assert data.fingerprint == open_reader(file).fingerprint  # type: ignore[attr-defined]


@pytest.mark.long
@fuzz
@given(st.data())
def test_bytes_in_a_shard_do_no_more_than_break_rows(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    kinds = st.sampled_from([tarfile.REGTYPE] * 4 + [tarfile.SYMTYPE, tarfile.XHDTYPE, b"L", b"K", b"S", b"g", b"D"])
    file = folder / "a.tar"
    with tarfile.open(file, "w") as archive:
        for name in ("0.jpg", "0.txt", "1.jpg", "1.json", "../2.txt", "d/3.0.jpg"):
            info = tarfile.TarInfo(name)
            content = data.draw(st.binary(max_size=600))
            info.size, info.type = len(content), data.draw(kinds)
            archive.addfile(info, io.BytesIO(content))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, min(len(content) - 1, 12 * 512)))] = data.draw(st.integers(0, 255))
    whole = bytes(content) + data.draw(st.binary(max_size=600))
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        rows = rows_of(file)
    except DataError as error:
        assert "\n" not in str(error)
        return
    for row in rows:
        assert row.get("__key__") or row[BROKEN]
        json.dumps(row)
        for value in row.values():
            if isinstance(value, dict) and "offset" in value:
                assert len(locate(value, folder, folder)) == value["size"]  # type: ignore[arg-type]
    assert sorted(p.name for p in folder.iterdir()) == ["a.tar"]
