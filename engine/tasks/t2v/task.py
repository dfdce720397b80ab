"""Task `t2v`: text-to-video by diffusion (the paper's D.5), judged by the held-out denoising loss and by made clips."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engine.base.arrays import save_array
from engine.base.durable import write_text
from engine.base.errors import DataError, StudyError
from engine.base.ids import content_id
from engine.base.paths import resolve
from engine.data.fingerprints import content_hash
from engine.records.accounting import Accounting
from engine.records.metric import Metric
from engine.settings.section import shared
from engine.settings.study import Study
from engine.tasks.contract import Kept, Progress, Rows, Traits
from engine.tasks.shared.caches import in_turn, make_caches, read_meta
from engine.tasks.shared.checkpoints import checkpoint_of, need_packages, read_config
from engine.tasks.shared.fitting import changed
from engine.tasks.shared.kept import of_preset, of_shapes, shapes_in
from engine.tasks.shared.media import files_of, key_of, set_bound
from engine.tasks.shared.procedure import begin
from engine.tasks.shared.tokens import captions, train_tokenizer
from engine.tasks.shared.trial import Training, TrainingTask, first_rows
from engine.tasks.shared.videos import Window, cache_clips
from engine.tasks.shared.weights import Weights, accounted
from engine.tasks.t2v.distillation import train_rows
from engine.tasks.t2v.evaluation import evaluate, left_out, metrics_of, read_prompts
from engine.tasks.t2v.frozen import Clips
from engine.tasks.t2v.model import (
    LORA_TARGETS,
    PRESETS,
    build_model,
    check_checkpoint,
    component,
    family_of,
    make_text,
    save_model,
    weights_of,
    window_of,
)
from engine.tasks.t2v.rewards import reward_weights
from engine.tasks.t2v.scores import clip_weights, detector_weights
from engine.tasks.t2v.shell import shell
from engine.tasks.t2v.student import WIDTH, check_base, is_distilled, lacking
from engine.tasks.t2v.vbench import DIMENSIONS

CACHE = 1  # version of what lies in the caches
FOLDERS = ("clip", "detector", "vbench_prompts")
DISTILLED = ("start", "image_model", "video_model")


class T2vTask(TrainingTask):
    """See the module."""

    traits = Traits(
        holds_back=True,
        version=1,
        presets=tuple(PRESETS),
        spreads=True,
        extras=("t2v",),
        needs=("dataset.text", "dataset.videos", "evaluation.path"),
        uses=frozenset({"lora", "video", "distill", "evaluation.label", "model.checkpoint"}),
        reads_evaluation=frozenset({"text", "videos"}),
        fewest_rows=1,
        suits=frozenset({"text", "videos"}),
        demo="engine.demo.video",
    )

    training = Training(
        build_model,
        train_rows,
        evaluate,
        save_model,
        sample=partial(first_rows, "train-clips"),
        timed=(1, 5),
        shell=shell,
    )

    def lacks(self, study: Study) -> str | None:
        """What the scores of made clips need."""
        video = study.video
        if video.checks and (study.evaluation.label is None or not video.samples):
            return "video.checks needs evaluation.label, as `red circle moving left`, and video.samples"
        if not video.samples and (video.clip or video.detector):
            return "video.clip and video.detector score made clips; set video.samples"
        if unknown := sorted(set(video.vbench_dimensions or ()) - set(DIMENSIONS)):
            return f"video.vbench_dimensions: {', '.join(unknown)} is unknown; VBench has {', '.join(DIMENSIONS)}"
        return lacking(study, window_of(study).frames)

    def shares(self, study: Study, folder: Path) -> list[Any]:
        """The section `video`, and what its paths hold."""
        video = study.video
        checkpoint = checkpoint_of(study, folder)

        def contents(section: Any, names: tuple[str, ...]) -> dict[str, str]:
            paths = {n: str(getattr(section, n)) for n in names if getattr(section, n)}
            return {n: content_hash(resolve(folder, p)) for n, p in paths.items()}

        found = [
            shared(video, {*FOLDERS, "vbench_seconds"}),
            contents(video, FOLDERS),
            content_hash(checkpoint) if checkpoint else None,
        ]
        if is_distilled(study):
            found += [shared(study.distill, set(DISTILLED)), contents(study.distill, DISTILLED)]
        return found

    def kept(self, study: Study, folder: Path) -> Kept | None:
        """See Task."""
        if (source := checkpoint_of(study, folder)) is None:
            return of_preset("t2v", study)
        targets = study.lora.targets or (("",) if is_distilled(study) else LORA_TARGETS)
        found = of_shapes(shapes_in(source / family_of(source).part), study, targets=targets)
        if found and is_distilled(study):  # with what hears the scale; the target's weights are a part of the state
            more = 4 * WIDTH * int(family_of(source).net["block_out_channels"][0])
            found = Kept(found.checkpoint + more, found.state + found.checkpoint + 4 * more)
        return found

    def medium(self, study: Study, folder: Path) -> int:
        """See Task."""
        window = window_of(study)
        return window.frames * window.side * window.side * 3

    def metrics(self, study: Study, _prepared: Path) -> list[Metric]:
        """The loss, and the scores that the study asks for."""
        return metrics_of(study)

    def remarks(self, study: Study, prepared: Path) -> list[str]:
        """See Remarks."""
        held = read_meta(prepared)["held"]
        window = window_of(study)
        short = f"{held} videos are shorter than the {window.span} frames of a clip and hold their last frame"
        return [*left_out(study), *([short] if held else [])]

    def inputs(self, study: Study, folder: Path, _prepared: Path) -> list[Accounting]:
        """The tensors of the models that the study names."""
        return accounted(folder, needed_weights(study, folder))

    def quicker(self, study: Study, prepared: Path, alone: float, samples: int) -> Study:
        """See Task."""
        return (
            changed(study, compile="off") if is_distilled(study) else super().quicker(study, prepared, alone, samples)
        )

    def calibrate(self, study: Study, prepared: Path) -> tuple[float, float]:
        """See Task. A sample takes what encoding its row takes besides, where that is still to be done: a trial may be
        the first to draw it.
        """
        begin(study)
        parts = build_model(study, prepared, 0, None)
        train, evaluation = (parts.encoded(Clips(prepared, name)) for name in ("train", "eval"))
        evaluation.fill(np.flatnonzero(np.load(prepared / "eval-good.npy")))  # once, for all trials
        first = train.seconds() / max(1.0, study.train.epochs)
        del parts, train, evaluation
        per_sample, fixed = super().calibrate(study, prepared)
        return per_sample + first, fixed

    def prepare(
        self, study: Study, folder: Path, train: Rows, evaluation: Rows | None, workers: int, progress: Progress | None
    ) -> Path:
        """Decode a window of every video of both datasets and list their captions, once per study."""
        assert evaluation is not None
        _check_needs(study, folder)
        window, network = window_of(study), PRESETS[study.model.preset][1]
        checkpoint = checkpoint_of(study, folder)
        if checkpoint:  # what is encoded lies in packs too
            set_bound(folder / ".djsb" / "cache", study.cache.max_gb)
        own = [study.seed, None if checkpoint else study.model.preset, CACHE]
        known = [train.data.fingerprint, evaluation.data.fingerprint, vars(window), study.evaluation.label]
        fields = [train.data.key, evaluation.data.key, *key_of(train, evaluation)]
        masks = [content_id(np.flatnonzero(~rows.good).tolist()) for rows in (train, evaluation)]

        def make(target: Path) -> dict[str, Any]:
            train.share(
                target, ["tokenizer.json", "text_encoder", *files_of("eval-clips")], media=files_of("train-clips")
            )
            held = {}
            for name, rows, part in in_turn(train, evaluation, progress):
                held[name] = cache_clips(rows, window, study.seed, target, f"{name}-clips", workers, part)
                _write_texts(target / f"{name}-captions.json", list(captions(rows)))
            save_array(target / "eval-good.npy", evaluation.good)
            if study.evaluation.label is not None:
                _write_texts(target / "eval-labels.json", _labels(evaluation, study.evaluation.label))
            if network is not None and checkpoint is None:
                train_tokenizer(train, network.vocabulary, target / "tokenizer.json")
                make_text(target / "text_encoder", network, study.seed)
            return {"held": held["train"], "sets": _sets(train, evaluation, window, study.seed)}

        return make_caches(folder, f"t2v-{content_id([*own, *known, *fields, *masks])}", make)


def _sets(train: Rows, evaluation: Rows, window: Window, seed: int) -> dict[str, list[str]]:
    """What clips and captions of both sets hang on; rows whose media or texts no mapper changed share theirs."""

    def own(rows: Rows, of: list[Any]) -> str:
        bad = content_id(np.flatnonzero(~rows.good).tolist())
        return content_id([rows.data.fingerprint, rows.data.key, bad, *of])

    def both(rows: Rows) -> list[str]:
        made = [own(rows, [vars(window), seed, rows.form == "jpeg"]), own(rows, [])]
        like = read_meta(rows.like).get("sets", {}).get("train") if rows.like else None
        if like and {"image", "video"} <= rows.same:
            made[0] = like[0]
        if like and "text" in rows.same:
            made[1] = like[1]
        return made

    return {"train": both(train), "eval": both(evaluation)}


def needed_weights(study: Study, folder: Path) -> list[Weights]:
    """Those of the pipeline, and of the models that score clips, where the study names them."""
    video, checkpoint = study.video, checkpoint_of(study, folder)
    found = weights_of(checkpoint) if checkpoint else []
    if video.clip:
        found.append(clip_weights(resolve(folder, video.clip)))
    if video.detector:
        found.append(detector_weights(resolve(folder, video.detector)))
    return [*found, *reward_weights(study, folder).values()]


def _check_needs(study: Study, folder: Path) -> None:
    """That packages, checkpoint and folders are there and of the right kind, before anything is decoded.

    Raises: StudyError.
    """
    video = study.video
    needed = {"diffusers": True, "av": True, "cv2": video.samples > 0, "peft": study.lora.rank > 0}
    need_packages(study, needed, "t2v")
    window, network = window_of(study), PRESETS[study.model.preset][1]
    if checkpoint := checkpoint_of(study, folder):
        check_checkpoint(checkpoint, window)
        if is_distilled(study):
            check_base(study, folder, family_of(checkpoint), component(checkpoint, "scheduler"))
        if study.video.fps and not family_of(checkpoint).timed:
            raise StudyError(f"video.fps: the model of {checkpoint} is not told the frames a second; leave it out")
    elif network is None:
        raise StudyError(
            f"model.preset {study.model.preset} has no weights of its own; set model.checkpoint to the folder of a "
            "diffusers pipeline"
        )
    elif study.video.fps or study.video.latents == "sample":
        raise StudyError("video.fps and video.latents are for a checkpoint; leave them out, or set model.checkpoint")
    elif window.side % network.patch:
        raise StudyError(f"video.side {window.side} is no multiple of {network.patch}, a patch of {study.model.preset}")
    elif study.lora.rank:
        raise StudyError("lora needs model.checkpoint: adapters of weights that know nothing learn nothing")
    for field, kinds in (("clip", ("clip",)), ("detector", ("videomae", "vivit", "timesformer"))):
        if (path := getattr(video, field)) is not None:
            read_config(resolve(folder, path), f"video.{field}", kinds)
    accounted(folder, needed_weights(study, folder))
    if video.vbench_prompts:
        read_prompts(resolve(folder, video.vbench_prompts))


def _write_texts(file: Path, texts: list[str]) -> None:
    write_text(file, json.dumps(texts, ensure_ascii=False, allow_nan=False))


def _labels(evaluation: Rows, field: str) -> list[str]:
    """The labels of the evaluation rows. Raises: DataError when a good row has none."""
    labels = []
    for start, stop in evaluation.data.chunks(4096):
        for number, row in enumerate(evaluation.data.reader.read(start, stop), start):
            label = row.get(field)
            if label is None and evaluation.good[number]:
                raise DataError(
                    f"{evaluation.data.path}, row {number} has no {field!r}; set evaluation.label to a field"
                )
            labels.append("" if label is None else str(label))
    return labels


TASK = T2vTask()
