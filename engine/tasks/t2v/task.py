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
from engine.settings.study import Study
from engine.tasks.contract import Progress, Rows, Traits
from engine.tasks.shared.caches import in_turn, make_caches, read_meta
from engine.tasks.shared.checkpoints import checkpoint_of, need_packages, read_config
from engine.tasks.shared.media import files_of, key_of
from engine.tasks.shared.tokens import captions, train_tokenizer
from engine.tasks.shared.trial import Training, TrainingTask, first_rows
from engine.tasks.shared.videos import cache_clips
from engine.tasks.shared.weights import Weights, accounted
from engine.tasks.t2v.evaluation import evaluate, left_out, metrics_of, read_prompts
from engine.tasks.t2v.model import PRESETS, build_model, check_checkpoint, make_text, save_model, weights_of
from engine.tasks.t2v.scores import clip_weights, detector_weights
from engine.tasks.t2v.training import train_rows
from engine.tasks.t2v.vbench import DIMENSIONS

CACHE = 1  # version of what lies in the caches
FOLDERS = ("clip", "detector", "vbench_prompts")


class T2vTask(TrainingTask):
    """See the module."""

    traits = Traits(
        version=1,
        presets=tuple(PRESETS),
        needs=("dataset.text", "dataset.videos", "evaluation.path"),
        uses=frozenset({"lora", "video", "evaluation.label", "model.checkpoint"}),
        reads_evaluation=frozenset({"text", "videos"}),
        fewest_rows=1,
        suits=frozenset({"text", "videos"}),
        demo="engine.demo.video",
    )

    training = Training(
        build_model, train_rows, evaluate, save_model, sample=partial(first_rows, "train-clips"), timed=(1, 5)
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
        return None

    def shares(self, study: Study, folder: Path) -> list[Any]:
        """The section `video`, and what its paths hold."""
        video = study.video
        paths = {n: str(getattr(video, n)) for n in FOLDERS if getattr(video, n)}
        checkpoint = checkpoint_of(study, folder)
        return [
            video.model_dump(exclude={*FOLDERS, "vbench_seconds"}),
            {n: content_hash(resolve(folder, p)) for n, p in paths.items()},
            content_hash(checkpoint) if checkpoint else None,
        ]

    def medium(self, study: Study, folder: Path) -> int:
        """See Task."""
        window = PRESETS[study.model.preset][0]
        return window.frames * window.side * window.side * 3

    def metrics(self, study: Study, _prepared: Path) -> list[Metric]:
        """The loss, and the scores that the study asks for."""
        return metrics_of(study)

    def remarks(self, study: Study, prepared: Path) -> list[str]:
        """See Remarks."""
        held = read_meta(prepared)["held"]
        window = PRESETS[study.model.preset][0]
        short = f"{held} videos are shorter than the {window.span} frames of a clip and hold their last frame"
        return [*left_out(study), *([short] if held else [])]

    def inputs(self, study: Study, folder: Path, _prepared: Path) -> list[Accounting]:
        """The tensors of the models that the study names."""
        return accounted(folder, needed_weights(study, folder))

    def prepare(
        self, study: Study, folder: Path, train: Rows, evaluation: Rows | None, workers: int, progress: Progress | None
    ) -> Path:
        """Decode a window of every video of both datasets and list their captions, once per study."""
        assert evaluation is not None
        _check_needs(study, folder)
        window, network = PRESETS[study.model.preset]
        checkpoint = checkpoint_of(study, folder)
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
            return {"held": held["train"]}

        return make_caches(folder, f"t2v-{content_id([*own, *known, *fields, *masks])}", make)


def needed_weights(study: Study, folder: Path) -> list[Weights]:
    """Those of the pipeline, and of the models that score clips, where the study names them."""
    video, checkpoint = study.video, checkpoint_of(study, folder)
    found = weights_of(checkpoint) if checkpoint else []
    if video.clip:
        found.append(clip_weights(resolve(folder, video.clip)))
    if video.detector:
        found.append(detector_weights(resolve(folder, video.detector)))
    return found


def _check_needs(study: Study, folder: Path) -> None:
    """That packages, checkpoint and folders are there and of the right kind, before anything is decoded.

    Raises: StudyError.
    """
    video = study.video
    needed = {"diffusers": True, "av": True, "cv2": video.samples > 0, "peft": study.lora.rank > 0}
    need_packages(study, needed, "t2v")
    window, network = PRESETS[study.model.preset]
    if checkpoint := checkpoint_of(study, folder):
        check_checkpoint(checkpoint, window)
    elif network is None:
        raise StudyError(
            f"model.preset {study.model.preset} has no weights of its own; set model.checkpoint to the folder of a "
            "diffusers pipeline"
        )
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
