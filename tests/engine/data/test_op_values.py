"""What OPs say of a chunk: headers and shared decoding change no value, and no row is blamed for the machine."""

from __future__ import annotations

import errno
import io
import os
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engine.base.errors import MachineError, OpError
from engine.data import datajuicer, op_values
from engine.data.dataset import Dataset
from engine.data.images import check_image
from engine.data.op_values import HEADERS, Job, OpRun, compute_chunk, extremes
from engine.data.readers.contract import Options
from engine.data.readers.opening import open_reader
from engine.data.scan import inspect
from engine.settings.data import DatasetSection
from tests.conftest import write_jsonl
from tests.engine.data import tiny_models

XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 47, 3)).astype(np.uint8))


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def turned(way: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = way
    return exif.tobytes()


def png(*chunks: tuple[bytes, bytes], after: bool) -> bytes:
    """A PNG with further chunks before or after its pixels."""
    plain = saved(PICTURE, "PNG")
    extra = b"".join(
        struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks
    )
    at = plain.index(b"IEND" if after else b"IDAT") - 4
    return plain[:at] + extra + plain[at:]


def pictures() -> dict[str, bytes]:
    """Every kind of image that is read, turned in every way that its kind can say."""
    made = {f"turned {n}.jpg": saved(PICTURE, "JPEG", exif=turned(n)) for n in range(10)}
    made |= {f"turned {n}.webp": saved(PICTURE, "WEBP", exif=turned(n)) for n in (1, 6)}
    made |= {f"turned {n}.tiff": saved(PICTURE, "TIFF", exif=turned(n)) for n in (1, 6)}
    made |= {
        f"plain.{form.lower()}": saved(PICTURE, form) for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF")
    }
    made["xmp.jpg"] = saved(PICTURE, "JPEG", xmp=XMP.encode())
    made["cmyk.jpg"] = saved(PICTURE.convert("CMYK"), "JPEG")
    made["two.mpo"] = saved(PICTURE, "MPO", save_all=True, append_images=[PICTURE], exif=turned(8))
    made["moving.webp"] = saved(PICTURE, "WEBP", save_all=True, append_images=[PICTURE.rotate(3)])
    made["moving.gif"] = saved(PICTURE, "GIF", save_all=True, append_images=[PICTURE.rotate(3)])
    made["16 bits.png"] = saved(Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)), "PNG")
    exif = turned(6)[6:]
    for after in (False, True):
        made[f"exif {after}.png"] = png((b"eXIf", exif), after=after)
        made[f"xmp {after}.png"] = png((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.encode()), after=after)
        raw = b"Raw profile type exif\0\nexif\n      %d\n%s\n" % (len(exif), (b"Exif\0\0" + exif).hex().encode())
        made[f"raw {after}.png"] = png((b"tEXt", raw), after=after)
        made[f"words {after}.png"] = png((b"tEXt", b"Software\0tiff:Orientation=6"), after=after)
    info = PngInfo()
    info.add_text("Comment", "x" * 5000, zip=True)
    made["comment.png"] = saved(PICTURE, "PNG", pnginfo=info)
    return made


def chunk_of(folder: Path, rows: list[dict[str, Any]], ops: dict[str, Any]) -> op_values.ChunkResult:
    """All OPs on these rows, by the names of the OPs."""
    op_values._built.clear()
    write_jsonl(folder / "rows.jsonl", rows)
    fields = DatasetSection.model_validate({"path": "rows.jsonl", "images": "images", "text": None, "id": None})
    runs = tuple(OpRun(name, tuple(params.items()), name) for name, params in ops.items())
    data = Dataset(folder / "rows.jsonl", fields)
    return compute_chunk(Job(data, folder, runs, 0, len(rows), np.array([], np.int64)))


def write_pictures(folder: Path) -> list[str]:
    made = pictures()
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return sorted(made)


def test_what_headers_say_equals_what_data_juicer_computes(tmp_path: Path) -> None:
    names = write_pictures(tmp_path)
    rows = [[name] for name in names] + [names[:3], [names[4], names[4]], []]
    _, _, values, unreadable, _ = chunk_of(tmp_path, [{"images": row} for row in rows], {op: {} for op in HEADERS})
    paths = [[str(tmp_path / name) for name in row] for row in rows]
    for name in HEADERS:
        op = datajuicer.load_op(name, {})
        batch = {"images": paths, "__dj__stats__": [{} for _ in rows], "__dj__context__": [{} for _ in rows]}
        stats = op.compute_stats_batched(batch)["__dj__stats__"]
        expected = np.array([line for key in op_values.get_op(name).statistics for line in extremes(stats, key)])
        assert np.array_equal(values[name], expected, equal_nan=True), name
        assert unreadable[name] == [(len(rows) - 1, f"no finite {key}") for key in op_values.get_op(name).statistics]
    looks = {name: check_image(tmp_path / name) for name in names}
    assert (looks["turned 6.jpg"].width, looks["turned 6.jpg"].height) == (30, 47)
    unsure = {name for name, look in looks.items() if not look.sure}
    told = {f"{kind} {after}.png" for kind in ("exif", "xmp", "raw") for after in (False, True)}
    assert unsure == told | {"moving.gif", "plain.gif", "plain.tiff", "turned 1.tiff", "turned 6.tiff"}


