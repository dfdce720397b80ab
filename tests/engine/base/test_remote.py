"""Files at addresses: read part by part, tried again, and refused where they lead elsewhere."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.base import remote, remote_access
from engine.base.errors import DataError, MachineError
from engine.base.paths import resolve
from engine.data.dataset import Dataset
from engine.data.media import locate
from engine.data.readers.contract import Options
from engine.data.readers.opening import open_reader
from engine.settings.data import DatasetSection
from tests.addresses import Server, served


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server whose failures are tried again at once."""
    monkeypatch.setattr(remote_access, "PAUSE", 0.0)
    remote.look_again()
    remote_access._store.cache_clear()
    remote_access._opened.cache_clear()
    (tmp_path / "files").mkdir()
    with served(tmp_path / "files") as made:
        for key, value in (("ENDPOINT_URL", made.url), ("ACCESS_KEY_ID", "k"), ("SECRET_ACCESS_KEY", "s")):
            monkeypatch.setenv(f"AWS_{key}", value)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        yield made


def table(server: Server, name: str = "bucket/rows.parquet") -> Path:
    """Two thousand rows with texts, and blobs that nobody asks for."""
    file = server.folder / name
    file.parent.mkdir(exist_ok=True)
    columns = {"text": [f"row {i}" for i in range(2000)], "blob": [os.urandom(2000) for _ in range(2000)]}
    pq.write_table(pa.table(columns), file, row_group_size=250)
    return file


def at(url: str) -> Path:
    return resolve(Path("/"), url)


@pytest.mark.parametrize("base", ["http", "s3"])
def test_of_parquet_only_what_is_asked_for_is_read(server: Server, base: str) -> None:
    file = table(server)
    path = at(f"{server.url}/bucket/rows.parquet" if base == "http" else "s3://bucket/rows.parquet")
    reader = open_reader(pickle.loads(pickle.dumps(path)))
    assert len(reader) == 2000
    assert reader.read(1200, 1202, {"text"}) == [{"text": "row 1200"}, {"text": "row 1201"}]
    assert sum(server.sent.values()) < 0.1 * file.stat().st_size


def test_lines_are_read_at_their_places_by_a_kept_index(server: Server, tmp_path: Path) -> None:
    file = server.folder / "rows.jsonl"
    lines = [json.dumps({"text": f"line {i} " + "x" * 500}) for i in range(20_000)]
    file.write_text("\n".join([*lines[:3], "", *lines[3:]]))
    path, options = at(f"{server.url}/rows.jsonl"), Options(index=tmp_path / "index")
    reader = open_reader(path, options)
    assert len(reader) == 20_000 and reader.left_out == (("blank lines", 1),)
    server.sent.clear()
    remote.look_again()
    again = open_reader(path, options)
    assert again.read(15_000, 15_001)[0]["text"].startswith("line 15000 ")
    assert sum(server.sent.values()) < 0.05 * file.stat().st_size


def test_members_of_shards_are_read_at_their_places(server: Server, tmp_path: Path) -> None:
    (server.folder / "bucket").mkdir()
    media = {f"{i:03d}": os.urandom(300_000) for i in range(12)}
    with tarfile.open(server.folder / "bucket" / "a-0000.tar", "w") as tar:
        for key, content in media.items():
            for end, part in (("jpg", content), ("txt", f"text {key}".encode())):
                member = tarfile.TarInfo(f"{key}.{end}")
                member.size = len(part)
                tar.addfile(member, io.BytesIO(part))
    path = at("s3://bucket/a-*.tar")
    (row,) = open_reader(path, Options(index=tmp_path / "index")).read(7, 8)
    assert row["txt"] == "text 007"
    assert sum(server.sent.values()) < 0.5 * sum(map(len, media.values()))
    assert locate(row["jpg"], path.parent, path.parent) == media["007"]


