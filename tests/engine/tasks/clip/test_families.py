"""Every family of checkpoints that task `clip` reads: it loads, trains, pauses, is judged, and is read elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from engine.base.errors import StudyError
from engine.study.inputs import inputs_of
from engine.study.opened import OpenStudy, open_study
from engine.tasks.clip import open_clip
from engine.tasks.clip.checkpoint import Processor, model_folder, source_of
from engine.tasks.clip.model import (
    PRESETS,
    clip_config,
    image_features,
    loss_of,
    sigmoid_loss,
    text_features,
)
from engine.tasks.clip.task import ClipTask
from engine.tasks.contract import Job, Report
from engine.tasks.shared.images import Fitted
from engine.tasks.shared.weights import Weights
from tests.conftest import Tiny, make_tiny
from tests.engine.tasks.clip import families

torch.set_num_threads(1)
SILENT = Report(lambda _kind, _content: None)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Data; every test sets the model."""
    return make_tiny(tmp_path_factory.mktemp("families"), 96, 30)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's `base` in the size of the tests."""
    monkeypatch.setitem(open_clip.SIGLIP, "base", (32, 1, 2, 64, "gelu"))


def opened(world: Tiny, checkpoint: Path, name: str, **change: Any) -> OpenStudy:
    """A study of that checkpoint."""
    model = {"model": {"checkpoint": str(checkpoint)}, "train": {"micro_batch": None}}
    folder = world.set(model | change, world.root / name)
    return open_study(folder, 1)


def trial(study: OpenStudy, tmp_path: Path, name: str, **job: Any) -> dict[str, float]:
    """The metrics of a trial of six steps."""
    rows = tmp_path / "rows.npy"
    np.save(rows, np.arange(60))
    first = Job("t", str(rows), 96, 0, None, str(tmp_path / name))
    return ClipTask().run(study.study, study.prepared, replace(first, **job), SILENT).get("t", {})


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        pytest.param(families.clip, "CLIPModel", id="clip"),
        pytest.param(families.siglip, "SiglipModel", id="siglip"),
        pytest.param(families.open_clip, "CLIPModel", id="open_clip", marks=pytest.mark.long),
        pytest.param(families.open_siglip, "SiglipModel", id="open_siglip", marks=pytest.mark.long),
    ],
)
def test_a_family_does_all_that_a_study_asks(world: Tiny, tmp_path: Path, small: None, family: Any, kind: str) -> None:
    checkpoint = family(tmp_path / "weights")
    study = opened(world, checkpoint, family.__name__)
    with study.store:
        before = load_file(model_folder(checkpoint, study.folder) / "model.safetensors")
        found = {i.input: i for i in inputs_of(study)}
        weights = found["weights of model.checkpoint"]
        assert (weights.expected, weights.used, weights.note) == (len(before), len(before), kind)
        assert "its embedding has 320 rows" in found["tokenizer of model.checkpoint"].note
        whole = trial(study, tmp_path, "whole")
        assert set(whole) >= {"accuracy", "likelihood", "image_to_text_r1"}
        assert all(np.isfinite(value) for value in whole.values())
        pause = str(tmp_path / "state")
        trial(study, tmp_path, "half", samples=48, horizon=96, pause=pause, output="")
        assert trial(study, tmp_path, "rest", horizon=96, resume=pause) == whole
    after = load_file(tmp_path / "whole" / "model.safetensors")
    assert before.keys() == after.keys() == load_file(tmp_path / "rest" / "model.safetensors").keys()
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert {"logit_scale", "text_model.embeddings.token_embedding.weight"} <= moved
    assert all(torch.equal(after[n], v) for n, v in load_file(tmp_path / "rest" / "model.safetensors").items())

    from transformers import AutoModel, AutoTokenizer

    outside = AutoModel.from_pretrained(tmp_path / "whole")
    assert type(outside).__name__ == kind
    ids = AutoTokenizer.from_pretrained(tmp_path / "whole")(["a red photo"])["input_ids"][0]
    assert max(ids) < outside.config.text_config.vocab_size
    again = opened(world, tmp_path / "whole", f"{family.__name__}-again")  # and as another study's checkpoint
    with again.store:
        assert source_of(again.study, again.folder).family == ("siglip" if kind == "SiglipModel" else "clip")  # type: ignore[union-attr]
        assert again.prepared.is_dir()


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(families.clip, id="clip", marks=pytest.mark.long),
        pytest.param(families.siglip, id="siglip"),
        pytest.param(families.open_clip, id="open_clip", marks=pytest.mark.long),
        pytest.param(families.open_siglip, id="open_siglip", marks=pytest.mark.long),
    ],
)
def test_a_family_takes_adapters(world: Tiny, tmp_path: Path, small: None, family: Any) -> None:
    from peft import PeftModel
    from transformers import AutoModel

    checkpoint = family(tmp_path / "weights")
    study = opened(world, checkpoint, f"{family.__name__}-lora", lora={"rank": 2})
    with study.store:
        scores = trial(study, tmp_path, "adapters")
        again = trial(study, tmp_path, "more", init=str(tmp_path / "adapters"), samples=32)
        base = model_folder(checkpoint, study.folder)
    assert all(np.isfinite(value) for value in (*scores.values(), *again.values()))
    adapters = load_file(tmp_path / "adapters" / "adapter_model.safetensors")
    assert all(value.abs().sum() > 0 for name, value in adapters.items() if "lora_B" in name)
    assert {"text_model", "vision_model"} == {name.split(".")[2] for name in adapters}
    outside = PeftModel.from_pretrained(AutoModel.from_pretrained(base), tmp_path / "adapters")
    assert outside.base_model.model.logit_scale.numel() == 1
    with pytest.raises(StudyError, match=r"lora needs model\.checkpoint"):
        opened(world, checkpoint, "bare-lora", model={"preset": "tiny"}, lora={"rank": 2})


