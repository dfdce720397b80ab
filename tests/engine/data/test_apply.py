"""Applied recipes: the rows that dj-process keeps, in every form, and nothing lost on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from engine.base.errors import DataError, MachineError
from engine.base.paths import HOME
from engine.data import selection
from engine.data.apply_recipe import Applied, apply_recipe
from engine.data.output import Log
from engine.data.selection import Known
from tests.conftest import run_djsb, the_error, write_jsonl
from tests.engine.data.test_recipes import dj_process

WORDS = ("a", "the", "cat,", "sat!", "on", "x1", "mat.", "été", "3", "&", "zebra")
LONG = "process: [{text_length_filter: {min_len: 6}}]"
Rows = list[dict[str, Any]]


def texts(rows: int) -> Rows:
    rng = np.random.default_rng(1)
    return [{"id": i, "text": " ".join(rng.choice(WORDS, n))} for i, n in enumerate(rng.integers(1, 9, rows))]


def lines(file: Path) -> Rows:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def applied(recipe: str, data: Path, out: Path, **more: Any) -> Applied:
    return apply_recipe(recipe, "r.yaml", data, out, root=data.parent, **more)


# --- the same rows ---


@pytest.mark.long
@pytest.mark.slow
def test_text_filters_keep_what_dj_process_keeps(tmp_path: Path) -> None:
    """Bounds on values of the rows, open, reversed, one-sided and left to the OP; one OP twice."""
    data = write_jsonl(tmp_path / "rows.jsonl", texts(400))
    ratios = sorted({len([c for c in row["text"] if c.isalnum()]) / len(row["text"]) for row in texts(400)})
    low, high = ratios[len(ratios) // 5], ratios[-2]
    recipe = (
        f"process:\n- alphanumeric_filter: {{min_ratio: {low!r}, max_ratio: {high!r}}}\n"
        "- text_length_filter: {min_len: 3, max_len: 30, max_closed_interval: false}\n"
        "- word_repetition_filter: {rep_len: 2, min_ratio: 0, max_ratio: 0.5}\n"
        "- words_num_filter: {min_num: 6, max_num: 6, reversed_range: true}\n"
        "- special_characters_filter: {}\n"
        "- text_length_filter: {min_len: 5, max_len: 40, max_closed_interval: true}\n"
    )
    done = applied(recipe, data, tmp_path / "ours.jsonl")
    theirs = dj_process(tmp_path, recipe, data)
    assert lines(tmp_path / "ours.jsonl") == theirs and 20 < done.rows_out == len(theirs) < 380


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows.jsonl of one to three images each."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "img").mkdir()
    rng = np.random.default_rng(0)
    names = []
    for n in range(24):
        size = (*rng.integers(4, 60, 2).tolist(), 3)
        names.append(f"img/{n}.png")
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(folder / names[-1])
    rows = [{"id": i, "text": f"t {i}", "images": names[i : i + 1 + i % 3]} for i in range(22)]
    write_jsonl(folder / "rows.jsonl", rows)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("many", ["any", pytest.param("all", marks=pytest.mark.long)])
def test_image_filters_keep_what_dj_process_keeps(tmp_path: Path, pictures: Path, many: str) -> None:
    recipe = (
        "image_key: images\nprocess:\n"
        f"- image_shape_filter: {{min_width: 8, max_width: 50, min_height: 10, any_or_all: {many}}}\n"
        f"- image_size_filter: {{min_size: '300', max_size: 8KB, any_or_all: {many}}}\n"
        f"- image_aspect_ratio_filter: {{min_ratio: 0.9, max_ratio: 1.1, reversed_range: true, any_or_all: {many}}}\n"
    )
    done = applied(recipe, pictures / "rows.jsonl", tmp_path / "ours.jsonl")
    theirs = dj_process(tmp_path, recipe, pictures / "rows.jsonl")
    assert [row["id"] for row in lines(tmp_path / "ours.jsonl")] == [row["id"] for row in theirs]
    assert 0 < done.rows_out < 22


@pytest.mark.parametrize("recipe", [LONG, "process: [{alphanumeric_filter: {min_ratio: 0.5, max_ratio: 0.9}}]"])
def test_known_columns_keep_the_same_rows_and_start_no_worker(
    tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", texts(300))
    applied(recipe, data, tmp_path / "one.jsonl")
    (name,) = [op for op in ("text_length", "alphanumeric") if op in recipe]
    values = np.array([
        len(row["text"]) if name == "text_length" else sum(map(str.isalnum, row["text"])) / len(row["text"])
        for row in texts(300)
    ]).round(10)  # fmt: skip
    key = {"text_length": "text_len", "alphanumeric": "alnum_ratio"}[name]
    known = Known(np.ones(300, bool), {f"{name}_filter": {key: (values, values)}})
    monkeypatch.setattr(selection, "answer", None)
    done = applied(recipe, data, tmp_path / "two.jsonl", known=lambda *_: known)
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert done.known == (f"{name}_filter",) and 0 < done.rows_out < 300


def test_rows_that_a_study_has_not_scanned_well_are_judged_anew(tmp_path: Path) -> None:
    rows = texts(50)
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    values = np.array([float(len(row["text"])) for row in rows])
    values[7] = np.nan
    known = Known(np.arange(50) != 7, {"text_length_filter": {"text_len": (values, values)}})
    applied(LONG, data, tmp_path / "out.jsonl", known=lambda *_: known)
    assert lines(tmp_path / "out.jsonl") == [row for row in rows if len(row["text"]) >= 6]


def test_a_few_bad_rows_start_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = texts(50)
    rows[7]["text"], rows[9]["text"] = " ", None
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    values = np.array([len(row["text"] or "") for row in rows], float)
    values[[7, 9]] = np.nan
    known = Known(~np.isnan(values), {"text_length_filter": {"text_len": (values, values)}})
    monkeypatch.setattr(selection, "answer", None)
    done = applied(LONG, data, tmp_path / "out.jsonl", known=lambda *_: known)
    assert done.bad == ((7, "empty text"), (9, "no text"))
    assert lines(tmp_path / "out.jsonl") == [row for row in rows if len(row["text"] or "") >= 6]


def test_known_columns_import_no_heavy_library(tmp_path: Path) -> None:
    """pandas takes a second, and pyarrow would import it for arrays of NumPy."""
    pq.write_table(pa.Table.from_pylist(texts(50)), tmp_path / "rows.parquet")
    (tmp_path / "recipe.yaml").write_text(LONG)
    np.save(tmp_path / "values.npy", [float(len(row["text"])) for row in texts(50)])
    code = (
        "import sys, app.cli.main, app.text.progress, app.commands.apply\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from engine.data.selection import Known\n"
        "from engine.data.apply_recipe import apply_recipe\n"
        "values = np.load('values.npy')\n"
        "known = Known(np.ones(50, bool), {'text_length_filter': {'text_len': (values, values)}})\n"
        "apply_recipe(Path('recipe.yaml').read_text(), 'r', Path('rows.parquet').resolve(), Path('out.parquet'),"
        " known=lambda *_: known)\n"
        "heavy = {'pandas', 'rich', 'psutil', 'datasets', 'data_juicer', 'torch', 'PIL.Image'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(HOME)}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [r for r in texts(50) if len(r["text"]) >= 6]


# --- where they go ---


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
def test_shards_hold_all_rows_in_order(tmp_path: Path, form: str) -> None:
    rows = texts(100)
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    out = tmp_path / "out"
    done = applied(LONG, data, out, form=form, shard_rows=30)
    expected = [row for row in rows if len(row["text"]) >= 6]
    shards = sorted(out.iterdir())
    assert [s.name for s in shards] == [f"part-{n:06d}.{form}" for n in range(-(-len(expected) // 30))]
    found = []
    for shard in shards:
        if form == "parquet":
            found.append(pq.read_table(shard).to_pylist())
        else:
            with pa.input_stream(shard, compression={"gz": "gzip", "zst": "zstd"}.get(form[6:])) as file:
                found.append([json.loads(line) for line in file.read().splitlines()])
    assert [len(part) for part in found[:-1]] == [30] * (len(found) - 1)
    assert [row for part in found for row in part] == expected and done.rows_out == len(expected)


def test_samples_hold_text_row_and_images(tmp_path: Path, pictures: Path) -> None:
    out = tmp_path / "out.tar"
    applied("image_key: images\nprocess: [{text_length_filter: {min_len: 3}}]", pictures / "rows.jsonl", out)
    with tarfile.open(out) as tar:
        content = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
    assert json.loads(content["000000001.json"]) == {"id": 1, "text": "t 1"}
    assert content["000000001.txt"] == b"t 1"
    assert content["000000001.1.png"] == (pictures / "img/2.png").read_bytes()
    assert content["000000000.png"] == (pictures / "img/0.png").read_bytes()


@pytest.mark.parametrize("shard_rows", [None, 5])
def test_media_are_named_from_where_the_rows_lie_or_copied(
    tmp_path: Path, pictures: Path, shard_rows: int | None
) -> None:
    """The folder of the rows is reached by a link, from which `..` leads elsewhere."""
    recipe = "image_key: images\nprocess: [{text_length_filter: {min_len: 3}}]"
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    for copied in (False, True):
        out = tmp_path / "link" / f"{copied}{'' if shard_rows else '.jsonl'}"
        applied(recipe, pictures / "rows.jsonl", out, shard_rows=shard_rows, with_media=copied)
        files = sorted(out.glob("part-*")) if shard_rows else [out]
        rows = [row for file in files for row in lines(file)]
        folder = files[0].parent
        assert len(rows) == 22
        for row, before in zip(rows, lines(pictures / "rows.jsonl"), strict=True):
            for name, old in zip(row["images"], before["images"], strict=True):
                assert not Path(name).is_absolute() and (name.startswith("..") is not copied)
                assert (folder / name).read_bytes() == (pictures / old).read_bytes()


def test_bytes_in_rows_become_files_where_lines_are_written(tmp_path: Path, pictures: Path) -> None:
    png = (pictures / "img/0.png").read_bytes()
    image = pa.array([{"bytes": png, "path": None}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"text": ["some words"], "images": image}), tmp_path / "in.parquet")
    recipe = "image_key: images\nprocess: [{text_length_filter: {min_len: 3}}]"
    with pytest.raises(DataError, match=r"out\.jsonl cannot hold the rows .*--with-media"):
        applied(recipe, tmp_path / "in.parquet", tmp_path / "out.jsonl")
    applied(recipe, tmp_path / "in.parquet", tmp_path / "out.jsonl", with_media=True)
    (row,) = lines(tmp_path / "out.jsonl")
    assert (tmp_path / row["images"]["path"]).read_bytes() == png and row["images"]["path"].endswith(".png")
    assert not [f for f in tmp_path.iterdir() if f.name.startswith(".")]


def test_media_in_a_tar_are_copied_or_the_rows_stay_beside_it(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "in").mkdir()
    data = write_jsonl(tmp_path / "in" / "rows.jsonl", [{"text": "some words", "images": "img/0.png"}])
    with tarfile.open(tmp_path / "in" / "img.tar", "w") as tar:
        tar.add(pictures / "img/0.png", "img/0.png")
    recipe = "image_key: images\nprocess: [{text_length_filter: {min_len: 3}}]"
    with pytest.raises(DataError, match=r"lie in a tar beside it.*--with-media"):
        applied(recipe, data, tmp_path / "out.jsonl")
    assert [f.name for f in tmp_path.iterdir()] == ["in"]
    applied(recipe, data, tmp_path / "out.jsonl", with_media=True)
    (row,) = lines(tmp_path / "out.jsonl")
    assert (tmp_path / row["images"]).read_bytes() == (pictures / "img/0.png").read_bytes()
    applied(recipe, data, tmp_path / "in" / "beside.jsonl")
    assert lines(tmp_path / "in" / "beside.jsonl") == lines(data)


# --- nothing is lost ---


def refuse(data: Path, out: Path, message: str, **more: Any) -> None:
    with pytest.raises(DataError, match=message) as caught:
        applied(LONG, data, out, **more)
    assert "\n" not in str(caught.value)


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "in" / "rows.jsonl", texts(20))
    refuse(data, data.parent, "holds other files", overwrite=True)
    refuse(data, tmp_path / "out", "must end in")
    refuse(data, tmp_path / "out.parquet", "name of one file", shard_rows=3)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    refuse(data, tmp_path / "out", "holds other files", overwrite=True)
    (tmp_path / "out" / "notes.txt").unlink()
    applied(LONG, data, tmp_path / "out", shard_rows=9)
    refuse(data, tmp_path / "out", "holds rows already")
    applied(LONG, data, tmp_path / "out", form="parquet", overwrite=True)
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["part-000000.parquet"]
    refuse(tmp_path / "out", tmp_path / "out" / "x.jsonl", "inside it")
    refuse(tmp_path / "out" / "*.parquet", tmp_path / "out" / "part-000000.parquet", "data itself", overwrite=True)


def test_media_that_are_not_of_this_output_stay(tmp_path: Path, pictures: Path) -> None:
    recipe = "image_key: images\nprocess: [{text_length_filter: {min_len: 3}}]"
    (tmp_path / "out-media").mkdir()
    (tmp_path / "out-media" / "mine.txt").write_text("mine")
    applied(LONG, write_jsonl(tmp_path / "in" / "rows.jsonl", texts(9)), tmp_path / "out.jsonl", overwrite=True)
    with pytest.raises(DataError, match="out-media exists already"):
        applied(recipe, pictures / "rows.jsonl", tmp_path / "out.parquet", with_media=True)
    assert (tmp_path / "out-media" / "mine.txt").read_text() == "mine"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["in", "out-media", "out.jsonl"]


def stopped(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, after: int, error: BaseException) -> None:
    """An application that an error ends after so many shards."""
    plain: Callable[..., None] = Log.finish

    def finish(self: Log, shard: int, told: dict[str, Any]) -> None:
        if shard == after:
            raise error
        plain(self, shard, told)

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(Log, "finish", finish)
        applied(LONG, data, out, shard_rows=10)


def test_a_half_written_line_of_the_log_counts_as_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", texts(60))
    out = tmp_path / "out"
    stopped(data, out, monkeypatch, 2, OSError(28, "No space left on device"))
    log = out / ".djsb-apply" / "log.jsonl"
    log.write_bytes(log.read_bytes()[:-9])
    first = (out / "part-000000.jsonl").stat().st_mtime_ns
    applied(LONG, data, out, shard_rows=10)
    assert [row for f in sorted(out.iterdir()) for row in lines(f)] == [r for r in texts(60) if len(r["text"]) >= 6]
    assert (out / "part-000000.jsonl").stat().st_mtime_ns == first


def test_a_finished_shard_that_was_cut_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", texts(60))
    out = tmp_path / "out"
    stopped(data, out, monkeypatch, 2, MachineError("no memory"))
    (out / "part-000001.jsonl").write_text("")
    applied(LONG, data, out, shard_rows=10)
    assert [row for f in sorted(out.iterdir()) for row in lines(f)] == [r for r in texts(60) if len(r["text"]) >= 6]


def test_other_data_do_not_go_on_with_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", texts(60))
    stopped(data, tmp_path / "out", monkeypatch, 2, KeyboardInterrupt())
    write_jsonl(data, texts(61)[1:])
    refuse(data, tmp_path / "out", "part-000000.jsonl exists already", shard_rows=10)
    applied(LONG, data, tmp_path / "out", shard_rows=10, overwrite=True)
    assert [row for f in sorted((tmp_path / "out").iterdir()) for row in lines(f)] == [
        row for row in texts(61)[1:] if len(row["text"]) >= 6
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", texts(5))
    (tmp_path / "recipe.yaml").write_text(LONG)
    (tmp_path / "closed").mkdir(mode=0o500)
    out = tmp_path / "closed" / "out.jsonl"
    assert "no permission" in the_error(run_djsb("apply", tmp_path / "recipe.yaml", "--data", data, "--out", out))
