"""Evaluation sets in clip_benchmark's layout: read, accounted for, judged with known answers, and averaged."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.base.errors import DataError, StudyError
from engine.study.file import read_study
from engine.study.inputs import inputs_of
from engine.study.opened import OpenStudy, open_study
from engine.tasks.clip.model import build_model
from engine.tasks.clip.packed import Pack
from engine.tasks.clip.sets import set_scores, sets_of, with_mean
from engine.tasks.clip.task import ClipTask, evaluate, evaluate_pack
from engine.tasks.contract import Job, Report
from tests.conftest import COLOURS, Tiny, make_tiny

torch.set_num_threads(1)
SILENT = Report(lambda _kind, _content: None)
NAMES = list(COLOURS)


def picture(number: int) -> bytes:
    """A PNG of the number's colour, with noise of its own, so that no two are alike."""
    out, noise = io.BytesIO(), np.random.default_rng(number).normal(0, 20, (16, 16, 3))
    pixels = np.clip(np.array(COLOURS[NAMES[number % 3]]) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def shards(folder: Path, samples: list[dict[str, bytes]], each: int = 5) -> None:
    """Tars of so many samples, numbered as clip_benchmark numbers them, and nshards.txt."""
    (folder / "test").mkdir(parents=True)
    parts = [samples[at : at + each] for at in range(0, len(samples), each)]
    for shard, part in enumerate(parts):
        with tarfile.open(folder / "test" / f"{shard}.tar", "w") as tar:
            for at, sample in enumerate(part):
                for extension, content in sample.items():
                    member = tarfile.TarInfo(f"s{shard * each + at:07d}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    (folder / "test" / "nshards.txt").write_text(f"{len(parts)}\n")


def of_classes(folder: Path, count: int = 12) -> Path:
    """A set of three classes with two templates."""
    shards(folder, [{"png": picture(i), "cls": str(i % 3).encode()} for i in range(count)])
    (folder / "classnames.txt").write_text("".join(f"{name}\n" for name in NAMES))
    (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}\na {c} picture\n")
    return folder


def of_retrieval(folder: Path, count: int = 7) -> Path:
    """A set with two captions an image."""
    texts = [f"a {NAMES[i % 3]} thing {i}\nnumber {i} again\n" for i in range(count)]
    shards(folder, [{"png": picture(i), "txt": text.encode()} for i, text in enumerate(texts)])
    return folder


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A study that is judged by three sets and no rows."""
    tiny = make_tiny(tmp_path_factory.mktemp("sets"), 96, 6)
    of_classes(tiny.root / "evalsets" / "wds_cifar3_test")
    of_classes(tiny.root / "evalsets" / "wds_vtab-pets_test")
    of_retrieval(tiny.root / "evalsets" / "wds_flickr7")
    sets = {"cifar3": "wds_cifar3_test", "pets": "wds_vtab-pets_test", "flickr": "wds_flickr7"}
    evaluation = {"path": None, "label": None, "sets": {n: f"../evalsets/{f}" for n, f in sets.items()}}
    tiny.set({"evaluation": evaluation, "train": {"micro_batch": None}})
    return tiny


def opened(tiny: Tiny) -> OpenStudy:
    """The study."""
    return open_study(tiny.study, 1)


def test_several_sets_are_judged_at_once_and_averaged(judged: Tiny, tmp_path: Path) -> None:
    study = opened(judged)
    with study.store:
        assert [m.name for m in study.main_metrics] == ["sets_mean"]
        told = {i.input: i.line for i in inputs_of(study)}
        np.save(tmp_path / "rows.npy", np.arange(60))
        job = Job("t", str(tmp_path / "rows.npy"), 320, 0, None, str(tmp_path / "out"))
        scores = ClipTask().run(study.study, study.prepared, job, SILENT)["t"]
        prepared, root = study.prepared, study.root
    assert told["evaluation set cifar3"] == (
        "evaluation set cifar3: 12 of 12 samples; 3 classes, 2 templates; the mean counts accuracy; 3 shards"
    )
    assert "14 captions; the mean counts recall" in told["evaluation set flickr"]
    assert set(scores) == {m.name for m in study.metrics}
    counted = [scores["cifar3_accuracy"], scores["pets_per_class"], scores["flickr_recall"]]
    assert scores["sets_mean"] == pytest.approx(np.mean(counted))
    recalls = scores["flickr_image_to_text_r1"], scores["flickr_text_to_image_r1"]
    assert scores["flickr_recall"] == pytest.approx(np.mean(recalls))
    models = [build_model(study.study, prepared, seed, None) for seed in range(2)]
    with torch.inference_mode():
        packed = evaluate_pack(Pack(iter([build_model(study.study, prepared, s, None) for s in range(2)]), 2),
                               study.study, prepared)  # fmt: skip
    for model, found in zip(models, packed, strict=True):
        assert found == pytest.approx(evaluate(model, study.study, prepared), rel=1e-3)
    (judged.root / "evalsets" / "wds_cifar3_test" / "classnames.txt").write_text("red\ngreen\nviolet\n")
    again = opened(judged)
    with again.store:
        assert again.root != root  # what a set holds is part of every trial's id


def test_scores_of_a_set_have_their_known_values(tmp_path: Path) -> None:
    place, prepared = tmp_path / "cache" / "clip-set-x", tmp_path / "cache" / "clip-y"
    place.mkdir(parents=True)
    prepared.mkdir()
    meta = {"sets": {"s": {"folder": place.name, "classes": 4, "templates": 1, "counted": "accuracy"}}}
    (prepared / "meta.json").write_text(json.dumps(meta))
    rng = np.random.default_rng(0)
    labels, said = rng.integers(0, 3, 200), rng.integers(0, 4, 200)  # a class that no sample has may be said
    np.save(place / "good.npy", np.ones(200, bool))
    np.save(place / "labels.npy", labels)
    eye = torch.eye(4)
    found = set_scores({"images": eye[said], "classes": eye}, prepared, "s")
    assert found["s_accuracy"] == pytest.approx(np.mean(labels == said))
    recall = [np.mean(said[labels == c] == c) for c in range(3)]
    precision = [np.mean(labels[said == c] == c) for c in range(3)]
    assert found["s_per_class"] == pytest.approx(np.mean(recall))
    f1 = [2 * p * r / (p + r) for p, r in zip(precision, recall, strict=True)]
    assert found["s_f1"] == pytest.approx(np.mean(f1))
    good = np.array([True, False, True, True])
    np.save(place / "good.npy", good)
    np.save(place / "owners.npy", np.array([0, 0, 2, 3]))
    images, texts = torch.eye(3), torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0.1], [0, 0, 1]])
    back = set_scores({"images": images, "texts": texts}, prepared, "s")
    assert back["s_text_to_image_r1"] == 0.75  # the second of sample 0 finds sample 2
    assert back["s_image_to_text_r1"] == pytest.approx(2 / 3)
    assert back["s_recall"] == pytest.approx((0.75 + 2 / 3) / 2)
    assert with_mean({"a_accuracy": 0.2, "b_recall": 0.6}, {"a": {"counted": "accuracy"}, "b": {"counted": "recall"}})[
        "sets_mean"
    ] == pytest.approx(0.4)


def test_samples_that_cannot_be_used_are_counted(judged: Tiny, tmp_path: Path) -> None:
    samples = [{"png": picture(i), "cls": str(i % 3).encode()} for i in range(16)]
    samples[3]["png"] = b"no picture"
    samples[5]["cls"] = b"7"
    del samples[6]["cls"], samples[7]["png"]
    folder = of_classes(tmp_path / "first")
    shards(tmp_path / "odd", samples)
    for name in ("classnames.txt", "zeroshot_classification_templates.txt"):
        (tmp_path / "odd" / name).write_bytes((folder / name).read_bytes())
    study = read_study(judged.study)
    odd = study.model_copy(
        update={"evaluation": study.evaluation.model_copy(update={"sets": {"odd": str(tmp_path / "odd")}})}
    )
    (found,) = sets_of(odd, judged.study)
    told = replace(found, index=tmp_path / "index").read(0.5).accounting
    assert (told.expected, told.used, told.missing) == (16, 12, 0)
    assert dict(told.left_out) == {
        "unreadable image": 1, "of a class beyond classnames.txt": 1, "without a class": 1, "without an image": 1
    }  # fmt: skip
    with pytest.raises(DataError, match=r"12 of 16 samples.*more than dataset\.max_bad"):
        replace(found, index=tmp_path / "index").read(0.2)


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda f: (f / "zeroshot_classification_templates.txt").unlink(), "templates.txt is missing"),
        (lambda f: (f / "zeroshot_classification_templates.txt").write_text("a photo\n"), "needs one {c}"),
        (lambda f: (f / "test" / "1.tar").unlink(), "says 3 shards, and 2 are there"),
        (lambda f: [file.unlink() for file in (f / "test").glob("*.tar")], "has no *.tar"),
    ],
    ids=["no templates", "no place", "a shard", "none"],
)
def test_a_set_that_is_not_whole_is_refused(judged: Tiny, tmp_path: Path, break_it: object, says: str) -> None:
    folder = of_classes(tmp_path / "set")
    break_it(folder)  # type: ignore[operator]
    study = read_study(judged.study)
    one = study.model_copy(update={"evaluation": study.evaluation.model_copy(update={"sets": {"a": str(folder)}})})
    with pytest.raises(DataError, match=r"evaluation\.sets\.a") as error:
        _ = sets_of(one, judged.study)[0].data
    assert says in str(error.value)


def test_a_study_needs_rows_or_sets(judged: Tiny) -> None:
    folder = judged.set({"evaluation": {"path": None, "label": None}}, judged.root / "none")
    with pytest.raises(
        StudyError, match=r"needs evaluation\.path, rows that are never trained on, or evaluation\.sets"
    ):
        read_study(folder)
