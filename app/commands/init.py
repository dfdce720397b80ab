"""How a study begins: `djsb init` looks at the data, `djsb auto --demo` makes its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.base.addresses import address
from engine.base.errors import DataError, StudyError
from engine.base.gpus import gpu_memory
from engine.base.paths import HOME, STATE_FOLDER, STUDY_FILE, resolve
from engine.base.plugins import TASKS, missing, plugin
from engine.base.yaml_text import parse_yaml, read_utf8
from engine.data.addressed import how_to_fetch, picture_addresses
from engine.data.catalogue import check_params, ops_for, statistics_of
from engine.data.ops.needs import missing_needs
from engine.data.proposed import proposed
from engine.data.readers.contract import BROKEN, Options
from engine.data.readers.kept import hand_over
from engine.data.readers.opening import open_reader
from engine.data.readers.turns import FORMS
from engine.data.readers.webdataset import KEY, KINDS
from engine.data.sift import MAX_BAD
from engine.settings.study import Study, study_yaml, with_fields
from engine.study.file import read_study
from engine.study.rows import silent
from engine.tasks.registry import fitting_study, task_named, task_names

LOOK = 200  # rows that are looked at
HELD_BACK = 0.3  # of the evaluation's items, for the confirmation, where there are so many rows
TEXT_NAMES = ("text", "txt", "caption", "content", "TEXT", "prompt")
IMAGE_NAMES = ("images", "image", "image_path", "img", *KINDS["image"])
VIDEO_NAMES = ("videos", "video", "video_path", *KINDS["video"])
ID_NAMES = (KEY, "id", "uid", "key")
ENDS = frozenset(end for kind in KINDS.values() for end in kind)
LABEL_NAMES = ("label", "class", "class_name", "category", "cls")
DEMO = "clip"  # the task whose demo is meant where none is named


def template(name: str) -> dict[str, Any]:
    """A study template: of the `recipes/` folder, or of a task's own."""
    files = [file for folder in ("recipes", "engine/tasks/*") for file in HOME.glob(f"{folder}/{name}.yaml")]
    if not files:
        raise StudyError(f"the template {name} is missing from the installation; install djsb again")
    content = parse_yaml(read_utf8(files[0]), str(files[0]))
    assert isinstance(content, dict)
    return content


@dataclass(frozen=True)
class Found:
    """What a look at the data has found.

    fields: what is in a row → the field that holds it, or None. label: field of the class names in the evaluation.
    ops: OPs that fit, with parameters. left: OPs that would fit but for what is missing, with the reason. task: the
    one that suits the data, or None. split, eval_split: which splits of data and evaluation are meant.
    talks: the rows are conversations with images. columns: fields that are statistics; told: those that cannot be.
    """

    data: Path
    evaluation: Path | None
    fields: dict[str, str | None]
    label: str | None
    ops: dict[str, dict[str, Any]]
    left: list[tuple[str, str]]
    task: str | None
    split: str | None = None
    eval_split: str | None = None
    talks: bool = False
    columns: dict[str, Any] = field(default_factory=dict)
    told: tuple[str, ...] = ()

    @property
    def fields_text(self) -> str:
        """`text=caption, images=images`."""
        return ", ".join(f"{k}={v}" for k, v in self.fields.items() if v)


def look_at(
    data: Path,
    evaluation: Path | None,
    split: str | None = None,
    eval_split: str | None = None,
    task: str | None = None,
) -> Found:
    """Look at the first rows. task: the one that is asked for. Raises: StudyError, DataError."""
    here = Path.cwd()
    if evaluation and (_place(evaluation, here), eval_split) == (_place(data, here), split):
        raise StudyError("--eval is the training data itself; hold some rows out")
    rows = _look(data, split)
    fields = _fields(rows)
    if task is None and not fields["images"] and not fields["videos"] and (url := picture_addresses(rows)):
        raise DataError(
            f"{data} has addresses of images ({url}) and no images; fetch them and give their folder as --data: "
            f"{how_to_fetch(data, rows, url, fields['text'])} – or study the texts alone with --task lm or --task none"
        )
    ops, left = _ops(rows, fields)
    taken = {name: op for op in ops for name in statistics_of(op, {})}
    columns, told = proposed(rows, {n for n in fields.values() if n} | set(ID_NAMES), taken)
    talks = bool(fields["images"]) and any(form in row for row in rows for form in FORMS)
    if talks and evaluation and _benchmark(evaluation):
        return Found(data, evaluation, fields, None, ops, left, "vlm", split, eval_split, talks, columns, tuple(told))
    label = None if evaluation is None or task == "vlm" else _label(evaluation, eval_split)
    guess = _guess(fields, evaluation)
    return Found(data, evaluation, fields, label, ops, left, guess, split, eval_split, talks, columns, tuple(told))