def test_what_rows_name_stays_below_the_folder(server: Server) -> None:
    (server.folder / "data").mkdir()
    (server.folder / "secret.txt").write_text("secret")
    (server.folder / "data" / "a.jpg").write_bytes(b"picture")
    folder = at(f"{server.url}/data/rows.jsonl").parent
    assert locate("a.jpg", folder, folder) == b"picture"
    for name in ("../secret.txt", f"{server.url}/secret.txt", "/http:/127.0.0.1/secret.txt", "/etc/passwd", "b.jpg"):
        for value in (name, {"path": name, "bytes": None}, {"path": name, "offset": 0, "size": 3}):
            with pytest.raises(ValueError):
                locate(value, folder, folder)
    assert "/secret.txt" not in server.sent
    with pytest.raises(ValueError, match="missing file"):  # of a data file on this machine
        locate(f"{server.url}/data/a.jpg", server.folder, server.folder)


def test_failures_pass_or_are_told_in_one_line(server: Server) -> None:
    table(server)
    url = f"{server.url}/bucket/rows.parquet"
    server.answers["/bucket/rows.parquet"] = [503, 429, 500]
    reader = open_reader(at(url))
    remote.look_again()
    server.answers["/bucket/rows.parquet"] = [503] * 4
    with pytest.raises(MachineError, match=r"cannot be read \(HTTP 503, tried 4 times\); check the network"):
        reader.read(0, 1)
    server.answers["/bucket/rows.parquet"] = [403]
    with pytest.raises(MachineError, match=r"access is denied.*environment"):
        open_reader(at(url))
    with pytest.raises(DataError, match="no such file"):
        open_reader(at(f"{server.url}/other.parquet"))
    server.ranges = False
    remote.look_again()
    with pytest.raises(MachineError, match="sends files whole only"):
        open_reader(at(url))


def test_a_file_that_changes_is_noticed(server: Server) -> None:
    file = table(server)
    url = f"{server.url}/bucket/rows.parquet"
    fields = DatasetSection(path=url)
    reader, before = open_reader(at(url)), Dataset(at(url), fields).fingerprint
    assert Dataset(at(url), fields).fingerprint == before
    content = bytearray(file.read_bytes())
    content[100_000] ^= 1
    file.write_bytes(content)
    with pytest.raises(MachineError, match="has changed while it was read"):
        reader.read(1500, 1501)
    remote.look_again()
    assert Dataset(at(url), fields).fingerprint != before


def test_redirects_do_not_lead_into_a_private_network(server: Server) -> None:
    table(server)
    server.moved["/here.parquet"] = f"{server.url}/bucket/rows.parquet"  # the host that the study names
    assert len(open_reader(at(f"{server.url}/here.parquet"))) == 2000
    server.moved["/there.parquet"] = f"http://localhost:{server.server_port}/bucket/rows.parquet"
    with pytest.raises(MachineError, match="a private network, which is not followed"):
        open_reader(at(f"{server.url}/there.parquet"))
    server.moved["/file.parquet"] = "file:///etc/passwd"
    with pytest.raises(MachineError, match="which is not followed"):
        open_reader(at(f"{server.url}/file.parquet"))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://me:word@host/a.parquet", "holds credentials"),
        ("https://host/a.parquet?sign=x", "has a query"),
        ("https://host/../a.parquet", "dots between its slashes"),
        ("https://host/*.parquet", "HTTP lists no files"),
        ("s3://bucket/{a,b}/c.tar", "only the file's name may be a pattern"),
        ("ftp://host/a.parquet", "addresses of ftp are not read"),
    ],
)
def test_addresses_that_are_refused(url: str, says: str) -> None:
    with pytest.raises(DataError, match=says) as told:
        open_reader(at(url))
    assert "word" not in str(told.value)


def test_what_is_kept_in_memory_is_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "CACHED", 8 * remote.BLOCK)
    content = os.urandom(100 * remote.BLOCK)
    (server.folder / "a.tar").write_bytes(content)
    with at(f"{server.url}/a.tar").open("rb") as file:
        assert b"".join(iter(lambda: file.read(30_000), b"")) == content
    assert remote._blocks._size <= remote.CACHED
