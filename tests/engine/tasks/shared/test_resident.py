"""A frozen model that stays on its worker's device: loaded once, and no trial can tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.settings.study import Study
from engine.tasks.caption.task import CaptionTask
from engine.tasks.shared import resident, sharded
from engine.tasks.shared.weights import Weights
from engine.tasks.t2v.model import build_model as build_video
from engine.tasks.vlm.model import build_model
from tests.conftest import Row, Tiny, merged
from tests.engine.tasks.t2v.pipelines import PIPELINES
from tests.engine.tasks.vlm.test_task import CAPTION, run, shown  # noqa: F401 - a fixture

VIDEOS = [n if n in ("wan-2.1", "ltx") else pytest.param(n, marks=pytest.mark.long) for n in PIPELINES]
ADAPTED: Row = merged(CAPTION, {"lora": {"rank": 4}, "train": {"epochs": 1}})


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The folders that were loaded since."""
    found: list[Path] = []
    before = Weights.counted

    def counted(self: Weights, **options: object) -> object:
        found.append(self.folder)
        return before(self, **options)

    resident.let_go()
    monkeypatch.setattr(Weights, "counted", counted)
    yield found
    resident.let_go()


def test_trials_of_adapters_load_once_and_are_those_of_a_fresh_load(
    shown: Tiny,  # noqa: F811
    tmp_path: Path,
    loads: list[Path],
) -> None:
    def adapters(name: str, seed: int) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        scores = run(shown, CaptionTask(), ADAPTED, samples=32, seed=seed, output=str(tmp_path / name))[1]
        return scores, load_file(tmp_path / name / "adapter_model.safetensors")

    fresh = adapters("fresh", 1)
    adapters("other", 2)
    again = adapters("again", 1)
    assert len(loads) == 1
    assert again[0] == fresh[0] and all(torch.equal(again[1][n], v) for n, v in fresh[1].items())
    resident.let_go()
    loaded = adapters("loaded", 1)
    assert len(loads) == 2
    assert loaded[0] == fresh[0] and all(torch.equal(loaded[1][n], v) for n, v in fresh[1].items())


def test_a_trial_of_the_whole_model_and_a_changed_file_load_anew(
    shown: Tiny,  # noqa: F811
    loads: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study, _, _ = run(shown, CaptionTask(), ADAPTED, samples=16)
    adapted: Study = study.study

    def base(own: Study) -> torch.nn.Module:
        found: torch.nn.Module = build_model(own, study.prepared, 0, None)
        return found

    def first(model: torch.nn.Module) -> torch.nn.Parameter:
        return next(p for n, p in model.named_parameters() if "lora_" not in n)

    one, two = base(adapted), base(adapted)
    assert first(one) is not first(two) and first(one).data_ptr() == first(two).data_ptr()
    assert len(loads) == 1
    whole = base(adapted.model_copy(update={"lora": adapted.lora.model_copy(update={"rank": 0})}))
    assert not resident._kept and first(whole).data_ptr() != first(one).data_ptr()
    base(adapted)
    (file,) = (study.prepared / "base").glob("*.safetensors")
    file.touch()
    base(adapted)
    assert len(loads) == 4
    with torch.no_grad():
        first(base(adapted)).add_(1)  # what no trial does
    assert not torch.equal(first(base(adapted)), first(one) + 1) and len(loads) == 5
    monkeypatch.setattr(sharded._place, "count", 2)
    base(adapted), base(adapted)
    assert len(loads) == 7 and not resident._kept


@pytest.mark.parametrize("kind", VIDEOS)
def test_a_video_model_of_kept_weights_is_that_of_a_fresh_load(kind: str, tmp_path: Path, loads: list[Path]) -> None:
    folder = PIPELINES[kind](tmp_path / "pipeline")
    study = Study.model_validate({
        "name": "x", "task": "t2v", "dataset": {"path": "x"}, "ops": {}, "lora": {"rank": 2},
        "model": {"preset": "tiny", "checkpoint": str(folder)},
    })  # fmt: skip

    def adapted(seed: int) -> torch.nn.Module:
        found: torch.nn.Module = build_video(study, folder / ".djsb" / "cache" / "x", seed, None).transformer
        return found

    fresh, other, again = (adapted(seed) for seed in (1, 2, 1))
    assert len(loads) == 1
    one, two, three = (dict(model.named_parameters()) for model in (fresh, other, again))
    assert list(one) == list(three) and all(torch.equal(p, three[n]) for n, p in one.items())
    for name, parameter in one.items():
        is_adapter = "lora_" in name
        assert parameter.requires_grad is is_adapter and parameter is not three[name]
        assert (parameter.data_ptr() == three[name].data_ptr()) is not is_adapter
    assert any(not torch.equal(p, two[n]) for n, p in one.items() if "lora_A" in n)