@pytest.mark.long
def test_a_siglip_trains_on_two_devices_as_on_one(tmp_path: Path) -> None:
    from tests.engine.tasks.shared import test_sharded as sharded

    tiny = make_tiny(tmp_path, 60, 6)
    study = {"train": sharded.TRAIN, "model": {"checkpoint": str(families.siglip(tmp_path / "weights"))}}
    study |= {"task": "clip"}
    (alone, before), (both, after) = (sharded.trained(tiny, study, count, samples=5) for count in (1, 2))
    np.testing.assert_allclose(both, alone, atol=1e-4)
    assert after == pytest.approx(before, abs=1e-3)


def test_tensors_of_open_clip_do_what_they_do_there(tmp_path: Path) -> None:
    torch.manual_seed(3)
    native = families.Native()
    with torch.no_grad():
        for value in native.parameters():
            value.add_(0.1 * torch.randn_like(value))
    for pickled in (False, True):
        folder = families.open_clip(tmp_path / f"weights-{pickled}", pickled)
        tensors = native.state_dict()
        if pickled:
            torch.save({"state_dict": {f"module.{n}": v for n, v in tensors.items()}}, folder / open_clip.WEIGHTS[1])
        else:
            save_file(tensors, folder / open_clip.WEIGHTS[0])
        from transformers import CLIPModel

        model = CLIPModel.from_pretrained(open_clip.converted(tmp_path, folder)).eval()
        pixels, ids = torch.randn(2, 3, 32, 32), torch.randint(4, 300, (3, 16))
        ids[:, 9], ids[:, 10:] = 310, 0
        with torch.no_grad():
            seen, read = native.visual(pixels), native.texts(ids)
            near = {"rtol": 1e-4, "atol": 1e-5}
            torch.testing.assert_close(image_features(model, pixels), torch.nn.functional.normalize(seen), **near)
            torch.testing.assert_close(text_features(model, ids), torch.nn.functional.normalize(read), **near)
        assert float(model.logit_scale.detach()) == pytest.approx(float(native.logit_scale.detach()))


def test_a_sigmoid_loss_judges_each_pair_by_itself() -> None:
    from transformers import SiglipModel

    torch.manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(6, 8), dim=-1) for _ in range(2))
    scale, bias = torch.tensor([2.0]), torch.tensor([-3.0])
    logits = scale.exp() * images @ texts.T + bias
    expected = (
        sum(
            -torch.nn.functional.logsigmoid(logits[i, j] if i == j else -logits[i, j])
            for i in range(6)
            for j in range(6)
        )
        / 6
    )
    assert float(sigmoid_loss(images, texts, scale, bias)) == pytest.approx(float(expected), rel=1e-6)
    assert issubclass(SiglipModel, torch.nn.Module)


