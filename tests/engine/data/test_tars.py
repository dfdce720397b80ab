"""Tars beside the data: only what rows lack is unpacked, and a bad member costs its own row only."""

from __future__ import annotations

import gzip
import io
import json
import resource
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.durable import SEAL, is_whole
from engine.base.errors import DataError
from engine.data import tars
from engine.data.dataset import Dataset
from engine.data.tars import explained, media_root, unpack
from engine.settings.data import DatasetSection

Member = tuple[tarfile.TarInfo, bytes]


def data_of(folder: Path, names: list[str]) -> Dataset:
    """One row an image."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": "a", "images": [n]}) + "\n" for n in names))
    return Dataset(file, DatasetSection(path=str(file), images="images"))


def member(name: str, content: bytes = b"picture") -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, content


def tar_of(file: Path, *members: Member) -> bytes:
    with tarfile.open(file, "w:gz" if file.name.endswith("gz") else "w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return file.read_bytes()


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != SEAL)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
def test_only_members_that_rows_lack_are_unpacked(tmp_path: Path, name: str) -> None:
    data = data_of(tmp_path / "data", ["i/0.png", "./i/1.png", "here.png"])
    (tmp_path / "data" / "here.png").write_bytes(b"mine")
    tar_of(tmp_path / "data" / name, member("./i/0.png"), member("i/1.png"), member("here.png"), member("other.txt"))
    assert media_root(data.path, tmp_path / "state") == tmp_path / "data"
    assert unpack(data, tmp_path / "state") == {}
    root = media_root(data.path, tmp_path / "state")
    assert files(root) == ["i/0.png", "i/1.png"] and is_whole(root)
    assert (root / "./i/1.png").read_bytes() == b"picture"


def test_media_that_are_files_leave_the_tar_alone(tmp_path: Path) -> None:
    data = data_of(tmp_path / "data", ["here.png"])
    (tmp_path / "data" / "here.png").write_bytes(b"mine")
    tar_of(tmp_path / "data" / "backup.tar", member("here.png"))
    (tmp_path / "data" / "broken.tar.gz").write_bytes(b"not a tar")
    assert unpack(data, tmp_path / "state") == {}
    assert not (tmp_path / "state").exists()


def test_unsafe_members_are_left_out_and_the_others_are_not(tmp_path: Path) -> None:
    link, hard, device = (tarfile.TarInfo(n) for n in ("link.png", "hard.png", "null.png"))
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard.type, hard.linkname = tarfile.LNKTYPE, "good.png"
    device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 3
    way = tarfile.TarInfo("way")
    way.type, way.linkname = tarfile.SYMTYPE, "../../.."
    names = ["../../evil", "link.png", "hard.png", "null.png", "way", "way/evil", "good.png"]
    data = data_of(tmp_path / "deep" / "data", names)
    tar_of(
        tmp_path / "deep" / "data" / "a.tar", member("../../evil"), (link, b""), (hard, b""), (device, b""), (way, b""),
        member("way/evil"), member("good.png"),
    )  # fmt: skip
    refused = unpack(data, tmp_path / "deep" / "state")
    assert refused["../../evil"] == "in a.tar it leads out of the study"
    assert {refused[n] for n in ("link.png", "hard.png", "null.png", "way")} == {"in a.tar it is no regular file"}
    root = media_root(data.path, tmp_path / "deep" / "state")
    assert files(root) == ["good.png", "way/evil"]  # in a folder of that name: no link was made
    assert list(tmp_path.rglob("evil")) == [root / "way" / "evil"]
    assert explained("missing file link.png", refused) == "missing file link.png: in a.tar it is no regular file"
    assert explained("no text", refused) == "no text"


def test_a_bad_header_costs_its_own_member_only(tmp_path: Path) -> None:
    data = data_of(tmp_path / "data", ["0.png", "1.png", "2.png"])
    file = tmp_path / "data" / "a.tar"
    content = bytearray(tar_of(file, *(member(f"{i}.png") for i in range(3))))
    content[1024 : 1024 + 100] = b"x" * 100  # the second header
    file.write_bytes(content)
    assert unpack(data, tmp_path / "state") == {"1.png": "a.tar is broken: it has a bad header"}
    assert files(media_root(data.path, tmp_path / "state")) == ["0.png", "2.png"]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_of_a_truncated_tar_what_is_whole_is_used(tmp_path: Path, name: str) -> None:
    noise = b"".join(bytes([i * 37 % 251]) for i in range(40_000))
    data = data_of(tmp_path / "data", ["0.png", "1.png", "2.png"])
    file = tmp_path / "data" / name
    content = tar_of(file, *(member(f"{i}.png", bytes(b ^ i for b in noise)) for i in range(3)))
    if name.endswith("gz"):
        with gzip.open(file, "rb") as plain:
            cut = len(gzip.compress(plain.read(60_000)))
        content = content[: min(cut, len(content) - 20)]
    else:
        content = content[:60_000]
    file.write_bytes(content)
    refused = unpack(data, tmp_path / "state")
    root = media_root(data.path, tmp_path / "state")
    whole = files(root)
    assert {f"{i}.png" for i in range(3)} == set(whole) | set(refused)
    assert "2.png" in refused
    assert all((root / n).stat().st_size == len(noise) for n in whole)


def test_limits_of_size_and_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of(tmp_path / "data", ["0.png", "1.png"])
    tar_of(tmp_path / "data" / "a.tar", member("0.png", b"x" * 5000), member("1.png"))
    monkeypatch.setattr(tars, "LARGEST", 4000)
    assert unpack(data, tmp_path / "state") == {"0.png": "in a.tar it has 5000 bytes, more than 4000"}
    monkeypatch.undo()
    monkeypatch.setattr(tars.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 4000}))
    with pytest.raises(DataError, match="no space for 5000 bytes"):
        unpack(data, tmp_path / "state")


@given(st.data())
def test_bytes_in_a_tar_do_no_more_than_leave_rows_out(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    rows = data_of(folder / "data", ["0.png", "d/1.png"])
    file = folder / "data" / "a.tar"
    kinds = st.sampled_from(
        [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, b"S", b"x", b"g"]
    )
    members = []
    for name in ("0.png", "../0.png", "d/1.png"):
        info, content = member(name, data.draw(st.binary(max_size=600)))
        info.type = data.draw(kinds)
        members.append((info, content))
    content = bytearray(tar_of(file, *members))
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(content)[: data.draw(st.integers(0, len(content)))])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = unpack(rows, folder / "state")
    assert set(refused) <= {"0.png", "d/1.png"}
    outside = [p for p in folder.rglob("*") if p.is_file() and not p.is_relative_to(folder / "state" / "media")]
    assert sorted(outside) == [file, rows.path]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def zip_of(file: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_zip_beside_the_data_is_unpacked_as_a_tar_is(tmp_path: Path, method: int) -> None:
    data = data_of(tmp_path / "data", ["00453/1.jpg", "00453/2.jpg"])
    zip_of(
        tmp_path / "data" / "images.zip",
        ("00453/1.jpg", b"one" * 99),
        ("00453/2.jpg", b"two"),
        ("x", b"y"),
        method=method,
    )
    assert unpack(data, tmp_path / "state") == {}
    root = media_root(data.path, tmp_path / "state")
    assert files(root) == ["00453/1.jpg", "00453/2.jpg"] and (root / "00453/1.jpg").read_bytes() == b"one" * 99


def test_bad_members_of_a_zip_cost_their_rows_only(tmp_path: Path) -> None:
    data = data_of(tmp_path / "data", ["a.jpg", "../b.jpg", "link.jpg", "bad.jpg", "locked.jpg"])
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = 0o120777 << 16
    zip_of(
        tmp_path / "data" / "i.zip", ("a.jpg", b"a"), ("../b.jpg", b"b"), ("bad.jpg", b"BADBAD"), ("locked.jpg", b"c")
    )
    with zipfile.ZipFile(tmp_path / "data" / "i.zip", "a") as archive:
        archive.writestr(link, "/etc/passwd")
    content = bytearray((tmp_path / "data" / "i.zip").read_bytes())
    at = content.index(b"BADBAD")
    content[at : at + 3] = b"WRO"
    at = content.index(b"locked.jpg") - 30 + 6
    content[at] |= 1  # it says that it is encrypted
    at = content.rindex(b"locked.jpg") - 46 + 8
    content[at] |= 1
    (tmp_path / "data" / "i.zip").write_bytes(content)
    told = unpack(data, tmp_path / "state")
    assert told["../b.jpg"] == "in i.zip it leads out of the study"
    assert told["link.jpg"] == "in i.zip it is no regular file"
    assert "Bad CRC-32" in told["bad.jpg"] and "encrypted" in told["locked.jpg"]
    assert files(media_root(data.path, tmp_path / "state")) == ["a.jpg"]


def test_a_zip_that_is_none_is_told(tmp_path: Path) -> None:
    data = data_of(tmp_path / "data", ["a.jpg"])
    (tmp_path / "data" / "i.zip").write_bytes(b"no zip")
    assert unpack(data, tmp_path / "state") == {"a.jpg": "i.zip is broken: File is not a zip file"}
