"""ProbeViaAnalyzerHook: the statistics of every filter of a recipe, by djsb's own engine."""

from __future__ import annotations

from pathlib import Path

from engine.pipeline.contract import Component, Context, Done
from engine.pipeline.hooks import ANALYZER
from engine.pipeline.work.dj_keys import DjKeys, as_list, cores, stats_file
from engine.pools.analyse import Names, analyse, runs_of


class Analyser(Component[DjKeys]):
    """Gives the rows with their statistics where `export_original_dataset` is set, else the statistics alone."""

    name = "analyzer"
    hooks = frozenset({ANALYZER})
    settings = DjKeys
    gives = ("path",)
    read_keys = ("dj_configs.dataset_path",)
    write_keys = ("dj_configs.export_path",)
    tracks = True

    def run(self, settings: DjKeys, context: Context) -> Done:
        """See Component."""
        keys = settings.dj_configs
        export = context.path(keys.export_path)
        export = export if export.suffix in (".jsonl", ".json") else Path(f"{export}.jsonl")
        out = export if keys.export_original_dataset else stats_file(export, context.job)
        out.parent.mkdir(parents=True, exist_ok=True)
        names = Names(keys.text_keys, keys.image_key, keys.video_key)
        lines = out.with_name(f".{out.stem}-rows.jsonl") if out.suffix == ".json" else out
        table = analyse(
            context.path(keys.dataset_path), lines, runs_of(keys.process, context.root, context.say), names,
            keys.export_original_dataset, cores(context.workers, keys.np), keys.percentiles, context.say,
        )  # fmt: skip
        if lines != out:
            as_list(lines, out)
            lines.unlink()
        return Done([str(out)], table)


COMPONENTS = (Analyser(),)
