"""Type `easyanimate`: a text-to-video model fine-tuned by LoRA, and clips made for the prompts of VBench.

By EasyAnimate's own scripts, which lie in `thirdparty/models/EasyAnimate`, or with `backend: djsb` by task `t2v`; the
model is then the folder of a diffusers pipeline. Relative paths start from EasyAnimate's folder, as in its scripts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from engine.base.durable import replaced
from engine.data.dataset import json_line
from engine.pipeline.contract import Component, ComponentError, Context, Done, Draft, Group, Takes
from engine.pipeline.hooks import INFER, TRAIN
from engine.pipeline.work import own
from engine.pipeline.work.programs import OWN, EnvKeys, Losses, environment, lacks_manager, run_program
from engine.pools.files import open_pool

HOME = "thirdparty/models/EasyAnimate"
LOSS = r"step_loss=([-+0-9.eE]+)|loss[:=]\s*([-+0-9.eE]+)"
RANK = 128
SHOWN = 2


class Part(Group):
    """A part of the configuration; EasyAnimate's scripts take no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Models(Part):
    """model_path."""

    pretrained_model_name_or_path: str
    transformer_path: str
    lora_path: str | None = None


class Data(Part):
    """dataset_path. dataset_name: folder of the videos; dataset_meta_name: the file that lists them."""

    dataset_name: str | None = ""
    dataset_meta_name: str


class Training(Part):
    """training_config. learning_rate, rank, frames, stride: of djsb's own."""

    sample_size: int = Field(256, ge=8)
    mixed_precision: str = "bf16"
    batch_size_per_gpu: int = Field(8, ge=1)
    gradient_accumulation_steps: int = Field(1, ge=1)
    num_train_epochs: int = Field(1, ge=1)
    dataloader_num_workers: int = Field(8, ge=0)
    seed: int = Field(42, ge=0)
    learning_rate: float = Field(1e-4, gt=0)
    rank: int = Field(RANK, ge=1)
    frames: int | None = Field(None, ge=1)
    stride: int | None = Field(None, ge=1)


class Making(Part):
    """infer_config. steps, guidance: of djsb's own."""

    image_size: int = Field(256, ge=8)
    prompt_info_path: str
    gpu_num: int = Field(1, ge=1)
    batch_size: int = Field(8, ge=1)
    mixed_precision: str = "bf16"
    video_num_per_prompt: int = Field(5, ge=1)
    seed: int = Field(43, ge=0)
    steps: int = Field(50, ge=1)
    guidance: float = Field(6.0, ge=0)


class Out(Part):
    """saving_config of the training."""

    output_dir: str


class Videos(Part):
    """saving_config of the inference."""

    output_video_dir: str


class Tracker(Part):
    """tracker_config: names for Weights & Biases."""

    project_name: str = "djsb"
    experiment_name: str = "easyanimate"


class TrainPart(Part):
    """train."""

    tracker_config: Tracker = Tracker()
    model_path: Models
    dataset_path: Data
    training_config: Training = Training()
    saving_config: Out


class InferPart(Part):
    """train, of an inference."""

    model_path: Models
    infer_config: Making
    saving_config: Videos


class Common(EnvKeys):
    """Keys of both."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
    model_name: str | None = None
    trainer_name: str | None = None
    infer_name: str | None = None
    easyanimate_home: str = HOME
    backend: Literal["easyanimate", "djsb"] = "easyanimate"


class TrainExtra(Common):
    """Keys of the training."""

    train: TrainPart


class InferExtra(Common):
    """Keys of the inference."""

    train: InferPart


TrainKeys = Takes[TrainExtra]


InferKeys = Takes[InferExtra]


def _of_home(draft: Draft, key: str) -> list[str]:
    """A path that starts from EasyAnimate's folder, seen from where the pipeline is run."""
    path = draft.get(f"extra_configs.train.{key}")
    home = draft.get("extra_configs.easyanimate_home") or HOME
    return [str(Path(home) / path)] if isinstance(path, str) and path else []


def _lacks(draft: Draft) -> Iterable[tuple[str, str]]:
    if draft.get("extra_configs.backend") == "djsb":
        return
    manager = draft.get("extra_configs.env_manager") or "conda"
    if reason := lacks_manager(draft.get("extra_configs.env_name"), manager, OWN):
        yield "extra_configs.env_manager", reason


