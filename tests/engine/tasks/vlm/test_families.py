"""Every family of checkpoints: what docs/reference/checkpoints.md ticks, on a tiny one of the right architecture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.tasks.caption.task import CaptionTask
from engine.tasks.vlm.chat import Chat, Talk
from engine.tasks.vlm.families import FAMILIES
from engine.tasks.vlm.model import NO_LABEL
from engine.tasks.vlm.native import part_losses
from tests.conftest import Row, Tiny, merged
from tests.engine.tasks.vlm.test_task import CAPTION, VLM, run, shown  # noqa: F401 - a fixture
from tests.engine.tasks.vlm.tiny_models import PARTS, make_family

torch.set_num_threads(1)
ORDINARY = ("qwen2_5_vl",)  # the others in `make test-long`
NAMES = [name if name in ORDINARY else pytest.param(name, marks=pytest.mark.long) for name in PARTS]
LOAD = """
import sys
import transformers
from peft import PeftModel
base, folder, kind = sys.argv[1:]
model = PeftModel.from_pretrained(getattr(transformers, kind).from_pretrained(base), folder)
print(type(model.base_model.model).__name__, len(transformers.AutoTokenizer.from_pretrained(folder)))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A family's checkpoint, written once."""
    folder = tmp_path_factory.mktemp("families")

    def make(family: str) -> Path:
        target = folder / family
        return target if target.exists() else make_family(family, target)

    return make


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def learned(chat: Chat, ids: torch.Tensor) -> str:
    return str(chat.tokenizer.decode(ids[ids != NO_LABEL])).replace(" ", "")


@pytest.mark.parametrize("family", list(PARTS))
def test_only_answers_and_their_ends_are_learned(made: Any, family: str) -> None:
    """Of several images and turns, by generation spans or turn by turn, padded or not."""
    chat = Chat.of(made(family))
    more = (("is it green?", "yes"),) if chat.family.chats else ()
    talks = [Talk((("<image>which colour", "red"),)), Talk((("<image><image>what is it", "blue photo"), *more))]
    pictures = [[picture(40, 70)], [picture(100, 32), picture(32, 32)]]
    both = chat.examples(talks, pictures)
    said = "bluephoto<|im_end|>" + ("yes<|im_end|>" if more else "")
    assert [learned(chat, row) for row in both["labels"]] == ["red<|im_end|>", said]
    (alone,) = chat.examples(talks[:1], pictures[:1])["input_ids"]
    assert both["input_ids"][0][both["attention_mask"][0] == 1].tolist() == alone.tolist()
    sizes = [[image.size for image in images] for images in pictures]
    told = [chat.count(talk) + sum(chat.image_tokens(some)) for talk, some in zip(talks, sizes, strict=True)]
    assert all(said >= int(n) - 1 for said, n in zip(told, both["attention_mask"].sum(1), strict=True))


@pytest.mark.parametrize("family", NAMES)
def test_padding_changes_no_loss(made: Any, family: str) -> None:
    chat = Chat.of(made(family))
    import transformers

    model = getattr(transformers, chat.family.model).from_pretrained(made(family)).eval()
    talks = [Talk((("<image>which colour is it", "red photo"),)), Talk((("<image>A", "B"),))]
    pictures = [[picture(64, 40)], [picture(33, 50, 1)]]
    with torch.inference_mode():
        both, _ = part_losses(model, chat.examples(talks, pictures))
        each = [part_losses(model, chat.examples([t], [p]))[0] for t, p in zip(talks, pictures, strict=True)]
    for together, alone in zip(both, each, strict=True):
        assert float(together.sum()) == pytest.approx(float(alone.sum()), rel=1e-4)


@pytest.mark.parametrize("family", NAMES)
def test_a_family_trains_pauses_evaluates_and_reloads(shown: Tiny, made: Any, tmp_path: Path, family: str) -> None:  # noqa: F811
    folder = made(family)
    change = {**CAPTION, "model": {"checkpoint": str(folder)}}
    change["train"] = {**CAPTION["train"], "epochs": 1, "learning_rate": 0.01}
    small: Row = {"samples": 32, "horizon": 32}
    study, whole, losses = run(shown, CaptionTask(), change, **small)
    assert losses[-1] < losses[0] and 0 < whole["likelihood"] < 1
    (told,) = study.task.inputs(study.study, study.folder, study.prepared)
    assert told.used == told.expected > 20 and FAMILIES[family].model in told.note
    state = str(tmp_path / "state.safetensors")
    run(shown, CaptionTask(), change, samples=16, horizon=32, pause=state)
    assert run(shown, CaptionTask(), change, resume=state, **small)[1] == whole
    lora = merged(change, {"lora": {"rank": 4}})
    scores, losses = run(shown, CaptionTask(), lora, output=str(tmp_path / "out"), **small)[1:]
    assert losses[-1] < losses[0] and 0 < scores["likelihood"] < 1
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOAD, str(folder), str(tmp_path / "out"), FAMILIES[family].model],
        capture_output=True, text=True, cwd="/", timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[0] == FAMILIES[family].model
    assert (tmp_path / "out" / "processor_config.json").exists()