def _benchmark(evaluation: Path) -> str | None:
    """The benchmark of task vlm that a file is by its name."""
    name = evaluation.name.lower()
    return next((kind for kind in ("textvqa", "mmbench", "mme") if kind in name), None)


def write_study(
    folder: Path, data: Path, evaluation: Path | None, task: str | None, force: bool,
    split: str | None = None, eval_split: str | None = None, timing: bool = False,
) -> tuple[Path, list[str]]:  # fmt: skip
    """Write `folder/study.yaml` from a look at the data; the file, and what was found.

    timing: time a few steps, and choose epochs and budget by them.
    Raises: StudyError, DataError.
    """
    file = _free(folder, force)
    if task not in (None, *task_names(), "null", "none") and plugin(TASKS, str(task)) is None:
        raise StudyError(f"{missing(TASKS, str(task), task_names())}; or leave it out")
    found = look_at(data, evaluation, split, eval_split, task)
    chosen = found.task if task is None else None if task in ("null", "none") else task
    write_found(folder, found, chosen, found.ops, {}, force)
    none = "none (with --eval, text makes it lm, text and images clip)"
    notes = [f"{data}: fields {found.fields_text}"]
    notes += [f"columns that are statistics: {', '.join(found.columns)}"] if found.columns else []
    notes += [f"left out: {name}: {reason}" for name, reason in found.left]
    notes += [f"left out: field {reason}" for reason in found.told]
    if chosen is None and task is None and found.talks:
        notes.append("conversations with images suit task vlm: name a file of TextVQA, MMBench or MME as --eval")
    notes.append(f"task: {chosen or none}; {len(found.ops)} OPs; budget and more in {file}")
    return file, [*notes, *(_fit_to_machine(file) if timing and chosen else [])]


def _fit_to_machine(file: Path) -> list[str]:
    """Epochs and budget as a few timed steps say; what there is to say of it."""
    from engine.loop.first_look import size

    study = read_study(file.parent)
    if study.design != "auto":
        return []
    sized = size(file.parent, silent)
    if sized.note:
        return [f"nothing was timed: {sized.note}; djsb plan times it, and djsb plan --budget says what a budget buys"]
    changed = with_fields(study, {"train.epochs": sized.epochs, "budget": sized.budget})
    file.write_text(study_yaml(changed), encoding="utf-8")
    return list(sized.lines)


def write_found(
    folder: Path, found: Found, task: str | None, ops: Mapping[str, Any], change: Mapping[str, Any], force: bool = False
) -> Path:
    """Write `folder/study.yaml` for what was found; the file. change: fields that differ from the task's template.

    Raises: StudyError when there is one already, or what the data lacks for the task.
    """
    file = _free(folder, force)
    raw: dict[str, Any] = {
        **(_beginning(task) if task else {}),
        "name": folder.resolve().name,
        "dataset": {
            "path": _relative(found.data, folder),
            "split": found.split,
            **found.fields,
            "columns": found.columns,
        },
        "task": task,
        "ops": dict(ops),
        **change,
    }
    raw["pools"] = {"rare": True, **raw.get("pools", {})}
    if task and raw.get("search", {}).get("strategy", "race") == "race":
        raw.setdefault("design", "auto")
    if found.evaluation is not None and task == "vlm":
        name = _benchmark(found.evaluation) or "textvqa"
        raw["evaluation"] = {
            "benchmarks": {name: _relative(found.evaluation, folder)},
            "metrics": [f"{name}_likelihood"],
        }
        raw["vlm"] = {"trains": "all"}  # a preset knows nothing yet
    elif found.evaluation is not None:
        label = found.label if task is None or "evaluation.prompts" in task_named(task).traits.uses else None
        path = _relative(found.evaluation, folder)
        # a likelihood tells pools apart with fewer seeds than an accuracy, where a task measures both
        judged = {"metrics": ["likelihood"]} if (task, bool(label)) in (("clip", True), ("caption", False)) else {}
        given = {"path": path, "label": label, "split": found.eval_split}
        raw["evaluation"] = {**judged, **raw.get("evaluation", {}), **given}
        holds_back = task is not None and task_named(task).traits.holds_back
        if holds_back and len(_look(found.evaluation, found.eval_split)) >= LOOK:
            raw["evaluation"].setdefault("held_back", HELD_BACK)
    text = study_yaml(_valid(raw, task))
    folder.mkdir(parents=True, exist_ok=True)
    hand_over(folder / STATE_FOLDER / "cache" / "rows")
    file.write_text(text, encoding="utf-8")
    return file


