"""Files and folders written whole: nothing half is left, and every damage shows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.base import durable
from engine.base.arrays import save_array
from engine.base.durable import Damaged, check, is_whole, seal_folder, sealed, share, written_whole


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def become_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: list[Callable[[Path], None]] = [flip, truncate, Path.unlink, become_folder, lambda f: f.write_bytes(b"")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_array(tmp_path / "rows.npy", np.arange(500))
    return tmp_path / "rows.npy"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with written_whole(tmp_path / "model") as scratch:
        (scratch / "deep").mkdir(parents=True)
        (scratch / "deep" / "weights").write_bytes(bytes(range(200)))
        (scratch / "config.json").write_text("{}")
    return tmp_path / "model"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_shows(file: Path, damage: Callable[[Path], None]) -> None:
    assert check(file) == (1, file.stat().st_size) and is_whole(file)
    damage(file)
    with pytest.raises(Damaged, match=r"rows\.npy"):
        check(file)
    assert list(sealed(file.parent)) == [file]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_a_folder_shows(folder: Path, damage: Callable[[Path], None]) -> None:
    assert check(folder) == (2, 202)
    damage(folder / "deep" / "weights")
    with pytest.raises(Damaged, match="deep/weights"):
        check(folder)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_seal_shows(file: Path, damage: Callable[[Path], None]) -> None:
    damage(file.with_name("rows.npy.seal"))
    with pytest.raises(Damaged):
        check(file)
    save_array(file, np.arange(3))
    assert is_whole(file) and np.load(file).tolist() == [0, 1, 2]


def test_what_fails_leaves_nothing_and_the_old_file_stays(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(ZeroDivisionError), written_whole(file) as scratch:
        scratch.write_bytes(b"half")
        _ = 1 / 0
    assert sorted(p.name for p in file.parent.iterdir()) == ["rows.npy", "rows.npy.seal"]
    assert file.read_bytes() == before and is_whole(file)


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"no room.*target"), written_whole(tmp_path / "target") as scratch:
        scratch.write_bytes(b"half")
        raise OSError("no room")
    assert not list(tmp_path.iterdir())


def test_a_large_file_is_summed_only_when_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(durable, "QUICK", 10_000)
    save_array(tmp_path / "a.npy", np.zeros(5_000))
    content = bytearray((tmp_path / "a.npy").read_bytes())
    content[-1] ^= 1
    (tmp_path / "a.npy").write_bytes(content)
    check(tmp_path / "a.npy")
    with pytest.raises(Damaged, match="other bytes"):
        check(tmp_path / "a.npy", deep=True)
    content[70] ^= 1  # the shape in its header
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(Damaged, match="other bytes"):
        check(tmp_path / "a.npy")


def test_a_folder_filled_in_its_place_takes_its_seals_in(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    save_array(cache / "a.npy", np.arange(3))
    with written_whole(cache / "tokenizer") as scratch:
        scratch.mkdir()
        (scratch / "vocab").write_text("a b")
    (cache / ".part-left").write_text("of a killed run")
    (cache / "named.seal").write_text("a file of its own")
    (cache / "meta.json").write_text("{}")
    assert not is_whole(cache)
    seal_folder(cache)
    assert set(durable.read_seal(cache / ".seal")) == {"a.npy", "tokenizer/vocab", "meta.json", "named.seal"}
    assert sorted(p.name for p in cache.iterdir()) == [".seal", "a.npy", "meta.json", "named.seal", "tokenizer"]
    assert check(cache)[0] == 4 and list(sealed(tmp_path)) == [cache]

    other = tmp_path / "other"
    other.mkdir()
    for name in ("a.npy", "tokenizer", "missing"):
        share(cache, name, other)
    assert list(sealed(other)) == [other / "a.npy", other / "tokenizer"]
    assert check(other / "a.npy", deep=True)[0] == check(other / "tokenizer", deep=True)[0] == 1
    shutil.rmtree(cache)
    assert (other / "tokenizer" / "vocab").read_text() == "a b"


def test_files_beside_one(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    picture = tmp_path / "media" / "1.png"
    picture.write_bytes(b"png")
    with written_whole(tmp_path / "rows.jsonl", [picture]) as scratch:
        scratch.write_text("{}\n")
    assert check(tmp_path / "rows.jsonl") == (2, 6)
    picture.unlink()
    with pytest.raises(Damaged, match=r"media/1\.png is missing"):
        check(tmp_path / "rows.jsonl")
