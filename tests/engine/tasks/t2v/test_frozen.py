"""What is frozen is encoded once: the same losses as without, shared, bounded, charged to who is the first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.study.opened import OpenStudy, open_study
from engine.tasks.contract import Job, Report, Rows
from engine.tasks.shared.caches import read_meta
from engine.tasks.shared.media import set_bound
from engine.tasks.shared.videos import Window
from engine.tasks.t2v.frozen import Clips, Encoded
from engine.tasks.t2v.model import Parts, build_model
from engine.tasks.t2v.task import _sets
from engine.tasks.t2v.training import train
from tests.conftest import Row, Tiny
from tests.engine.tasks.t2v.conftest import T2V
from tests.engine.tasks.t2v.pipelines import ltx

torch.set_num_threads(1)
SAMPLES = 20


@pytest.fixture
def study(moving: Tiny, tmp_path: Path) -> Iterator[OpenStudy]:
    """One on an LTX, whose text has a mask."""
    change: Row = {"model": {"checkpoint": str(ltx(tmp_path / "ltx"))}, "train": {**T2V["train"], "batch_size": 4}}
    moving.set({**T2V, **change, "video": {"drop_text": 0.3}})
    with (opened := open_study(moving.study, 1)).store:
        yield opened


def losses(study: OpenStudy, keep: bool, latents: str = "mean") -> tuple[list[float], Parts]:
    """Of every step of a trial, and what it was trained with."""
    found: list[float] = []
    video = study.study.video.model_copy(update={"latents": latents})
    parts = build_model(study.study, study.prepared, 0, None)
    encoded = parts.encoded(Clips(study.prepared, "train"), keep)
    report = Report(lambda _kind, content: found.append(content["values"]["loss"]))
    job = Job("t", "", SAMPLES, 0, None, "")
    assert train(parts, study.study.model_copy(update={"video": video}), encoded, np.arange(8), job, report)
    return found, parts


def is_loaded(parts: Parts) -> bool:
    """True when autoencoder or text encoder are in memory."""
    return bool({"vae", "_read"} & set(vars(parts.frozen)))


def test_losses_are_those_without_a_cache_and_later_trials_encode_nothing(
    study: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, parts = losses(study, keep=False)
    assert len(plain) == SAMPLES // 4 and is_loaded(parts)
    first, parts = losses(study, keep=True)
    assert first == pytest.approx(plain, rel=1e-5)
    assert not is_loaded(parts)  # let go of before the training
    parts = build_model(study.study, study.prepared, 0, None)
    monkeypatch.delattr("engine.tasks.shared.weights.Weights.load")
    encoded = parts.encoded(Clips(study.prepared, "train"))
    assert encoded.fill(np.arange(8))
    assert encoded.latents(np.arange(8), None).shape == (8, 8, 3, 4, 4)
    text = encoded.words(np.arange(8), [True, *[False] * 7])
    nothing, said = encoded.heard([""]), encoded.heard([encoded.clips.captions[1]])
    assert torch.equal(text["mask"][0], nothing["mask"][0]) and torch.equal(text["embeds"][1], said["embeds"][0])


def test_a_draw_of_the_posterior_is_the_same_from_the_cache(study: OpenStudy) -> None:
    plain, _ = losses(study, False, "sample")
    kept, _ = losses(study, True, "sample")
    mean, _ = losses(study, True, "mean")
    assert kept == pytest.approx(plain, rel=1e-5) and kept != pytest.approx(mean, rel=1e-3)


def test_without_room_it_trains_alike_and_keeps_nothing(study: OpenStudy) -> None:
    plain, _ = losses(study, keep=True)
    packs = study.prepared.parent / "packs"
    for file in [*packs.rglob("*.pack"), *packs.rglob("index")]:
        file.unlink()
    set_bound(study.prepared.parent, 1e-9)
    assert losses(study, keep=True)[0] == pytest.approx(plain, rel=1e-5)
    assert not list(packs.rglob("*.pack"))


def test_what_is_to_be_encoded_is_timed_and_the_key_is_of_what_encodes(study: OpenStudy, tmp_path: Path) -> None:
    def encoded() -> Encoded:
        parts = build_model(study.study, study.prepared, 0, None)
        return parts.encoded(Clips(study.prepared, "train"))

    one = encoded()
    assert one.seconds() > 0
    assert not one.fill(np.arange(2), lambda: True)  # dropped meanwhile
    assert one.fill(np.arange(len(one))) and one.seconds() == 0
    assert one.frozen is not None
    latents, texts = one.frozen.keys
    other = tmp_path / "ltx" / "vae" / "config.json"
    other.write_text(other.read_text().replace("{", '{"again": 1,', 1))
    assert one.frozen.keys[0] != latents and one.frozen.keys[1] == texts


def test_rows_of_a_mapper_share_what_it_has_not_changed(study: OpenStudy) -> None:
    sets = read_meta(study.prepared)["sets"]
    other = Rows(study.evaluation, Path(study.root), study.evaluation_scan.good)  # other rows than those to train on
    window = Window(6, 2, 16)
    for same, shared in ((frozenset[str](), 0), (frozenset({"image", "video"}), 1), (frozenset({"text"}), 1)):
        made = _sets(replace(other, like=study.prepared, same=same), other, window, 0)["train"]
        assert sum(a == b for a, b in zip(made, sets["train"], strict=True)) == shared