def _run(script: str, words: list[Any], keys: Common, context: Context) -> None:
    """Run one of EasyAnimate's scripts in its folder."""
    before, env = environment(keys, context, OWN)
    home = context.path(keys.easyanimate_home)
    if not (home / script).is_file():
        raise ComponentError(f"{context.job}: {home / script} is not there; clone EasyAnimate there{OWN}")
    command = [*before, "bash", script, *map(str, words)]
    run_program(command, context, env, home, Losses(context, LOSS))


def _place(path: str, keys: Common, context: Context) -> Path:
    return (context.path(keys.easyanimate_home) / path).resolve()


class Train(Component[TrainKeys]):
    """Gives the folder of the checkpoints, in which `checkpoint-EPOCHS` is the last."""

    name = "easyanimate"
    hooks = frozenset({TRAIN})
    settings = TrainKeys
    gives = ("output_dir",)
    seeded = True

    def reads(self, draft: Draft) -> list[str]:
        """See Component."""
        return _of_home(draft, "dataset_path.dataset_meta_name")

    def writes(self, draft: Draft) -> list[str]:
        """See Component."""
        return _of_home(draft, "saving_config.output_dir")

    def check(self, draft: Draft) -> Iterable[tuple[str, str]]:
        """The environment."""
        return _lacks(draft)

    def run(self, settings: TrainKeys, context: Context) -> Done:
        """See Component."""
        keys, part = settings.extra_configs, settings.extra_configs.train
        out, how = _place(part.saving_config.output_dir, keys, context), part.training_config
        if keys.backend == "djsb":
            _train(part, out, keys, context)
        else:
            models, data, tracker = part.model_path, part.dataset_path, part.tracker_config
            _run("train_lora.sh", [
                models.pretrained_model_name_or_path, models.transformer_path, data.dataset_name or "",
                data.dataset_meta_name, how.sample_size, how.mixed_precision, how.batch_size_per_gpu,
                how.gradient_accumulation_steps, how.num_train_epochs, how.dataloader_num_workers,
                how.seed + context.seed, part.saving_config.output_dir, tracker.project_name, tracker.experiment_name,
            ], keys, context)  # fmt: skip
        return Done([str(out)])


def _pipeline(models: Models, keys: Common, context: Context) -> Path:
    """The folder of the diffusers pipeline. Raises: ComponentError where neither path is one."""
    for name in (models.transformer_path, models.pretrained_model_name_or_path):
        for folder in (_place(name, keys, context), context.path(name)):
            if (folder / "model_index.json").is_file():
                return folder
    raise ComponentError(
        f"{context.job}: neither transformer_path nor pretrained_model_name_or_path is the folder of a diffusers "
        "pipeline of EasyAnimate, which backend: djsb trains; give one"
    )


def _rows(data: Data, keys: Common, context: Context) -> Path:
    """The listed videos as rows with paths that hold anywhere."""
    listed = _place(data.dataset_meta_name, keys, context)
    pool = open_pool(listed)
    bases = [_place(data.dataset_name, keys, context)] if data.dataset_name else [listed.parent, context.root]
    target = context.work / "own" / f"{listed.stem}-rows.jsonl"

    def lines() -> Iterator[str]:
        for span in pool.blocks():
            for row in pool.read(*span):
                name = str(row.get("file_path") or "")
                found = next((base / name for base in bases if name and (base / name).is_file()), None)
                if found is None:
                    raise ComponentError(f"{context.job}: {name or 'a row without file_path'} of {listed} is not there")
                yield json_line({"text": str(row.get("text") or ""), "videos": str(found.resolve())}) + "\n"

    text = "".join(lines())
    few = "".join(text.splitlines(keepends=True)[:SHOWN])  # that tell the shape of clips; nothing is judged on them
    for file, content in ((target, text), (target.with_name(f"shape-{target.name}"), few)):
        if not file.exists() or file.read_text(encoding="utf-8") != content:
            file.parent.mkdir(parents=True, exist_ok=True)
            with replaced(file) as part:
                part.write_text(content, encoding="utf-8")
    return target