def test_nothing_is_decoded_for_what_headers_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(saved(PICTURE, "JPEG"))
    monkeypatch.setattr(op_values.datajuicer, "load_op", lambda *_: pytest.fail("an OP was built"))
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("an image was decoded"))
    values = chunk_of(tmp_path, [{"images": ["a.jpg"]}], {op: {} for op in HEADERS})[2]
    assert values["image_shape_filter"][:, 0].tolist() == [47, 47, 30, 30]


class Looks:
    """An OP that takes its image by Data-Juicer's context, as those with a model do."""

    def compute_stats_batched(self, batch: dict[str, Any], context: bool = False) -> dict[str, Any]:
        from data_juicer.utils.mm_utils import load_data_with_context, load_image

        for i, names in enumerate(batch["images"]):
            batch, images = load_data_with_context(batch, context, names, load_image, sample_idx=i)
            batch["__dj__stats__"][i]["image_nsfw_score"] = [float(np.mean(images[n])) for n in names]
        return batch


def test_an_image_is_decoded_once_for_all_ops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datajuicer.prepare()
    from data_juicer.utils import mm_utils

    decoded: list[str] = []
    load = mm_utils.load_image
    monkeypatch.setattr(mm_utils, "load_image", lambda name: decoded.append(Path(name).name) or load(name))
    monkeypatch.setattr(op_values, "_op_for", lambda _: Looks())
    monkeypatch.setattr(op_values, "PIXELS", 2 * 30 * 47)  # two rows at a time
    names = [f"turned {n}.jpg" for n in range(5)]
    write_pictures(tmp_path)
    # three OPs of one kind, as runs of other parameters
    write_jsonl(tmp_path / "rows.jsonl", [{"images": [name]} for name in names])
    fields = DatasetSection.model_validate({"path": "rows.jsonl", "images": "images", "text": None, "id": None})
    runs = tuple(OpRun("image_nsfw_filter", (), str(n)) for n in range(3))
    job = Job(Dataset(tmp_path / "rows.jsonl", fields), tmp_path, runs, 0, 5, np.array([1], np.int64))
    values = compute_chunk(job)[2]
    assert decoded == [name for name in names if name != "turned 1.jpg"]
    assert np.array_equal(values["0"], values["2"], equal_nan=True)
    assert np.flatnonzero(np.isnan(values["0"][0])).tolist() == [1]


def test_images_in_memory_are_decoded_as_files_are_and_none_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datajuicer.prepare()
    made = pictures()
    write_pictures(tmp_path)
    monkeypatch.setattr(op_values, "_op_for", lambda _: Looks())
    fields = DatasetSection.model_validate({"path": "rows.jsonl", "images": "images", "text": None, "id": None})
    run = (OpRun("image_nsfw_filter", (), "k"),)

    def values(rows: list[dict[str, Any]]) -> op_values.ChunkResult:
        data = Dataset(tmp_path / "rows.jsonl", fields)
        vars(data)["reader"] = SimpleNamespace(read=lambda *_: rows)
        return compute_chunk(Job(data, tmp_path, run, 0, len(rows), np.array([], np.int64)))

    names = sorted(made)
    paths = values([{"images": [name, name, "plain.png"]} for name in names])
    with monkeypatch.context() as patched:
        patched.setattr("engine.data.media.scratch", lambda: pytest.fail("a file was written"))
        memory = values([{"images": [made[name], {"bytes": made[name]}, "plain.png"]} for name in names])
    assert not np.isnan(paths[2]["k"]).any()
    assert np.array_equal(memory[2]["k"], paths[2]["k"])
    broken = made["plain.bmp"][:-900]
    told = values([{"images": [broken]}, {"images": [made["plain.jpeg"]]}])
    assert [row for row, _ in told[3]["k"]] == [0]
    assert not np.isnan(told[2]["k"][:, 1]).any()


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), MachineError),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), MachineError),
        (ModuleNotFoundError("No module named 'nltk'"), MachineError),
        (MemoryError(), MachineError),
        (OpError("it would download x"), OpError),
        (ValueError("broken row"), None),
    ],
)
def test_no_row_is_blamed_for_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, error: type[Exception] | None
) -> None:
    class Fails:
        def compute_stats_batched(self, batch: dict[str, Any]) -> dict[str, Any]:
            if len(batch["images"]) > 1 and not isinstance(raised, OpError):
                raise ValueError("a batch")
            raise raised

    monkeypatch.setattr(op_values, "_op_for", lambda _: Fails())
    write_pictures(tmp_path)
    rows = [{"images": ["plain.png"]}, {"images": ["plain.jpeg"]}]
    if error:
        with pytest.raises(error):
            chunk_of(tmp_path, rows, {"image_nsfw_filter": {}})
        return
    unreadable = chunk_of(tmp_path, rows, {"image_nsfw_filter": {}})[3]
    assert unreadable["image_nsfw_filter"] == [(n, "ValueError: broken row") for n in range(2)]