def test_gradients_of_a_sigmoid_loss_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    from transformers import SiglipModel

    from engine.tasks.clip.model import _backward

    folder = families.siglip(tmp_path / "weights")
    pixels, ids = torch.randn(6, 3, 32, 32), torch.randint(4, 300, (6, 16))
    found = []
    for micro in (6, 4):
        model = SiglipModel.from_pretrained(folder)
        assert float(loss_of(model, image_features(model, pixels), text_features(model, ids)).detach()) > 0
        loss = _backward(model, pixels, ids, micro, len(pixels))
        found.append((loss, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert set(found[0][1]) >= {"logit_bias", "logit_scale"}
    for name, value in found[0][1].items():
        torch.testing.assert_close(value, found[1][1][name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vision_cfg": {"layers": [3, 4, 6, 3]}}, "a ResNet"),
        ({"text_cfg": {"hf_model_name": "roberta-base"}}, "text_cfg.hf_model_name: roberta-base"),
        ({"vision_cfg": {"attentional_pool": True}}, "vision_cfg.attentional_pool: True"),
        ({"vision_cfg": {"timm_model_name": "vit_base_patch16_224"}}, "vision_cfg.timm_model_name"),
        ({"text_cfg": {"pool_type": "last"}}, "text_cfg.pool_type: last"),
    ],
)
def test_models_of_open_clip_that_are_not_read_are_named(tmp_path: Path, change: Any, says: str) -> None:
    folder = families.open_clip(tmp_path / "weights")
    content = json.loads(json.dumps(families.NATIVE))
    for section, fields in change.items():
        content["model_cfg"][section] |= fields
    (folder / open_clip.CONFIG).write_text(json.dumps(content))
    with pytest.raises(StudyError, match="which is not read here") as error:
        open_clip.describe(folder)
    assert says in str(error.value)


def test_a_side_of_open_clip_may_stand_twice(tmp_path: Path) -> None:
    content = json.loads(json.dumps(families.NATIVE))
    content["model_cfg"]["vision_cfg"]["image_size"] = [32, 32]
    (tmp_path / open_clip.CONFIG).write_text(json.dumps(content))
    assert open_clip.describe(tmp_path).config["vision_config"]["image_size"] == 32


def test_a_tensor_that_open_clip_has_and_nobody_knows_is_named(tmp_path: Path) -> None:
    folder = families.open_clip(tmp_path / "weights")
    tensors = load_file(folder / open_clip.WEIGHTS[0])
    save_file(tensors | {"visual.ls_1.gamma": torch.ones(2)}, folder / open_clip.WEIGHTS[0])
    with pytest.raises(StudyError, match=r"visual\.ls_1\.gamma are none of a CLIP"):
        open_clip.converted(tmp_path, folder)


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of git-lfs"),
        (None, "cannot be read"),
    ],
    ids=["pointer", "cut off"],
)
def test_files_of_open_clip_that_are_not_whole_are_refused(
    tmp_path: Path, pickled: bool, content: bytes | None, says: str
) -> None:
    folder = families.open_clip(tmp_path / "weights", pickled)
    file = folder / open_clip.WEIGHTS[pickled]
    file.write_bytes(file.read_bytes()[:-200] if content is None else content)
    with pytest.raises(StudyError, match=says) as error:
        open_clip.converted(tmp_path, folder)
    assert "\n" not in str(error.value)


def test_a_layer_that_is_missing_of_open_clip_is_named(tmp_path: Path) -> None:
    folder = families.open_clip(tmp_path / "weights")
    tensors = load_file(folder / open_clip.WEIGHTS[0])
    short = {name: value for name, value in tensors.items() if "visual.transformer.resblocks.1." not in name}
    save_file(short, folder / open_clip.WEIGHTS[0])
    with pytest.raises(StudyError, match=r"62 of 78 tensors of a CLIPModel.*vision_model\.encoder\.layers\.1"):
        Weights("model.checkpoint", "transformers.CLIPModel", open_clip.converted(tmp_path, folder)).load()


