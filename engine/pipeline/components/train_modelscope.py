"""TrainModelHook, type `modelscope`: a trainer of ModelScope, as a program of its own."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field

from engine.base.ids import json_text
from engine.pipeline.contract import Component, ComponentError, Context, Done, Draft, Takes
from engine.pipeline.hooks import TRAIN
from engine.pipeline.work import modelscope_program
from engine.pipeline.work.programs import EnvKeys, Losses, environment, lacks_manager, run_program
from engine.pools.files import as_file

LOSS = r"\bloss:\s*([-+0-9.eE]+)"
LACKS = "the package modelscope is not installed; install it, or name an environment that has it as env_name"


class Extra(EnvKeys):
    """Its keys; `train` and what else ModelScope's configuration takes goes to it."""

    train_dataset: str
    eval_dataset: str | None = None
    work_dir: str
    model_name: str
    trainer_name: str
    key_remapping: dict[str, str] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
    evaluation: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any] = Field(default_factory=dict)
    dataset: dict[str, Any] = Field(default_factory=dict)
    preprocessor: dict[str, Any] = Field(default_factory=dict)


Keys = Takes[Extra]


class TrainModelScope(Component[Keys]):
    """Gives its work_dir. The loss is read of what it prints."""

    name = "modelscope"
    hooks = frozenset({TRAIN})
    settings = Keys
    gives = ("work_dir",)
    read_keys = ("extra_configs.train_dataset", "extra_configs.eval_dataset")
    write_keys = ("extra_configs.work_dir",)

    def check(self, draft: Draft) -> Iterable[tuple[str, str]]:
        """Whether ModelScope can be there."""
        name = draft.get("extra_configs.env_name")
        if name is None and importlib.util.find_spec("modelscope") is None:
            yield "extra_configs.type", LACKS
        if reason := lacks_manager(name, draft.get("extra_configs.env_manager") or "conda"):
            yield "extra_configs.env_manager", reason

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        if not keys.env_name and importlib.util.find_spec("modelscope") is None:
            raise ComponentError(f"{context.job}: {LACKS}")
        before, env = environment(keys, context)
        work = context.path(keys.work_dir)
        work.mkdir(parents=True, exist_ok=True)
        given = keys.model_dump(exclude_unset=True, exclude={"type", "env_name", "env_manager", "env_params"})
        given |= {"work_dir": str(work), "train_dataset": str(as_file(context.path(keys.train_dataset)))}
        if keys.eval_dataset:
            given["eval_dataset"] = str(as_file(context.path(keys.eval_dataset)))
        if (local := context.path(keys.model_name)).is_dir():
            given["model_name"] = str(local)
        file = context.scratch / "modelscope.json"
        file.write_text(json_text(given), encoding="utf-8")
        python = "python" if keys.env_name else sys.executable
        program = str(Path(modelscope_program.__file__))
        run_program([*before, python, program, str(file)], context, {**env, "PYTHONUNBUFFERED": "1"},
                    context.root, Losses(context, LOSS))  # fmt: skip
        return Done([str(work)])


COMPONENTS = (TrainModelScope(),)