def _beginning(task: str) -> dict[str, Any]:
    """The task's template; without a GPU the smallest model, trained as in the task's demo, at sizes that fit it."""
    if task not in task_names():
        return {}  # of a plug-in
    raw = template(task)
    preset = raw.get("model", {}).get("preset", "tiny")
    if gpu_memory() or (preset == "tiny" and "lora" not in raw) or task_named(task).traits.demo is None:
        return raw
    demo = template(f"demo-{task}")
    kept = {name: value for name, value in raw.items() if name not in ("lora", "pools", "search", "video")}
    video = {name: value for name, value in demo.get("video", {}).items() if name != "checks"}
    return {**kept, "model": demo["model"], "train": demo["train"], **({"video": video} if video else {})}


def _free(folder: Path, force: bool) -> Path:
    """The study file to be written. Raises: StudyError when it is there and may not be replaced."""
    file = folder / STUDY_FILE
    if file.exists() and not force:
        raise StudyError(f"{file} is there already; edit it, or replace it with --force")
    return file


def _guess(fields: Mapping[str, str | None], evaluation: Path | None) -> str | None:
    """The task that suits the fields, when there is something to judge by."""
    there = frozenset(name for name in ("text", "images", "videos") if fields[name])
    return next((name for name in task_names() if evaluation and task_named(name).traits.suits == there), None)


def _valid(raw: dict[str, Any], task: str | None) -> Study:
    """The study of those fields.

    Raises: StudyError that says what the data lacks for the task.
    """
    try:
        return fitting_study(raw)
    except StudyError as error:
        problem = str(error).removeprefix("study: ")
        if "needs evaluation.path" in problem:
            problem = f"task {task} needs --eval: rows that are never trained on"
        elif "needs dataset." in problem:
            field = problem.split("dataset.")[1].split(";")[0]
            problem = f"task {task} needs {field} in the data"
        raise StudyError(f"{problem}; give it, or leave --task out") from None


def _relative(path: Path, folder: Path) -> str:
    """A path as the study file names it: relative to the study where it stays below its parent; an address as it is."""
    if name := address(path):
        return name
    target, start = path.resolve(), folder.resolve()
    if target.is_relative_to(start.parent):
        return os.path.relpath(target, start)
    return str(target)


def _place(path: Path, folder: Path) -> Path:
    return resolve(folder, str(path))


def _look(data: Path, split: str | None = None) -> list[dict[str, Any]]:
    try:
        reader = open_reader(_place(data, Path.cwd()), Options(split, MAX_BAD, head=True, text="text"))
    except DataError as error:
        text = str(error).replace("set dataset.split to one of them", "name one of them as --split")
        raise DataError(text) from error
    head = reader.read(0, min(LOOK, len(reader)))
    rows = [r for r in head if BROKEN not in r]
    if not rows:
        why = f" ({head[0][BROKEN]})" if head else ""
        raise DataError(f"{data} has no readable rows{why}; give a file with rows")
    return rows


def _first(rows: list[dict[str, Any]], names: tuple[str, ...]) -> str | None:
    present = {key for row in rows for key, value in row.items() if value is not None}
    return next((n for n in names if n in present), None)


