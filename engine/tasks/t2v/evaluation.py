"""How task `t2v` judges a model: the held-out denoising loss, and scores of clips that it makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import DataError, StudyError
from engine.base.paths import resolve
from engine.base.scratch import scratch
from engine.base.text import read_text
from engine.records.metric import Metric
from engine.settings.study import Study
from engine.tasks.shared.items import judged_items, judged_rows
from engine.tasks.shared.procedure import autocast, frozen_dtype
from engine.tasks.shared.videos import write_clip
from engine.tasks.t2v import vbench as board
from engine.tasks.t2v.consistency import few_steps
from engine.tasks.t2v.frozen import Clips
from engine.tasks.t2v.model import Parts
from engine.tasks.t2v.rewards import load_rewards
from engine.tasks.t2v.scores import check_scores, flow_scores, frechet_distance, load_clip, load_detector
from engine.tasks.t2v.training import held_out_loss, sample

RATE = 8  # frames a second of clips that VBench reads
ENDLESS = 1e9  # the top of a scale that has none, as JSON knows no infinity


def metrics_of(study: Study) -> list[Metric]:
    """What `evaluate` returns. Unless the study names others, the loss counts in the ranking, and what VBench says.

    Of VBench's whole board that is its total, which weighs the dimensions; else each dimension that is measured.
    """
    video = study.video
    found = [Metric("loss", False, 0, ENDLESS)]
    if video.samples:
        found += [Metric(n, True, 0, 1, False) for n in ("temporal_flicker", "motion_smoothness", "dynamic_degree")]
        if video.checks:
            found += [Metric(n, True, 0, 1, False) for n in ("colour", "object", "motion")]
        if video.clip:
            found += [Metric("subject_consistency", True, 0, 1, False), Metric("text_similarity", True, -1, 1, False)]
        for name in ("image", "video"):
            if getattr(study.distill, f"{name}_model"):
                found.append(Metric(f"{name}_reward", True, -1, 1, False))
        if video.detector:
            found.append(Metric("fvd", False, 0, ENDLESS, False))
    if video.vbench:
        named = video.vbench_dimensions
        found += [Metric(f"vbench_{n}", True, 0, 1, named is not None) for n in named or board.DIMENSIONS]
        if named is None:
            found += [Metric(f"vbench_{n}", True, 0, 1, n == "total") for n in ("quality", "semantic", "total")]
    return found


def left_out(study: Study) -> list[str]:
    """What is not measured, and which field would have it measured."""
    video = study.video
    if not video.samples:
        return ["left out: scores of generated clips; set video.samples to how many"]
    found = []
    if not video.clip:
        found.append("left out: subject_consistency, text_similarity; set video.clip to the folder of a CLIP")
    if not video.detector:
        found.append("left out: fvd; set video.detector to the folder of a VideoMAE, ViViT or TimeSformer")
    return found


def evaluate(parts: Parts, study: Study, prepared: Path) -> dict[str, float]:
    """Scores by metric. The captions and noises that clips are made from are the same for every trial."""
    video = study.video
    clips, good = Clips(prepared, "eval"), judged_rows(np.load(prepared / "eval-good.npy"))
    batch = study.train.micro_batch or study.train.batch_size
    encoded = parts.encoded(clips)
    scores = {"loss": held_out_loss(parts, encoded, good, batch, video.guidance)}
    if not video.samples and not video.vbench:
        return scores
    shape = tuple(encoded.latents(good[:1], None).shape[1:])
    options: dict[str, Any] = {"steps": video.steps, "guidance": video.guidance, "batch": batch, "words": encoded.heard}
    rows = good[np.linspace(0, len(good) - 1, min(len(good), video.samples or len(good))).round().astype(int)]
    captions = [clips.captions[r] for r in rows]
    if video.samples:
        made = made_clips(parts, captions, shape, **options)
        scores |= _scores_of_clips(made, rows, captions, clips, study, prepared, parts.device)
    if video.vbench:
        scores |= _vbench(parts, study, prepared, captions, shape, options)
    return scores


def made_clips(parts: Parts, *inputs: Any, **options: Any) -> NDArray[np.uint8]:
    """Clips of captions: those of a student in few steps, else by `training.sample`, whose inputs these are."""
    make = sample if parts.solver is None else few_steps
    return make(parts, *inputs, **options)


def _scores_of_clips(
    made: NDArray[np.uint8], rows: NDArray[np.int64], captions: list[str], clips: Clips, study: Study, prepared: Path,
    device: Any,
) -> dict[str, float]:  # fmt: skip
    folder, video = prepared.parents[2], study.video
    scores = flow_scores(made) | _rewards(made, captions, study, folder, device)
    if video.checks:
        labels = json.loads((prepared / "eval-labels.json").read_text(encoding="utf-8"))
        scores |= check_scores(made, [labels[r] for r in rows])
    if video.clip:
        scores |= load_clip(resolve(folder, video.clip), device)(made, captions)
    if video.detector:
        features = load_detector(resolve(folder, video.detector), device)
        scores["fvd"] = frechet_distance(features(made), features(np.asarray(clips.frames[rows])))
    return scores


def _rewards(made: NDArray[np.uint8], captions: list[str], study: Study, folder: Path, device: Any) -> dict[str, float]:
    """What the models that rewarded the training say of made clips."""
    import torch

    found = {}
    for name, reward in load_rewards(study, folder, device, frozen_dtype(study)).items():
        most = study.distill.video_frames if name == "video" else study.distill.image_frames
        chosen = np.linspace(0, made.shape[1] - 1, min(most, made.shape[1])).round().astype(int)
        with torch.no_grad(), autocast(device):
            each = [
                float(reward(_from_0_to_1(clip[chosen], device), [caption], each=name == "image"))
                for clip, caption in zip(made, captions, strict=True)
            ]
        found[f"{name}_reward"] = float(np.mean(each))
    return found


def _from_0_to_1(frames: NDArray[np.uint8], device: Any) -> Any:
    import torch

    return torch.from_numpy(frames).to(device).permute(0, 3, 1, 2)[None].float() / 255


def _vbench(
    parts: Parts, study: Study, prepared: Path, captions: list[str], shape: tuple[int, ...], options: dict[str, Any]
) -> dict[str, float]:
    """Make the clips of every prompt, let the command score them, normalise its scores."""
    video = study.video
    assert video.vbench is not None
    if video.vbench_prompts:
        prompts_read = read_prompts(resolve(prepared.parents[2], video.vbench_prompts))
        captions = [prompts_read[at] for at in judged_items(prompts_read)]
    captions = list({board.clip_name(c, 0): c for c in captions}.values())  # a file name tells VBench the caption
    with scratch() as folder:
        videos, out, prompts = folder / "videos", folder / "out", folder / "prompts.json"
        videos.mkdir()
        named: dict[str, str] = {}
        for number in range(video.vbench_each):
            for caption, clip in zip(captions, made_clips(parts, captions, shape, seed=number, **options), strict=True):
                file = videos / board.clip_name(caption, number)
                write_clip(clip, file, RATE)
                named[str(file)] = caption
        prompts.write_text(json.dumps(named, ensure_ascii=False, allow_nan=False), encoding="utf-8")
        raw = board.run_vbench(video.vbench, videos, prompts, out, video.vbench_seconds)
    wanted = video.vbench_dimensions or tuple(board.DIMENSIONS)
    if missing := [name for name in wanted if name not in raw]:
        raise StudyError(
            f"video.vbench measured no {', '.join(missing)}; add them to its --dimension, or name those that it "
            "measures in video.vbench_dimensions"
        )
    scores = {f"vbench_{name}": score for name, score in board.normalise({n: raw[n] for n in wanted}).items()}
    if not video.vbench_dimensions and (whole := board.board(raw)):
        scores |= {"vbench_quality": whole.quality, "vbench_semantic": whole.semantic, "vbench_total": whole.total}
    return scores


def read_prompts(file: Path) -> list[str]:
    """The lines of a file that are not empty. Raises: StudyError."""
    try:
        lines = [line.strip() for line in read_text(file).splitlines()]
    except DataError as error:
        raise StudyError(f"video.vbench_prompts: {error}") from None
    found = list(dict.fromkeys(filter(None, lines)))
    if not found:
        raise StudyError(f"video.vbench_prompts: {file} has no prompt; write one a line")
    return found
