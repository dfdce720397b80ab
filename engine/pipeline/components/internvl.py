"""Type `internvl_coco_caption`: InternVL fine-tuned by LoRA on captions, and judged by what it says of test images.

By InternVL's own program in its environment, or with `backend: djsb` by djsb's task `caption`.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from engine.base.durable import replaced
from engine.base.ids import json_text
from engine.pipeline.contract import Component, ComponentError, Context, Done, Draft, Paths, Takes
from engine.pipeline.hooks import EVALUATE_MODEL, TRAIN
from engine.pipeline.work import own
from engine.pipeline.work.programs import OWN, EnvKeys, environment, lacks_manager, run_program
from engine.pools.files import as_file, open_pool
from engine.settings.study import with_fields

STYLES = {"1B": "Hermes-2", "40B": "Hermes-2", "4B": "phi3-chat"} | dict.fromkeys(
    ("2B", "8B", "26B", "76B"), "internlm2-chat"
)
BATCH = 512  # rows of a step in all, as the authors' script has them
NAMES = {"bleu_1": "Bleu_1", "bleu_2": "Bleu_2", "bleu_3": "Bleu_3", "bleu_4": "Bleu_4", "meteor": "METEOR",
         "rouge_l": "ROUGE_L", "cider": "CIDEr"}  # fmt: skip
POINT = re.compile(r"'loss': ([-+0-9.e]+).*'epoch': ([-+0-9.e]+)")
TEST = "internvl_chat/data/coco/annotations/coco_karpathy_test.json"
IMAGES = "internvl_chat/data/coco"
Backend = Literal["internvl", "djsb"]


class Common(EnvKeys):
    """Keys of both."""

    internvl_home: str
    num_gpus: int | None = Field(None, ge=1)
    backend: Backend = "internvl"


class TrainExtra(Common):
    """Keys of the training. lora_rank, epochs, learning_rate, total_batch_size: of djsb's own, as InternVL has them.

    evaluation_path: captions that the checkpoints are judged on; they lie where InternVL has them, if left out.
    """

    batch_size_per_device: int = Field(4, ge=1)
    work_dir: str
    model_name_or_path: str
    conv_style_or_scale: str
    meta_paths: Paths = Field(min_length=1)
    script_dir: str | None = None
    lora_rank: int = Field(128, ge=1)
    epochs: float = Field(1.0, gt=0)
    learning_rate: float = Field(4e-5, gt=0)
    total_batch_size: int = Field(BATCH, ge=2)
    evaluation_path: str | None = None
    answer_tokens: int = Field(30, ge=1)


class EvaluateExtra(Common):
    """Keys of the evaluation."""

    ckpt_paths: Paths = Field(min_length=1)


TrainKeys = Takes[TrainExtra]


EvaluateKeys = Takes[EvaluateExtra]


def _lacks(draft: Draft) -> Iterable[tuple[str, str]]:
    if draft.get("extra_configs.backend") == "djsb":
        return
    manager = draft.get("extra_configs.env_manager") or "conda"
    if reason := lacks_manager(draft.get("extra_configs.env_name"), manager, OWN):
        yield "extra_configs.env_manager", reason


class Train(Component[TrainKeys]):
    """Gives the folder of a checkpoint for each meta file: `WORK_DIR/META_MODEL`."""

    name = "internvl_coco_caption"
    hooks = frozenset({TRAIN})
    settings = TrainKeys
    gives = ("paths",)
    read_keys = ("extra_configs.meta_paths", "extra_configs.model_name_or_path")
    write_keys = ("extra_configs.work_dir",)
    seeded = True

    def check(self, draft: Draft) -> Iterable[tuple[str, str]]:
        """The environment, and the conversation's style."""
        yield from _lacks(draft)
        style = draft.get("extra_configs.conv_style_or_scale")
        if style is not None and style not in {*STYLES, *STYLES.values()}:
            yield "extra_configs.conv_style_or_scale", f"{style!r} is none of {', '.join({**STYLES})}"

    def run(self, settings: TrainKeys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        metas = [(path, _meta(path)) for path in map(context.file, keys.meta_paths)]
        model, work = context.path(keys.model_name_or_path), context.path(keys.work_dir)
        targets = [work / f"{path.stem}_{model.name}" for path, _ in metas]
        if keys.backend == "djsb":
            return Done([_by_djsb(metas, targets, model, keys, context)])
        before, env = environment(keys, context, OWN)
        home = context.path(keys.internvl_home) / "internvl_chat"
        if not home.is_dir():
            raise ComponentError(f"{context.job}: {home} is not there; clone InternVL there{OWN}")
        for (path, meta), target in zip(metas, targets, strict=True):
            as_file(home / meta["annotation"])  # a pool of which only the row numbers are kept
            target.mkdir(parents=True, exist_ok=True)
            command = ["torchrun", "--nnodes=1", f"--nproc_per_node={keys.num_gpus or _gpus(context)}"]
            command += ["internvl/train/internvl_chat_finetune.py", *_options(keys, model, target, path, context)]
            places = {**env, "PYTHONPATH": f"{env.get('PYTHONPATH', '')}:{home}", "LAUNCHER": "pytorch"}
            step = iter(range(1, 1 << 40))

            def heard(line: str, name: str = target.name, step: Any = step) -> None:
                if match := POINT.search(line):
                    context.measure(f"{name}/loss", float(match[1]), next(step))

            run_program([*before, *command], context, places, home, heard)
        return Done([[str(target) for target in targets]])


def _gpus(context: Context) -> int:
    from engine.base.gpus import gpus

    if not (found := gpus()):
        raise ComponentError(f"{context.job}: InternVL's own program needs a GPU{OWN}")
    return len(found)


def _options(keys: TrainExtra, model: Path, target: Path, meta: Path, context: Context) -> list[str]:
    """Of InternVL's program, as its authors fine-tune on COCO: LoRA of the language model, all else frozen."""
    each = keys.batch_size_per_device * (keys.num_gpus or _gpus(context))
    if keys.total_batch_size % each:
        raise ComponentError(
            f"{context.job}: {keys.total_batch_size} rows a step are no multiple of {each} (num_gpus × "
            "batch_size_per_device); change one of them"
        )
    given: dict[str, Any] = {
        "model_name_or_path": model, "conv_style": STYLES.get(keys.conv_style_or_scale, keys.conv_style_or_scale),
        "output_dir": target, "meta_path": meta, "overwrite_output_dir": True, "force_image_size": 448,
        "max_dynamic_patch": 6, "down_sample_ratio": 0.5, "drop_path_rate": 0.0, "freeze_llm": True,
        "freeze_mlp": True, "freeze_backbone": True, "use_llm_lora": keys.lora_rank, "vision_select_layer": -1,
        "dataloader_num_workers": 4, "bf16": True, "num_train_epochs": keys.epochs,
        "per_device_train_batch_size": keys.batch_size_per_device,
        "gradient_accumulation_steps": keys.total_batch_size // each, "evaluation_strategy": "no",
        "save_strategy": "steps", "save_steps": 200, "save_total_limit": 1, "learning_rate": keys.learning_rate,
        "weight_decay": 0.01, "warmup_ratio": 0.03, "lr_scheduler_type": "cosine", "logging_steps": 1,
        "max_seq_length": 4096, "do_train": True, "grad_checkpoint": True, "group_by_length": True,
        "dynamic_image_size": True, "use_thumbnail": True, "ps_version": "v2",
        "deepspeed": "zero_stage1_config.json", "report_to": "none", "seed": 42 + context.seed,
    }  # fmt: skip
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def _meta(path: Path) -> dict[str, Any]:
    """The one data set that a meta file names. Raises: ComponentError."""
    try:
        (entry,) = json.loads(path.read_text(encoding="utf-8")).values()
        return {"annotation": str(entry["annotation"]), "length": int(entry["length"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ComponentError(f"{path} is no meta file of InternVL with one data set ({error})") from error


def _by_djsb(
    metas: list[tuple[Path, dict[str, Any]]], targets: list[Path], model: Path, keys: TrainExtra, context: Context
) -> list[str]:
    """Train by task caption. Pools of one file share its caches."""
    home = context.path(keys.internvl_home)
    test = context.path(keys.evaluation_path) if keys.evaluation_path else home / TEST
    evaluation = captions_of(test, home / IMAGES, context.work / "own")
    checkpoint = _converted(model, context)
    groups: dict[Path, list[own.Trained]] = defaultdict(list)
    for (path, meta), target in zip(metas, targets, strict=True):
        pool = open_pool(home / "internvl_chat" / meta["annotation"])
        groups[pool.base].append(own.Trained(pool.numbers, target, path.stem))
    made: list[str] = []
    for base, work in groups.items():
        smallest = min(len(one.rows) for one in work)
        batch = min(keys.total_batch_size, max(2, smallest))
        if batch < keys.total_batch_size:
            context.say(f"a pool has {smallest} rows; a step takes {batch} in place of {keys.total_batch_size}")
        content = {
            "name": "captions", "task": "caption", "ops": {},
            "dataset": {"path": str(base), "text": "text", "images": "images"},
            "evaluation": {"path": str(evaluation), "overlap": "warn"},
            "model": {"checkpoint": str(checkpoint)},
            "lora": {"rank": keys.lora_rank, "alpha": 2.0 * keys.lora_rank},
            "train": {"epochs": keys.epochs, "batch_size": batch, "learning_rate": keys.learning_rate,
                      "weight_decay": 0.01, "warmup": 0.03,
                      "micro_batch": min(batch, keys.batch_size_per_device)},
            "vlm": {"answer_tokens": keys.answer_tokens},
        }  # fmt: skip
        made += own.train(own.study_folder(content, context), work, context, keys.epochs)
    return sorted(made, key=[str(target) for target in targets].index)


def _converted(model: Path, context: Context) -> Path:
    """The model in the layout of transformers; one in its authors' own is converted once."""
    config = model / "config.json"
    if not config.is_file():
        raise ComponentError(f"{context.job}: {model} has no config.json; give the folder of a checkpoint")
    if json.loads(config.read_text(encoding="utf-8")).get("model_type") != "internvl_chat":
        return model
    from engine.tasks.vlm.original import convert

    target = context.work / "own" / f"{model.name}-converted"
    if not target.exists():
        convert(model, target)
    return target


def captions_of(test: Path, images: Path, folder: Path) -> Path:
    """Test captions as rows of an image and a caption each. test: as COCO has them (images, annotations).

    Raises: ComponentError where it is none of these.
    """
    try:
        content = json.loads(test.read_text(encoding="utf-8"))
        names = {entry["id"]: str(entry.get("image") or entry["file_name"]) for entry in content["images"]}
        told = content.get("annotations") or json.loads(
            test.with_name(f"{test.stem}_gt.json").read_text(encoding="utf-8")
        )["annotations"]  # fmt: skip
        rows = [{"images": str(images / names[entry["image_id"]]), "text": str(entry["caption"])} for entry in told]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ComponentError(
            f"{test} holds no captions of COCO ({error}); give a file with images and annotations as evaluation_path"
        ) from error
    text = "".join(json_text(row, ensure_ascii=False) + "\n" for row in rows)
    target = folder / "test-captions.jsonl"
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        with replaced(target) as part:
            part.write_text(text, encoding="utf-8")
    return target


NO_METEOR = (
    "METEOR is left out, and avg_score is the mean of the other scores: METEOR 1.5 and the PTB tokenizer are programs "
    "in Java (part of pycocoevalcap), and java is not there; install a Java runtime, then djsb run --again this job"
)


class Evaluate(Component[EvaluateKeys]):
    """Gives for each checkpoint Bleu_1 … CIDEr and `avg_score`, their mean."""

    name = "internvl_coco_caption"
    hooks = frozenset({EVALUATE_MODEL})
    settings = EvaluateKeys
    gives = ("results",)
    read_keys = ("extra_configs.ckpt_paths",)
    tracks = True
    version = 2  # METEOR where there is Java

    def check(self, draft: Draft) -> Iterable[tuple[str, str]]:
        """The environment."""
        yield from _lacks(draft)

    def run(self, settings: EvaluateKeys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        results = []
        for name in keys.ckpt_paths:
            checkpoint = context.file(name)
            of_djsb = keys.backend == "djsb" or (checkpoint / own.NOTE).exists()
            scores = _judged(checkpoint, context) if of_djsb else _by_program(checkpoint, keys, context)
            results.append({**scores, "avg_score": sum(scores.values()) / len(scores)})
            context.say(f"{checkpoint.name}: avg_score {results[-1]['avg_score']:.4f}")
        return Done([results], {"avg_score": max(result["avg_score"] for result in results)})


def _judged(checkpoint: Path, context: Context) -> dict[str, float]:
    """By task caption. Without Java METEOR is left out, and words are found without its tokenizer; the log says so."""
    from engine.tasks.caption.scores import java_problem  # its libraries take time

    java = java_problem() is None
    if not java:
        context.say(NO_METEOR)
    with own.opened(own.study_of(checkpoint, context.job), context) as (study, task):
        asked: Any = task
        settings = with_fields(study.study, {"vlm.java": java})
        found: Mapping[str, float] = asked.ask(settings, study.prepared, checkpoint, study.study.vlm.prompt)
    return {NAMES[name.removesuffix("_non_ptb")]: value for name, value in found.items()
            if name.removesuffix("_non_ptb") in NAMES}  # fmt: skip


def _by_program(checkpoint: Path, keys: EvaluateExtra, context: Context) -> dict[str, float]:
    before, env = environment(keys, context, OWN)
    home = context.path(keys.internvl_home) / "internvl_chat"
    if not (home / "evaluate.sh").is_file():
        raise ComponentError(f"{context.job}: {home}/evaluate.sh is not there; clone InternVL there{OWN}")
    scores: dict[str, float] = {}
    number = re.compile(rf"\b({'|'.join(NAMES.values())}): ([0-9.]+)")

    def heard(line: str) -> None:
        scores.update({name: float(value) for name, value in number.findall(line)})

    # its script puts its own folder before the path
    command = ["bash", "evaluate.sh", os.path.relpath(checkpoint, home), "caption-coco", "--dynamic"]
    variables = {**env, "GPUS": str(keys.num_gpus or _gpus(context))}
    run_program([*before, *command], context, variables, home, heard)
    if not scores:
        raise ComponentError(f"{context.job}: InternVL's evaluation of {checkpoint} told no score; see the job's log")
    return scores


COMPONENTS = (Train(), Evaluate())
