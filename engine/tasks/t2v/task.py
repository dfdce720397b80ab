"""Task `t2v`: text-to-video by diffusion (the paper's D.5), judged by the held-out denoising loss and by made clips."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from engine.base.errors import DataError, StudyError
from engine.base.ids import digest
from engine.base.paths import resolve
from engine.data.dataset import content_hash
from engine.records.metric import Metric
from engine.settings.study import Study
from engine.tasks.contract import Job, Progress, Report, Rows, Task, Traits
from engine.tasks.shared.tokens import captions, train_tokenizer
from engine.tasks.shared.videos import cache_clips
from engine.tasks.t2v.evaluation import evaluate, left_out, metrics_of, read_prompts
from engine.tasks.t2v.model import PRESETS, build_model, check_checkpoint, checkpoint_of, make_text, save_model
from engine.tasks.t2v.training import Clips, train
from engine.tasks.t2v.vbench import DIMENSIONS

CACHE = 1  # version of what lies in the caches
FOLDERS = ("clip", "detector", "vbench_prompts")
SILENT = Report(lambda _kind, _content: None)


class T2vTask(Task):
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

    def lacks(self, study: Study) -> str | None:
        """See Task."""
        video = study.video
        if video.checks and (study.evaluation.label is None or not video.samples):
            return "video.checks needs evaluation.label, as `red circle moving left`, and video.samples"
        if not video.samples and (video.clip or video.detector):
            return "video.clip and video.detector score made clips; set video.samples"
        if unknown := sorted(set(video.vbench_dimensions or ()) - set(DIMENSIONS)):
            return f"video.vbench_dimensions: {', '.join(unknown)} is unknown; VBench has {', '.join(DIMENSIONS)}"
        return None

    def shares(self, study: Study, folder: Path) -> list[Any]:
        """See Task."""
        video = study.video
        paths = {n: str(getattr(video, n)) for n in FOLDERS if getattr(video, n)}
        checkpoint = checkpoint_of(study, folder)
        return [
            video.model_dump(exclude={*FOLDERS, "vbench_seconds"}),
            {n: content_hash(resolve(folder, p)) for n, p in paths.items()},
            content_hash(checkpoint) if checkpoint else None,
        ]

    def metrics(self, study: Study, _prepared: Path) -> list[Metric]:
        """See `t2v_evaluation.metrics_of`."""
        return metrics_of(study)

    def remarks(self, study: Study, prepared: Path) -> list[str]:
        """See Remarks."""
        held = json.loads((prepared / "meta.json").read_text())["held"]
        window = PRESETS[study.model.preset][0]
        short = f"{held} videos are shorter than the {window.span} frames of a clip and hold their last frame"
        return [*left_out(study), *([short] if held else [])]

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
        fields = [train.data.fields.model_dump(), evaluation.data.fields.model_dump()]
        masks = [digest(np.flatnonzero(~rows.good).tolist()) for rows in (train, evaluation)]
        target = folder / ".djsb" / "cache" / f"t2v-{digest([*own, *known, *fields, *masks])}"
        if (target / "meta.json").exists():
            return target
        target.mkdir(parents=True, exist_ok=True)
        train.share(target, ["tokenizer.json", "text_encoder", "eval-clips.npy"], media=["train-clips.npy"])
        total, held = len(train.data) + len(evaluation.data), 0
        for name, rows, before in (("train", train, 0), ("eval", evaluation, len(train.data))):
            shown = None if progress is None else _shifted(progress, before, total)
            short = cache_clips(rows, window, study.seed, target / f"{name}-clips.npy", workers, shown)
            held += short if name == "train" else 0
            texts = list(captions(rows.data, rows.good))
            (target / f"{name}-captions.json").write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
        np.save(target / "eval-good.npy", evaluation.good)
        if study.evaluation.label is not None:
            _cache_labels(evaluation, study.evaluation.label, target)
        if checkpoint is None:
            assert network is not None
            if not (target / "tokenizer.json").exists():
                train_tokenizer(train.data, train.good, network.vocabulary, target / "tokenizer.json")
            make_text(target / "text_encoder", network, study.seed)
        scratch = target / "meta.tmp"
        scratch.write_text(json.dumps({"held": held}))
        scratch.replace(target / "meta.json")
        return target

    def run(self, study: Study, prepared: Path, job: Job, report: Report) -> dict[str, dict[str, float]]:
        """Train on the job's rows, save the checkpoint, evaluate."""
        parts = build_model(study, prepared, job.seed, job.init)
        if not train(parts, study, Clips(prepared, "train"), np.load(job.rows), job, report):
            return {}
        scores = evaluate(parts, study, prepared)
        if job.output:
            save_model(parts, prepared, Path(job.output))
        return {job.trial: scores}

    def calibrate(self, study: Study, prepared: Path) -> tuple[float, float]:
        """Time a few steps after a warm-up, and one evaluation."""
        parts = build_model(study, prepared, 0, None)
        clips = Clips(prepared, "train")
        batch = min(study.train.batch_size, len(clips.frames))
        rows = np.arange(batch, dtype=np.int64)
        seconds = 0.0
        for steps in (1, 5):
            began = time.perf_counter()
            train(parts, study, clips, rows, Job("calibration", "", steps * batch, 0, None, ""), SILENT)
            seconds = (time.perf_counter() - began) / (steps * batch)
        began = time.perf_counter()
        evaluate(parts, study, prepared)
        return seconds, time.perf_counter() - began


TASK = T2vTask()


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    """Progress of one part of several."""
    return lambda done, _: progress(before + done, total)


def _check_needs(study: Study, folder: Path) -> None:
    """That packages, checkpoint and folders are there and of the right kind, before anything is decoded.

    Raises: StudyError.
    """
    video = study.video
    needed = {"diffusers": True, "av": True, "cv2": video.samples > 0, "peft": study.lora.rank > 0}
    if missing := [name for name, wanted in needed.items() if wanted and find_spec(name) is None]:
        raise StudyError(f"task t2v needs {' and '.join(missing)}; install with: pip install 'djsb[t2v]'")
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
        if (named := getattr(video, field)) is None:
            continue
        file = resolve(folder, named) / "config.json"
        try:
            kind = json.loads(file.read_text(encoding="utf-8")).get("model_type")
        except (OSError, ValueError, AttributeError) as error:
            raise StudyError(f"video.{field}: {file} cannot be read ({error}); give a transformers folder") from error
        if kind not in kinds:
            raise StudyError(f"video.{field}: {named} is a {kind} model; this needs one of {', '.join(kinds)}")
    if video.vbench_prompts:
        read_prompts(resolve(folder, video.vbench_prompts))


def _cache_labels(evaluation: Rows, field: str, target: Path) -> None:
    """Write the labels of the evaluation rows. Raises: DataError when a good row has none."""
    labels = []
    for start, stop in evaluation.data.chunks(4096):
        for number, row in enumerate(evaluation.data.reader.read(start, stop), start):
            label = row.get(field)
            if label is None and evaluation.good[number]:
                raise DataError(
                    f"{evaluation.data.path}, row {number} has no {field!r}; set evaluation.label to a field"
                )
            labels.append("" if label is None else str(label))
    (target / "eval-labels.json").write_text(json.dumps(labels, ensure_ascii=False), encoding="utf-8")
