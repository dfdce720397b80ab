"""EvaluateDataHook, type `vbench_video_evaluator`: VBench's own program on clips, a dimension after another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable

from pydantic import Field

from engine.base.durable import replaced
from engine.base.errors import TrialError
from engine.pipeline.contract import Component, ComponentError, Context, Done, Draft, Takes
from engine.pipeline.hooks import EVALUATE_DATA
from engine.pipeline.work.programs import EnvKeys, environment, lacks_manager, run_program
from engine.tasks.t2v.vbench import DIMENSIONS, read_results

LACKS = "the program vbench is not here; install VBench, or name an environment that has it as env_name"


class Extra(EnvKeys):
    """Its keys."""

    full_json_dir: str
    videos_path: str
    output_path: str
    eval_name: str = "vbench_evaluator"
    load_ckpt_from_local: bool = False
    num_gpus: int = Field(1, ge=1)
    dimension_list: list[str] = Field(min_length=1)


Keys = Takes[Extra]


class VBench(Component[Keys]):
    """Gives the mean score; `EVAL_NAME_merged_results.json` has each dimension's."""

    name = "vbench_video_evaluator"
    hooks = frozenset({EVALUATE_DATA})
    settings = Keys
    gives = ("mean_score",)
    read_keys = ("extra_configs.videos_path", "extra_configs.full_json_dir")
    write_keys = ("extra_configs.output_path",)
    tracks = True

    def check(self, draft: Draft) -> Iterable[tuple[str, str]]:
        """Dimensions that are VBench's, and whether it can be there."""
        name = draft.get("extra_configs.env_name")
        if unknown := [d for d in draft.texts("extra_configs.dimension_list") if d not in DIMENSIONS]:
            yield "extra_configs.dimension_list", f"{unknown[0]} is none of {', '.join(DIMENSIONS)}"
        if name is None and shutil.which("vbench") is None:
            yield "extra_configs.type", LACKS
        if reason := lacks_manager(name, draft.get("extra_configs.env_manager") or "conda"):
            yield "extra_configs.env_manager", reason

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        before, env = environment(keys, context)
        if not before and shutil.which("vbench", path=env.get("PATH")) is None:
            raise ComponentError(f"{context.job}: {LACKS}")
        out = context.path(keys.output_path)
        out.mkdir(parents=True, exist_ok=True)
        detail: dict[str, float] = {}
        for dimension in keys.dimension_list:
            folder = context.scratch / dimension
            folder.mkdir()
            run_program([
                *before, "vbench", "evaluate", "--ngpus", str(keys.num_gpus), "--full_json_dir",
                str(context.file(keys.full_json_dir)), "--output_path", str(folder), "--videos_path",
                str(context.file(keys.videos_path)), "--dimension", dimension, "--load_ckpt_from_local",
                str(keys.load_ckpt_from_local),
            ], context, env, context.root)  # fmt: skip
            try:
                found = read_results(folder)
            except TrialError as error:
                raise ComponentError(f"{context.job}: {error}") from error
            if dimension not in found:
                raise ComponentError(f"{context.job}: VBench left no score of {dimension}; see the job's log")
            detail[dimension] = found[dimension]
            shutil.copytree(folder, out, dirs_exist_ok=True)
        mean = sum(detail.values()) / len(detail)
        with replaced(out / f"{keys.eval_name}_merged_results.json") as part:
            part.write_text(json.dumps({"mean_score": mean, "detail": detail}, allow_nan=False), encoding="utf-8")
        return Done([mean], {"mean_score": mean, **detail})


COMPONENTS = (VBench(),)