def _fields(rows: list[dict[str, Any]]) -> dict[str, str | None]:
    """The fields by their usual names; a lone string field counts as the text."""
    strings = {k for row in rows for k, v in row.items() if isinstance(v, str)}
    others = {n for names in (IMAGE_NAMES, VIDEO_NAMES, ID_NAMES, LABEL_NAMES) for n in names}
    lone = strings - others
    # in shards a sample's own members come before what its .json names
    members = [{k: v for k, v in row.items() if isinstance(v, dict) and "offset" in v} for row in rows]
    # a column called as a kind of file, as `ts`, may be anything
    rows = [{k: v for k, v in row.items() if k not in ENDS or isinstance(v, dict | bytes | list)} for row in rows]
    text = _first(rows, TEXT_NAMES) or (lone.pop() if len(lone) == 1 else None)
    return {
        "text": text,
        "images": _first(members, IMAGE_NAMES) or _first(rows, IMAGE_NAMES),
        "videos": _first(members, VIDEO_NAMES) or _first(rows, VIDEO_NAMES),
        "id": _first(rows, ID_NAMES),
    }


def _label(evaluation: Path, split: str | None) -> str | None:
    """A field of class names: few distinct values, each seen often."""
    rows = _look(evaluation, split)
    name = _first(rows, LABEL_NAMES)
    if name is None:
        return None
    distinct = {str(r.get(name)) for r in rows}
    return name if 2 <= len(distinct) <= max(2, len(rows) // 2) else None


def _ops(
    rows: list[dict[str, Any]], fields: Mapping[str, str | None]
) -> tuple[dict[str, dict[str, Any]], list[tuple[str, str]]]:
    """OPs whose fields are there and whose needs are met; and those left out for want of weights."""
    kinds = {"text": fields["text"], "image": fields["images"], "video": fields["videos"]}
    modalities = frozenset(kind for kind, name in kinds.items() if name)
    ops: dict[str, dict[str, Any]] = {}
    left = []
    for op in ops_for(modalities):
        reason = missing_needs(op.name, check_params(op.name, {}))
        if reason is None and op.model:
            cost = f"about {op.rate:g} rows/s a core"
            reason = f"{op.hub} is in the hub's local cache; add it under ops to use it ({cost})"
        if reason:
            left.append((op.name, reason))
        else:
            ops[op.name] = _params(op.name, rows, fields["text"])
    if not ops:
        raise DataError("no OP fits the data: name its text, image or video field text, images or videos")
    return ops, left


def _params(op: str, rows: list[dict[str, Any]], text: str | None) -> dict[str, Any]:
    """Repetition is counted over n-grams; short captions need short ones, or all of them score zero."""
    texts = [r[text] for r in rows if text and isinstance(r.get(text), str)]
    if op == "word_repetition_filter" and texts:
        return {"rep_len": int(np.clip(np.median([len(t.split()) for t in texts]) // 4, 1, 10))}
    if op == "character_repetition_filter" and texts:
        return {"rep_len": int(np.clip(np.median([len(t) for t in texts]) // 8, 2, 10))}
    return {}


def write_demo(folder: Path, task: str = DEMO, change: Mapping[str, Any] | None = None) -> Path:
    """Make the demo's data and study, or find them; the study's folder. change: what differs from the template.

    The template recipes/demo-TASK.yaml is the study, and names OPs only if they are not to be those that fit the data.
    """
    from engine.demo.worlds import make_demo

    files = make_demo(folder / "data", task)
    if not (folder / STUDY_FILE).exists():
        rows = _look(files.train)
        raw = {**template(f"demo-{task}"), **(change or {})}
        raw.setdefault("ops", _ops(rows, _fields(rows))[0])
        (folder / STUDY_FILE).write_text(study_yaml(fitting_study(raw)), encoding="utf-8")
    return folder


def check_cycles(folder: Path, wanted: int) -> None:
    """Raises: StudyError when the study that was there already has another number of cycles."""
    file = folder / STUDY_FILE
    there = read_study(folder).cycles.max
    if there != wanted:
        raise StudyError(f"{file} was there already, with cycles: {there}; change it there, or name another folder")