def test_a_pickle_of_open_clip_runs_nothing(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    folder = families.open_clip(tmp_path / "weights", pickled=True)
    torch.save({"a": Bomb()}, folder / open_clip.WEIGHTS[1])
    with pytest.raises(StudyError, match="cannot be read"):
        open_clip.converted(tmp_path, folder)
    assert not (tmp_path / "ran").exists()


WRONG = {
    "processor": ({"preprocessor_config.json": {"size": {"shortest_edge": 64}, "crop_size": 64}}, "images of 64"),
    "edge": ({"preprocessor_config.json": {"size": {"shortest_edge": 16}, "crop_size": 32}}, "resizes to 16"),
    "naflex": ({"config.json": {"model_type": "siglip2"}}, "NaFlex"),
    "end": ({"config.json": {"text_config": {"eos_token_id": 7}}}, "with id 3, and the model reads it at 7"),
    "words": ({"config.json": {"text_config": {"vocab_size": 100}}}, "the model's embedding has 100 rows"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_belong_to_the_model_is_refused(world: Tiny, tmp_path: Path, case: str) -> None:
    changes, says = WRONG[case]
    folder = families.clip(tmp_path / "weights")
    for name, change in changes.items():
        file = folder / name
        content = json.loads(file.read_text()) if file.exists() else {}
        for key, value in change.items():
            content[key] = {**content.get(key, {}), **value} if isinstance(value, dict) and key in content else value
        file.write_text(json.dumps(content))
    study = opened(world, folder, f"wrong-{case}")
    with study.store, pytest.raises(StudyError, match=r"model\.checkpoint") as error:
        source = source_of(study.study, study.folder)
        assert source is not None
        source.accounting()
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_images_are_what_the_checkpoint_s_processor_makes_of_them(world: Tiny, tmp_path: Path) -> None:
    """Against PIL by hand, as the processors of `transformers` need torchvision."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 80, 3), np.uint8))
    squashed = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
    assert np.array_equal(Fitted(32, "squash", 32, 2).fit(image), squashed)
    shorter = np.asarray(image.resize((72, 36), Image.Resampling.BICUBIC))
    assert np.array_equal(Fitted(32, "crop", 36, 3).fit(image), shorter[2:34, 20:52])
    padded = Fitted(32, "pad", 32, 3, 9).fit(image)
    assert np.array_equal(padded[8:24], np.asarray(image.resize((32, 16), Image.Resampling.BICUBIC)))
    assert (padded[:8] == 9).all() and (padded[24:] == 9).all()
    for way in ("squash", "crop", "pad"):
        medium = Fitted(32, way, 36 if way == "crop" else 32, 3)  # type: ignore[arg-type]
        assert np.abs(medium.near(image).astype(int) - medium.fit(image)).max() <= 2
        file = tmp_path / f"{way}.png"
        image.save(file)
        for form in ("exact", "jpeg"):
            content, pixels = medium.pack(file, 0, form)  # type: ignore[arg-type]
            assert np.array_equal(medium.unpack(content), pixels)
    folder = families.clip(
        tmp_path / "weights", size={"height": 32, "width": 32}, do_center_crop=False, resample=2, image_mean=[0.1] * 3,
        image_std=[0.2] * 3,
    )  # fmt: skip
    study = opened(world, folder, "squash")
    with study.store:
        source = source_of(study.study, study.folder)
        assert source is not None
        assert source.processor == Processor(32, (0.1,) * 3, (0.2,) * 3, "squash", 32, 2)
        meta = json.loads((study.prepared / "meta.json").read_text())
        assert meta["normal"] == [[0.1] * 3, [0.2] * 3]
        plain = opened(world, families.clip(tmp_path / "plain"), "plain")
        assert ClipTask().shares(plain.study, plain.folder) == []  # ids of CLIP's own are as before
        assert ClipTask().shares(study.study, study.folder) != []


@pytest.mark.parametrize(
    ("preset", "parameters"), [("vit-b-32", 151_277_313), ("vit-b-16", 149_620_737), ("vit-l-14", 427_616_513)]
)
def test_presets_have_the_parameters_of_open_clip(preset: str, parameters: int) -> None:
    from transformers import CLIPConfig, CLIPModel

    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(**clip_config(PRESETS[preset])))
    assert sum(p.numel() for p in model.parameters()) == parameters
