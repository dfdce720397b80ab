"""The layouts that data sets have, each from `init` over `check` and `pools` to two trials."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

from tests import layouts
from tests.conftest import Tiny, run_djsb, run_until
from tests.layouts import Pair, both

TEXT: dict[str, Any] = {"words_num_filter": {}}
IMAGE: dict[str, Any] = {"image_aspect_ratio_filter": {}}
CASES: list[tuple[str, Callable[[Path], Pair], str, str]] = [
    *[
        (make.__name__, partial(both, make), "clip", fields)
        for make, fields in (
            (layouts.json_lines, "text=text, images=image, id=id"),
            (layouts.packed_lines, "text=text, images=image, id=id"),
            (layouts.llava, "text=text, images=image, id=id"),
            (layouts.comma_separated, "text=text, images=image, id=id"),
            (layouts.parquet_shards, "text=text, images=image, id=id"),
            (layouts.saved, "text=text, images=image, id=id"),
            (layouts.image_folder, "text=text, images=image, id=id"),
            (layouts.one_tar, "text=txt, images=jpg, id=__key__"),
            (layouts.shards, "text=txt, images=jpg, id=__key__"),
            (layouts.brace_pattern, "text=txt, images=jpg, id=__key__"),
        )
    ],
    ("hub_splits", layouts.hub_splits, "clip", "text=text, images=image, id=id"),
    ("hub_cache", layouts.hub_cache, "clip", "text=text, images=image, id=id"),
    ("shards_captioned", partial(both, layouts.shards), "caption", "text=txt, images=jpg, id=__key__"),
    ("clips", partial(both, layouts.clips, video=True), "t2v", "text=txt, videos=mp4, id=__key__"),
    ("share_gpt", partial(both, layouts.share_gpt), "lm", "text=text, id=id"),
    ("arrow", partial(both, layouts.arrow), "lm", "text=text, id=id"),
    ("laion", partial(both, layouts.laion), "lm", "text=TEXT, id=uid"),
]


def small(study: Path, ops: dict[str, Any]) -> None:
    """Turn a study into the smallest possible."""
    file = study / "study.yaml"
    raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    raw["ops"] = ops
    raw["train"] |= {"epochs": 0.5, "batch_size": 16, "micro_batch": 8, "keep_checkpoints": 0}
    raw["model"]["preset"] = "tiny"
    raw["search"] |= {"strategy": "grid", "seeds": 1}
    raw.pop("lora", None), raw.pop("video", None)
    raw["pools"] |= {"rare": False, "size": None}
    file.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(("make", "task", "fields"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_layout_goes_from_init_to_two_trials(
    tmp_path: Path, make: Callable[[Path], Pair], task: str, fields: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, held = make(tmp_path / "data")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "data"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "data"))
    # what is forked from the nursery has read the variable already
    djsb = partial(run_djsb, start_new_session=True) if data.startswith("hf://") else run_djsb
    small_ops = TEXT if task in ("lm", "t2v") else TEXT | IMAGE
    go_to_two_trials(djsb, tmp_path, data, held, task, fields, small_ops)


def go_to_two_trials(
    djsb: Callable[..., CompletedProcess[str]], folder: Path, data: str, held: str, task: str, fields: str,
    ops: dict[str, Any],
) -> None:  # fmt: skip
    """`init` of a study in `folder`, `check`, `pools` and two trials, which find all rows. fields: what `init` says."""
    study = folder / "study"
    made = djsb("init", study, "--data", data, "--eval", held, "--task", task)
    assert made.returncode == 0, made.stderr[-2000:]
    assert f"fields {fields}" in made.stderr.splitlines()[0]
    small(study, ops)
    checked = djsb("check", study, "--workers", 1, "--json")
    assert checked.returncode == 0, checked.stderr[-2000:]
    inputs = {i["input"]: i for i in json.loads(checked.stdout)["inputs"]}
    assert inputs["training rows"]["used"] == inputs["training rows"]["expected"] == layouts.TRAIN
    cut = djsb("pools", study, "--workers", 1, "--json")
    assert cut.returncode == 0 and len(json.loads(cut.stdout)["pools"]) >= 3, cut.stderr[-2000:]
    tiny = Tiny(folder, [], [])
    run_until(tiny, 2)
    states = [state for _, state, _ in tiny.trials()]
    assert states.count("COMPLETE") == 2 and "FAIL" not in states, states
