"""ProcessDataHook: a recipe run on a data set, by djsb where it knows all of its OPs, else by Data-Juicer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from engine.base.errors import DjsbError, OpError, StudyError
from engine.base.ids import json_text
from engine.data.apply_recipe import apply_recipe
from engine.data.catalogue import find_op
from engine.data.recipes import read_recipe
from engine.pipeline.contract import Component, ComponentError, Context, Done
from engine.pipeline.hooks import PROCESS
from engine.pipeline.work.chat import KEYS
from engine.pipeline.work.dj_keys import DjConfigs, DjKeys, as_list, cores
from engine.pools.analyse import Names, analyse, runs_of
from engine.pools.files import as_file

OURS = (".jsonl", ".json")


class ProcessData(Component[DjKeys]):
    """Gives the export path."""

    name = "data_juicer"
    hooks = frozenset({PROCESS})
    settings = DjKeys
    gives = ("path",)
    environ = KEYS
    read_keys = ("dj_configs.dataset_path",)
    write_keys = ("dj_configs.export_path",)

    def run(self, settings: DjKeys, context: Context) -> Done:
        """See Component."""
        keys = settings.dj_configs
        export = context.path(keys.export_path)
        export.parent.mkdir(parents=True, exist_ok=True)
        recipe = _recipe(keys)
        reason = _why_not_ours(recipe, keys, export, context)
        if reason:
            context.say(f"run by Data-Juicer: {reason}")
            by_data_juicer(keys, export, context)
        else:
            _by_djsb(recipe, keys, export, context)
        return Done([str(export)])


def _recipe(keys: DjConfigs) -> str:
    """The part that djsb takes as a recipe."""
    process = [
        {name: {k: v for k, v in (params or {}).items() if v is not None}}
        for entry in keys.process for name, params in entry.items()
    ]  # fmt: skip
    content: dict[str, Any] = {"process": process, "text_keys": keys.text_keys, "np": min(keys.np, 64)}
    given = keys.model_fields_set
    content |= {name: getattr(keys, name) for name in ("image_key", "video_key") if name in given}
    return yaml.safe_dump(content, sort_keys=False)


def _why_not_ours(recipe: str, keys: DjConfigs, export: Path, context: Context) -> str | None:
    """What djsb's own engine does not do, or None."""
    if export.suffix not in OURS:
        return f"{export.name} is none of {', '.join(OURS)}"
    try:
        read_recipe(recipe, context.job, context.root)
    except (OpError, StudyError) as error:
        return str(error)
    return None


def _by_djsb(recipe: str, keys: DjConfigs, export: Path, context: Context) -> None:
    # beside the export, as media are named from there
    rows = export.with_name(f".{export.stem}-rows.jsonl") if export.suffix == ".json" else export
    data, workers = context.path(keys.dataset_path), cores(context.workers, keys.np)
    if keys.keep_stats_in_res_ds:
        analysed = context.scratch / "analysed.jsonl"
        names = Names(keys.text_keys, keys.image_key, keys.video_key)
        analyse(data, analysed, runs_of(keys.process, context.root), names, True, workers, tell=context.say)
        data = analysed
    done = apply_recipe(recipe, context.job, data, rows, root=context.root, overwrite=True, workers=workers)
    context.say(f"{done.rows_out} of {done.rows_in} rows kept; {done.quarantined} could not be read")
    if rows != export:
        as_list(rows, export)
        rows.unlink()


def by_data_juicer(keys: DjConfigs, export: Path, context: Context) -> None:
    """Run Data-Juicer's own executor in this process, which is the job's. Raises: ComponentError in one line."""
    from engine.data import datajuicer  # a second to import

    os.environ["HF_DATASETS_CACHE"] = str(context.scratch / "cache")
    datajuicer.prepare()
    for name in (name for entry in keys.process for name in entry if find_op(name)):
        datajuicer.operator(name)  # plug-ins are registered
    from data_juicer.config import init_configs
    from data_juicer.core import DefaultExecutor

    content = keys.model_dump(exclude_unset=True, exclude={"type"})
    content.setdefault("skip_op_error", False)  # or one bad row silently takes a whole batch with it
    content |= {
        "dataset_path": str(as_file(context.path(keys.dataset_path))), "export_path": str(export),
        "np": cores(context.workers, keys.np), "use_cache": False, "open_tracer": False,
        "work_dir": str(context.scratch / "data-juicer"),
    }  # fmt: skip
    file = context.scratch / "recipe.json"
    file.write_text(json_text(content), encoding="utf-8")
    try:
        DefaultExecutor(init_configs(["--config", str(file)])).run()
    except DjsbError:
        raise
    except (Exception, SystemExit) as error:  # a border: OPs raise anything, and its parser exits
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ComponentError(f"{context.job}: Data-Juicer failed: {lines[0][:300]}; see the job's log") from error
    if not export.exists():
        raise ComponentError(f"{context.job}: Data-Juicer wrote no {export}; see the job's log")


COMPONENTS = (ProcessData(),)