def _train(part: TrainPart, out: Path, keys: TrainExtra, context: Context) -> None:
    how, rows = part.training_config, _rows(part.dataset_path, keys, context)
    pool = open_pool(rows)
    batch = min(how.batch_size_per_gpu * how.gradient_accumulation_steps, max(2, len(pool)))
    video = {"samples": 0, "side": how.sample_size, "frames": how.frames, "stride": how.stride}
    content = {
        "name": "clips", "task": "t2v", "seed": how.seed, "ops": {},
        "dataset": {"path": str(rows), "text": "text", "videos": "videos"},
        "evaluation": {"path": str(rows.with_name(f"shape-{rows.name}")), "overlap": "warn"},
        "model": {"checkpoint": str(_pipeline(part.model_path, keys, context))},
        "lora": {"rank": how.rank, "alpha": float(how.rank)},
        "train": {"epochs": float(how.num_train_epochs), "batch_size": max(2, batch),
                  "micro_batch": min(how.batch_size_per_gpu, max(2, batch)), "learning_rate": how.learning_rate},
        "video": {name: value for name, value in video.items() if value is not None},
    }  # fmt: skip
    work = [own.Trained(pool.every, out / f"checkpoint-{how.num_train_epochs}", "easyanimate")]
    own.train(own.study_folder(content, context), work, context, how.num_train_epochs)


class Infer(Component[InferKeys]):
    """Gives the folder of the clips, `PROMPT-N.mp4` as VBench takes them."""

    name = "easyanimate"
    hooks = frozenset({INFER})
    settings = InferKeys
    gives = ("output_video_dir",)

    def reads(self, draft: Draft) -> list[str]:
        """See Component. The checkpoint lies where an earlier job writes."""
        lora = [path.removesuffix(".safetensors") for path in _of_home(draft, "model_path.lora_path")]
        return [*_of_home(draft, "infer_config.prompt_info_path"), *(str(Path(path).parent) for path in lora)]

    def writes(self, draft: Draft) -> list[str]:
        """See Component."""
        return _of_home(draft, "saving_config.output_video_dir")

    def check(self, draft: Draft) -> Iterable[tuple[str, str]]:
        """The environment."""
        return _lacks(draft)

    def run(self, settings: InferKeys, context: Context) -> Done:
        """See Component."""
        keys, part = settings.extra_configs, settings.extra_configs.train
        out = _place(part.saving_config.output_video_dir, keys, context)
        how, models = part.infer_config, part.model_path
        if keys.backend == "djsb":
            _make(part, out, keys, context)
        else:
            _run("infer_lora.sh", [
                models.pretrained_model_name_or_path, models.transformer_path, models.lora_path or "",
                how.image_size, how.prompt_info_path, how.gpu_num, how.batch_size, how.mixed_precision,
                how.video_num_per_prompt, how.seed, part.saving_config.output_video_dir,
            ], keys, context)  # fmt: skip
        return Done([str(out)])


def prompts_of(file: Path, job: str) -> list[str]:
    """The prompts of a list of VBench, each once. Raises: ComponentError."""
    try:
        found = [str(entry["prompt_en"]) for entry in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ComponentError(f"{job}: {file} is no list of VBench's prompts ({error}); it wants prompt_en") from error
    return list(dict.fromkeys(found))


def _make(part: InferPart, out: Path, keys: InferExtra, context: Context) -> None:
    """Make the clips by the checkpoint that djsb has trained."""
    import numpy as np

    from engine.tasks.shared.videos import write_clip
    from engine.tasks.t2v.evaluation import RATE
    from engine.tasks.t2v.frozen import Clips
    from engine.tasks.t2v.training import sample
    from engine.tasks.t2v.vbench import clip_name

    how = part.infer_config
    prompts = prompts_of(_place(how.prompt_info_path, keys, context), context.job)
    prompts = list({clip_name(prompt, 0): prompt for prompt in prompts}.values())
    lora = _place((part.model_path.lora_path or "").removesuffix(".safetensors"), keys, context)
    out.mkdir(parents=True, exist_ok=True)
    with own.opened(own.study_of(lora, context.job), context) as (study, task):
        prepared = study.prepared
        parts = task.training.build(study.study, prepared, study.study.seed, str(lora))
        encoded = parts.encoded(Clips(prepared, "eval"))
        good = np.flatnonzero(np.load(prepared / "eval-good.npy"))
        shape = tuple(encoded.latents(good[:1], None).shape[1:])
        for number in range(how.video_num_per_prompt):
            clips = sample(
                parts, prompts, shape, seed=how.seed + number, steps=how.steps, guidance=how.guidance,
                batch=how.batch_size, words=encoded.heard,
            )  # fmt: skip
            for prompt, clip in zip(prompts, clips, strict=True):
                write_clip(clip, out / clip_name(prompt, number), RATE)
            context.say(f"{number + 1} of {how.video_num_per_prompt}: clips of {len(prompts)} prompts in {out}")


COMPONENTS = (Train(), Infer())
