"""A checkpoint with its processor: instructions, benchmarks, several images a row; what does not fit it is refused."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.base.errors import DataError, StudyError
from engine.study.opened import open_study
from engine.tasks.vlm.chat import Chat, Talk
from engine.tasks.vlm.instructions import Instructions
from engine.tasks.vlm.native_data import cache_instructions
from engine.tasks.vlm.talks import Talks
from engine.tasks.vlm.task import VlmTask
from tests.conftest import Row, Tiny, merged, write_jsonl
from tests.engine.tasks.vlm.test_benchmarks import mmbench, vqav2
from tests.engine.tasks.vlm.test_families import made  # noqa: F401 - a fixture
from tests.engine.tasks.vlm.test_task import CAPTION, VLM, run, shown  # noqa: F401 - a fixture


def talk(*turns: str, **change: Any) -> Row:
    roles = ("human", "gpt")
    said = [{"from": roles[at % 2], "value": text} for at, text in enumerate(turns)]
    return {"image": "train/0000.png", "conversations": said, **change}


def test_two_stages_and_every_benchmark(shown: Tiny, made: Any) -> None:  # noqa: F811
    """Of an InternVL: conversations of several turns and images, one that is too long, one with a bad image."""
    data = shown.root / "data"
    (data / "broken.png").write_bytes(b"\x89PNG and no more")
    two = ["train/0001.png", "train/0002.png"]
    told = [talk(f"<image>\nq{n}?", "red", "sure <|im_end|><IMG_CONTEXT>?", "yes") for n in range(10)]
    told += [talk("<image> or", "A", "or <image>?", "B", image=two), talk("what", "blue", image=two)]
    told += [talk("q", "a", image="broken.png"), talk("text only", "yes", image=None), talk("w" * 9000, "a")]
    write_jsonl(data / "instructions.jsonl", told)
    image = base64.b64encode((data / "test" / "0000.png").read_bytes()).decode()
    (data / "val2014").mkdir()
    shutil.copy(data / "test" / "0000.png", data / "val2014" / "COCO_val2014_000000000042.png")
    benchmarks = {
        **VLM["evaluation"]["benchmarks"], "vqav2": str(vqav2(data, 1)),
        "mmbench": str(mmbench(data, f"1\tq\tnan\tred\tblue\tnan\t\tA\tcolour\t{image}")),
    }  # fmt: skip
    change = merged(VLM, {"model": {"checkpoint": str(made("internvl"))}, "evaluation": {"benchmarks": benchmarks}})
    study, scores, losses = run(shown, VlmTask(), {**change, "lora": {"rank": 2}}, samples=32)
    with study.store:
        assert set(scores) == {metric.name for metric in study.metrics}
        lines = [one.line for one in study.task.inputs(study.study, study.folder, study.prepared)]
        talks = Talks(study.prepared, "instructions")
    assert losses[-1] < losses[0]
    assert lines[0] == (
        "instructions: 12 of 15 entries; left out: 1 unreadable image, 1 without an image, 1 question too long; "
        "12 conversations"
    )
    assert talks[0].turns == (("<image>\nq0?", "red"), ("sure ?", "yes"))
    assert talks[10].turns == (("<image> or", "A"), ("or <image>?", "B"))
    assert talks[11].turns == (("<image><image>what", "blue"),)
    assert [len(talks.pictures.of(n)) for n in (0, 10, 11)] == [1, 2, 2]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_all_images_of_a_row_are_shown(shown: Tiny, made: Any, form: str) -> None:  # noqa: F811
    """In their order, from files or from bytes in the row; a row that is too long or has a bad image is left out."""
    data = shown.root / "data"
    rows = [{**row, "images": [row["images"][0], "test/0000.png"]} for row in shown.rows[:20]]
    rows[3]["images"] = ["train/0003.png", "cut.png"]
    whole = (data / "train/0003.png").read_bytes()
    (data / "cut.png").write_bytes(whole[:-30])
    rows[5]["images"] = ["train/0005.png"] * 150
    if form == "parquet":
        for row in rows:
            row["images"] = [{"bytes": (data / name).read_bytes(), "path": None} for name in row["images"]]
        pq.write_table(pa.Table.from_pylist(rows), data / "train.parquet")
    else:
        write_jsonl(shown.train_file, rows)
    folder = Path(shutil.copytree(made("qwen2_5_vl"), shown.root / "short"))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 300
    (folder / "config.json").write_text(json.dumps(config))
    change = merged(CAPTION, {"model": {"checkpoint": str(folder)}, "dataset": {"path": f"../data/train.{form}"}})
    shown.set(change)
    with (study := open_study(shown.study, 1)).store:
        talks = Talks(study.prepared, "train")
        assert np.flatnonzero(~study.scanned.good).tolist() == [3, 5]
    assert len(talks) == 20 and talks[0].turns[0][0].startswith("<image><image>Provide a one")
    first, second = talks.pictures.of(7)
    assert np.asarray(first).mean() != np.asarray(second).mean()
    assert talks.there(4).tolist() == [0, 1, 2, 4]


def test_instructions_go_by_one_at_a_time(shown: Tiny, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """What was read of 400 conversations is written before the last is read; a long one loses its last turns."""
    data, chat = shown.root / "data", Chat.of(made("internvl"))
    long = talk(*["w" * 700, "x" * 700] * 3)
    write_jsonl(data / "many.jsonl", [talk("q", f"a{n}") for n in range(400)] + [long])
    told, seen = Instructions.of(data / "many.jsonl"), []
    read = Instructions.conversation

    def watched(self: Instructions, row: Any) -> Any:
        files = list((shown.root / "out").glob(".part-*talks.bin"))
        seen.append(files[0].stat().st_size if files else 0)
        return read(self, row)

    monkeypatch.setattr(Instructions, "conversation", watched)
    (shown.root / "out").mkdir()
    accounting = cache_instructions(told, chat, 0.1, shown.root / "out")
    note = "401 conversations, 1 of them cut to 2048 tokens of text"
    assert accounting.line == f"instructions: 401 of 401 entries; {note}"
    assert seen[-1] > 5000
    assert len(Talks(shown.root / "out", "instructions")[400].turns) < 3
    write_jsonl(data / "many.jsonl", [talk("q", "a"), talk("w" * 9000, "a")])
    with pytest.raises(DataError, match=r"1 of 2 entries are bad .*, the first: .*line 2: a question of \d+ tokens"):
        cache_instructions(Instructions.of(data / "many.jsonl"), chat, 0.1, shown.root / "out")


def processor(**change: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        file = folder / "processor_config.json"
        told = json.loads(file.read_text())
        for name, value in change.items():
            (told if name in told else told["image_processor"])[name] = value
        file.write_text(json.dumps(told))

    return apply


@pytest.mark.parametrize(
    ("family", "change", "says"),
    [
        ("llava", processor(patch_size=4), "its processor has patches of 4, its model 8"),
        ("llava", processor(crop_size={"height": 48, "width": 48}), "its processor has images of 48, its model 32"),
        ("llava", processor(num_additional_image_tokens=0), "tokens for a square image: 15, its model 16"),
        ("internvl", processor(image_seq_length=16), "tokens for a square image: 16, its model 4"),
        ("internvl", processor(size={"height": 64, "width": 64}), "its processor has images of 64, its model 32"),
        ("qwen2_5_vl", processor(merge_size=1), "its processor has merge_size 1, its model 2"),
        ("smolvlm", processor(image_seq_len=9), "tokens for a square image: 9, its model 4"),
        ("qwen2_5_vl", lambda folder: (folder / "chat_template.jinja").write_text("{{ messages[0]['role'] }}"),
         "its chat template makes 0 marks of 1 images"),
        ("qwen2_5_vl", lambda folder: (folder / "chat_template.jinja").unlink(), "has no chat template"),
        ("qwen2_5_vl", lambda folder: (folder / "processor_config.json").write_text("{"), "cannot be read as a Qwen"),
    ],
)  # fmt: skip
def test_a_processor_of_another_model_is_refused_in_one_line(
    made: Any,  # noqa: F811
    tmp_path: Path,
    family: str,
    change: Callable[[Path], Any],
    says: str,
) -> None:
    folder = Path(shutil.copytree(made(family), tmp_path / "other"))
    change(folder)
    with pytest.raises(StudyError, match=says) as caught:
        Chat.of(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_a_template_that_renders_turns_otherwise_than_the_whole_is_refused(made: Any, tmp_path: Path) -> None:  # noqa: F811
    folder = Path(shutil.copytree(made("qwen2_5_vl"), tmp_path / "other"))
    file = folder / "chat_template.jinja"
    file.write_text("{{ messages | length }}" + file.read_text())
    with pytest.raises(StudyError, match="renders the beginning of a conversation otherwise than the whole"):
        Chat.of(folder).count(Talk((("a", "b"),))) or Chat.of(folder)
