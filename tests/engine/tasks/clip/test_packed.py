"""Packed training: members are what they are alone, may leave on the way, and their input comes by any path."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from engine.journal.store import Store
from engine.settings.study import Study
from engine.study.opened import OpenStudy, open_study
from engine.tasks.clip.model import build_model, contrastive_loss, image_features, text_features
from engine.tasks.clip.packed import Pack, clip_members
from engine.tasks.clip.task import ClipTask, evaluate, evaluate_pack
from engine.tasks.contract import Job, Report, best_pack
from engine.tasks.shared.batches import Mode, feed
from engine.tasks.shared.tokens import EOS
from tests.conftest import Tiny, make_tiny

torch.set_num_threads(1)
CPU = torch.device("cpu")
STEPS, BATCH = 30, 16
Points = dict[str, list[tuple[int, float]]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """A study whose rows have labels and captions, and its caches; not to be changed."""
    tiny: Tiny = make_tiny(tmp_path_factory.mktemp("packed"))
    tiny.set({"train": {"learning_rate": 0.002, "batch_size": BATCH, "micro_batch": None}})
    opened = open_study(tiny.study, 1)
    with opened.store:
        return opened.study, opened.prepared


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    """Three trials on rows, seeds and outputs of their own."""
    made = []
    for i, count in enumerate((60, 90, 47)):
        rows = tmp_path / f"rows-{i}.npy"
        np.save(rows, np.random.default_rng(i).permutation(240)[:count])
        made.append(Job(f"trial-{i}", str(rows), STEPS * BATCH, i, None, str(tmp_path / f"out-{i}")))
    return made


def alone(prepared: tuple[Study, Path], job: Job) -> tuple[dict[str, float], list[tuple[int, float]]]:
    """Metrics and losses of a trial by itself."""
    points: list[tuple[int, float]] = []
    report = Report(lambda _kind, content: points.append((content["step"], content["values"]["loss"])))
    return ClipTask().run(*prepared, job, report)[job.trial], points


def together(
    prepared: tuple[Study, Path], jobs: list[Job], leave: dict[str, int] | None = None
) -> tuple[dict[str, dict[str, float]], Points]:
    """Metrics and losses by trial. leave: steps from which trials are wanted no more."""
    points: Points = {}

    def emit(_kind: str, content: dict[str, Any]) -> None:
        points.setdefault(content["trial"], []).append((content["step"], content["values"]["loss"]))

    def dropped() -> set[str]:
        now = max(p[-1][0] for p in points.values())
        return {trial for trial, step in (leave or {}).items() if now >= step}

    return ClipTask().pack(*prepared, jobs, Report(emit, dropped)), points


def weights(folder: str) -> dict[str, torch.Tensor]:
    """Parameters of a checkpoint."""
    return load_file(Path(folder) / "model.safetensors")


def test_a_member_is_what_it_is_alone(prepared: tuple[Study, Path], jobs: list[Job], tmp_path: Path) -> None:
    scores, points = together(prepared, jobs)
    assert list(scores) == [job.trial for job in jobs]
    for job in jobs:
        other = replace(job, output=str(tmp_path / "alone"))
        metrics, losses = alone(prepared, other)
        assert scores[job.trial] == pytest.approx(metrics, rel=1e-3)
        assert [s for s, _ in points[job.trial]] == [s for s, _ in losses]
        assert [v for _, v in points[job.trial]] == pytest.approx([v for _, v in losses], rel=1e-4)
        packed, serial = weights(job.output), weights(other.output)
        assert packed.keys() == serial.keys()
        for name, value in serial.items():
            if not name.endswith("k_proj.bias"):  # softmax does not see a key's bias: its gradient is rounding alone
                torch.testing.assert_close(packed[name], value, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
        configs = [json.loads((Path(folder) / "config.json").read_text()) for folder in (job.output, other.output)]
        assert configs[0] == configs[1]
        assert (Path(job.output) / "tokenizer.json").exists()
    assert scores["trial-0"] != scores["trial-1"]


def test_a_member_is_the_same_bit_for_bit_in_packs_of_any_size(prepared: tuple[Study, Path], jobs: list[Job]) -> None:
    scores, points = together(prepared, jobs)
    for job in jobs:
        own_scores, own_points = together(prepared, [job])
        assert own_scores == {job.trial: scores[job.trial]}
        assert own_points[job.trial] == points[job.trial]


def test_members_may_start_from_checkpoints(prepared: tuple[Study, Path], jobs: list[Job], tmp_path: Path) -> None:
    together(prepared, jobs)
    again = [replace(jobs[0], init=jobs[1].output, output="", samples=64), replace(jobs[2], output="", samples=64)]
    scores, _ = together(prepared, again)
    for job in again:
        assert scores[job.trial] == pytest.approx(alone(prepared, job)[0], rel=1e-3)


def test_a_dropped_member_leaves_and_the_others_go_on(prepared: tuple[Study, Path], jobs: list[Job]) -> None:
    whole, points = together(prepared, jobs)
    scores, fewer = together(prepared, jobs, leave={"trial-0": 7, "trial-2": 20})
    assert list(scores) == ["trial-1"]
    assert scores["trial-1"] == pytest.approx(whole["trial-1"], rel=1e-3)
    assert [v for _, v in fewer["trial-1"]] == pytest.approx([v for _, v in points["trial-1"]], rel=1e-4)
    assert [fewer[t][-1][0] for t in ("trial-0", "trial-1", "trial-2")] == [7, STEPS, 20]


def test_a_pack_that_nobody_wants_ends(prepared: tuple[Study, Path], jobs: list[Job]) -> None:
    scores, points = together(prepared, jobs, leave={job.trial: 3 for job in jobs})
    assert scores == {}
    assert {p[-1][0] for p in points.values()} == {3}
    assert not any(Path(job.output).exists() for job in jobs)


def test_a_paused_pack_goes_on_as_if_it_had_not_been(
    prepared: tuple[Study, Path], jobs: list[Job], tmp_path: Path
) -> None:
    whole, points = together(prepared, jobs)
    half = [
        replace(job, samples=12 * BATCH, horizon=job.samples, output="", pause=str(tmp_path / f"{job.trial}.state"))
        for job in jobs
    ]
    _, first = together(prepared, half)
    on = [replace(job, horizon=job.samples, resume=h.pause) for job, h in zip(jobs, half, strict=True)]
    scores, second = together(prepared, on)
    assert scores == whole
    assert {t: first[t] + second[t] for t in first} == points
    metrics, _ = alone(prepared, replace(on[1], output=""))  # a state may go on alone
    assert metrics == pytest.approx(whole["trial-1"], rel=1e-3)
    with pytest.raises(ValueError, match="or none"):
        together(prepared, [on[0], jobs[1]])


def test_a_pack_that_is_broken_off_on_its_way_goes_on_as_if_it_had_not_been(
    prepared: tuple[Study, Path], jobs: list[Job], tmp_path: Path
) -> None:
    whole, _ = together(prepared, jobs)
    steps: list[int] = []
    report = Report(lambda _, c: steps.append(c["step"]), leaving=lambda: steps[-1:] >= [5])
    park = [replace(job, park=str(tmp_path / job.trial)) for job in jobs]
    assert ClipTask().pack(*prepared, park, report) == {} and set(report.parked) == {job.trial for job in jobs}
    left = [f"{job.park}-{report.parked[job.trial]}-{job.samples}.safetensors" for job in park]
    assert together(prepared, [replace(job, resume=file) for job, file in zip(jobs, left, strict=True)])[0] == whole


def test_a_trial_alone_can_be_dropped_too(prepared: tuple[Study, Path], jobs: list[Job]) -> None:
    steps: list[int] = []
    report = Report(lambda _, c: steps.append(c["step"]), lambda: {"trial-0"} if steps[-1] >= 5 else set())
    assert ClipTask().run(*prepared, jobs[0], report) == {}
    assert steps[-1] == 5
    assert not Path(jobs[0].output).exists()


def test_a_member_that_breaks_breaks_alone(prepared: tuple[Study, Path], jobs: list[Job], tmp_path: Path) -> None:
    whole, _ = together(prepared, jobs)
    broken = weights(jobs[1].output)
    broken["visual_projection.weight"][0, 0] = torch.nan
    save_file(broken, Path(jobs[1].output) / "model.safetensors", {"format": "pt"})
    second = replace(jobs[1], init=str(tmp_path / "broken"), output="")
    Path(jobs[1].output).rename(tmp_path / "broken")
    scores, points = together(prepared, [jobs[0], second, jobs[2]])
    assert all(np.isnan(v) for _, v in points["trial-1"])
    assert np.isnan(scores["trial-1"]["likelihood"])
    for trial in ("trial-0", "trial-2"):
        assert scores[trial] == pytest.approx(whole[trial], rel=1e-3)


def test_members_need_the_same_steps_and_whole_batches(prepared: tuple[Study, Path], jobs: list[Job]) -> None:
    with pytest.raises(ValueError, match="same batch, steps"):
        together(prepared, [jobs[0], replace(jobs[1], samples=2 * jobs[1].samples)])
    np.save(jobs[1].rows, np.arange(BATCH - 1))
    with pytest.raises(ValueError, match="same batch, steps"):
        together(prepared, jobs)
    with pytest.raises(ValueError, match="micro"):
        together(prepared, [replace(jobs[0], micro_batch=4), replace(jobs[2], micro_batch=4)])
    with pytest.raises(ValueError, match="twice"):
        together(prepared, [jobs[0], jobs[0]])


def test_a_study_says_why_it_cannot_be_packed(prepared: tuple[Study, Path]) -> None:
    study = prepared[0]
    assert ClipTask().can_pack(study) is None
    small = study.model_copy(update={"train": study.train.model_copy(update={"micro_batch": 4})})
    assert "micro_batch" in (ClipTask().can_pack(small) or "")


def test_gradients_are_clipped_member_by_member() -> None:
    torch.manual_seed(0)
    shapes, scales = ((3, 4), (5,), ()), torch.tensor([0.01, 1.0, 30.0])
    gradients = [torch.randn(3, *s) * scales.view(3, *[1] * len(s)) for s in shapes]
    models = [[torch.nn.Parameter(torch.zeros(s)) for s in shapes] for _ in range(3)]
    for k, model in enumerate(models):
        for p, g in zip(model, gradients, strict=True):
            p.grad = g[k].clone()
        torch.nn.utils.clip_grad_norm_(model, 1.0)
    clip_members(gradients, 1.0)
    for k, model in enumerate(models):
        for p, g in zip(model, gradients, strict=True):
            torch.testing.assert_close(g[k], p.grad)


@pytest.mark.parametrize(("half", "near"), [(False, 1e-5), (True, 0.04)])
def test_loss_and_gradients_are_the_serial_ones(prepared: tuple[Study, Path], half: bool, near: float) -> None:
    torch.manual_seed(0)
    models = [build_model(*prepared, seed, None) for seed in range(3)]
    pixels, ids = torch.randn(3, 8, 3, 32, 32), torch.randint(4, 200, (3, 8, 16))
    ids[:, :, -1] = EOS
    pack = Pack((build_model(*prepared, seed, None) for seed in range(3)), 3)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        losses = pack.losses(pixels, ids)
        serial = [
            contrastive_loss(image_features(m, p), text_features(m, i), m.logit_scale)
            for m, p, i in zip(models, pixels, ids, strict=True)
        ]
    losses.sum().backward()
    torch.testing.assert_close(losses, torch.stack(serial), rtol=near, atol=0)
    for k, (model, loss) in enumerate(zip(models, serial, strict=True)):
        loss.backward()
        whole = torch.cat([p.grad.flatten() for p in model.parameters()])
        member = torch.cat([pack.parameters[n].grad[k].flatten() for n, _ in model.named_parameters()])
        assert float((member - whole).norm() / whole.norm()) < near


def test_all_members_are_judged_as_one_by_one(prepared: tuple[Study, Path]) -> None:
    pack = Pack((build_model(*prepared, seed, None) for seed in range(3)), 3)
    with torch.inference_mode():
        scores = evaluate_pack(pack, *prepared)
        for seed in range(3):
            model = build_model(*prepared, seed, None)
            assert scores[seed] == pytest.approx(evaluate(model, *prepared), rel=1e-3)


def test_a_calibration_rises_until_larger_packs_do_not_pay(prepared: tuple[Study, Path]) -> None:
    found = ClipTask().calibrate_pack(*prepared, candidates=(1, 2, 3))
    assert list(found) == [1, 2, 3]
    assert all(0 < seconds < 1 for seconds in found.values())
    assert best_pack({1: 1.0, 2: 0.7, 4: 0.51, 8: 0.5}) == 4
    assert best_pack({1: 1.0, 2: 0.98}) == 1


@pytest.mark.parametrize("mode", ["ahead", "resident"])
@pytest.mark.parametrize("shape", [(5,), (2, 5)])
def test_every_path_feeds_the_same(prepared: tuple[Study, Path], mode: Mode, shape: tuple[int, ...]) -> None:
    rows = [np.random.default_rng(i).integers(0, 240, shape) for i in range(4)]
    plain = list(feed(prepared[1], CPU, iter(rows), "host"))
    other = list(feed(prepared[1], CPU, iter(rows), mode))
    assert len(plain) == len(other) == 4
    for (pixels, ids), (others, other_ids) in zip(plain, other, strict=True):
        assert pixels.shape == (*shape, 3, 32, 32)
        assert ids.shape == (*shape, 16) and ids.dtype == torch.int64
        assert torch.equal(pixels, others)
        assert torch.equal(ids, other_ids)


def feeders() -> int:
    return sum(t.name.startswith("feed") for t in threading.enumerate())


def test_an_error_in_the_feeding_thread_comes_out(prepared: tuple[Study, Path]) -> None:
    def batches() -> Iterator[NDArray[np.int64]]:
        yield np.arange(4)
        raise OSError("the disk is gone")

    source = feed(prepared[1], CPU, batches(), "ahead")
    assert next(source)[0].shape == (4, 3, 32, 32)
    with pytest.raises(OSError, match="the disk is gone"):
        next(source)
    assert feeders() == 0


def test_the_feeding_thread_ends_with_its_reader(prepared: tuple[Study, Path]) -> None:
    drawn: list[int] = []

    def batches() -> Iterator[NDArray[np.int64]]:
        for i in range(1000):
            drawn.append(i)
            yield np.arange(4)

    source = feed(prepared[1], CPU, batches(), "ahead")
    next(source)
    next(source)
    assert feeders() == 1
    del source
    assert feeders() == 0
    assert len(drawn) <= 3


def test_members_with_crops_are_what_they_are_alone(
    prepared: tuple[Study, Path], jobs: list[Job], tmp_path: Path
) -> None:
    """With all that DataComp sets: crops, decay of matrices only, a warm-up of steps."""
    made = prepared[0].train.model_copy(
        update={"crop": (0.9, 1.0), "decay": "matrices", "warmup_steps": 5, "weight_decay": 0.2}
    )
    study = prepared[0].model_copy(update={"train": made})
    opened = OpenStudy(prepared[1].parents[2], study, Store(tmp_path / "study.db"), workers=1)
    with opened.store:
        where = (study, opened.prepared)
        assert np.load(where[1] / "train-images.npy", mmap_mode="r").shape == (240, 37, 36, 3)
        few = [replace(job, samples=8 * BATCH) for job in jobs[:2]]
        scores, points = together(where, few)
        for job in few:
            metrics, losses = alone(where, replace(job, output=""))
            assert scores[job.trial] == pytest.approx(metrics, rel=1e-3)
            assert [v for _, v in points[job.trial]] == pytest.approx([v for _, v in losses], rel=1e-4)
        half = replace(few[0], samples=4 * BATCH, horizon=few[0].samples, output="", pause=str(tmp_path / "state"))
        alone_half, _ = alone(where, half)
        assert alone_half
        rest, _ = alone(where, replace(few[0], horizon=few[0].samples, resume=half.pause, output=""))
        assert rest == alone(where, replace(few[0], output=""))[0]
        assert rest != ClipTask().run(*prepared, replace(few[0], output=""), Report(lambda _k, _c: None))["trial-0"]
        assert np.isfinite(ClipTask().score(study, where[1], few[0].output)).all()