def test_the_scan_blames_no_row_for_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(saved(PICTURE, "JPEG"))
    fields = DatasetSection.model_validate({"path": "rows.jsonl", "images": "images", "text": None, "id": None})
    data = Dataset(tmp_path / "rows.jsonl", fields)
    assert inspect({"images": ["a.jpg"]}, data, tmp_path, tmp_path) is None

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(MachineError, match="raise the limit of open files"):
        inspect({"images": ["a.jpg"]}, data, tmp_path, tmp_path)


def test_a_model_that_cannot_be_loaded_is_no_fault_of_a_row(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    write_pictures(tmp_path)
    with pytest.raises(OpError, match="image_nsfw_filter cannot load its model: "):
        chunk_of(
            tmp_path, [{"images": ["plain.png"]}], {"image_nsfw_filter": {"hf_nsfw_model": str(tmp_path / "weights")}}
        )


class Scores:
    """An OP that scores every image by itself; more than two at a time do not fit into its GPU's memory."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def compute_stats_batched(self, batch: dict[str, Any], context: bool = False) -> dict[str, Any]:
        for i, names in enumerate(batch["images"]):
            if len(names) > 2:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            self.calls.append(len(names))
            batch["__dj__context__"][i].update(dict.fromkeys(names, "decoded"))
            batch["__dj__stats__"][i]["image_nsfw_score"] = [float(Path(n).stem[-1]) for n in names]
        return batch


def test_on_a_gpu_the_images_of_many_rows_go_through_a_model_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    op = Scores()
    monkeypatch.setattr(op_values, "_op_for", lambda _: op)
    monkeypatch.setattr(op_values, "place", lambda: "0")
    monkeypatch.setattr(datajuicer, "check_gpu", lambda _: None)
    write_pictures(tmp_path)
    names = [f"turned {n}.jpg" for n in range(10)]
    rows = [{"images": row} for row in ([names[3]], [names[1], names[9]], [names[3], names[3]], [])]
    values = chunk_of(tmp_path, rows, {"image_nsfw_filter": {}})[2]["image_nsfw_filter"]
    assert np.array_equal(values, [[3, 1, 3, np.nan], [3, 9, 3, np.nan]], equal_nan=True)
    assert op.calls == [2, 1]  # each image once, and as many at once as fit


def test_what_a_model_says_of_many_images_is_what_it_says_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_models.classifier(tmp_path / "weights", 1)
    write_pictures(tmp_path)
    rows = [{"images": [f"turned {n}.jpg"]} for n in range(6)]
    ops = {"image_nsfw_filter": {"hf_nsfw_model": str(tmp_path / "weights")}}
    alone = chunk_of(tmp_path, rows, ops)[2]["image_nsfw_filter"]
    monkeypatch.setattr(op_values, "place", lambda: "0")
    monkeypatch.setattr(datajuicer, "check_gpu", lambda _: None)
    assert chunk_of(tmp_path, rows, ops)[2]["image_nsfw_filter"] == pytest.approx(alone, abs=1e-6)


def test_only_ops_that_a_gpu_runs_go_to_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    names = {"image_nsfw_filter", "image_shape_filter", "token_num_filter"}
    monkeypatch.setattr(datajuicer, "gpus", lambda: ["0", "1"])
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert datajuicer.on_gpus(names) == ({"image_nsfw_filter"}, ("0", "1"))
    monkeypatch.setattr(torch.version, "cuda", None)
    assert datajuicer.on_gpus(names) == (frozenset(), ())  # a PyTorch for CPUs
    with pytest.raises(MachineError, match=r"GPU 0 cannot be used \(.*\); check its driver"):
        datajuicer.check_gpu("0")


def test_a_parquet_file_is_not_broken_for_want_of_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in ("a", "b"):
        pq.write_table(pa.table({"text": ["x"]}), tmp_path / f"{name}.parquet")
    fields = DatasetSection.model_validate({"path": ".", "text": "text", "id": None, "max_bad": 0.9})
    assert len(Dataset(tmp_path, fields).reader) == 2

    def limited(*_: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(pq, "ParquetFile", limited)
    with pytest.raises(MachineError, match="raise the limit of open files"):
        len(open_reader(tmp_path, Options(max_bad=0.9)))
