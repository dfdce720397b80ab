"""GeneralDataExecutorHook: videos and captions as EasyAnimate takes them."""

from __future__ import annotations

from engine.base.durable import replaced
from engine.data.dataset import as_list, json_line
from engine.data.ops.contract import VIDEO_TOKEN
from engine.pipeline.contract import Component, ComponentError, Context, Done, Files, Takes
from engine.pipeline.hooks import CONVERT
from engine.pools.files import folder_for, open_pools

Keys = Takes[Files]


class ToEasyAnimate(Component[Keys]):
    """One JSON list for each data set, `NAME_ea_fmt.json`, of rows that have a video: file_path, text."""

    name = "dj_to_easyanimate_video_dataset_conversion"
    hooks = frozenset({CONVERT})
    settings = Keys
    gives = ("paths",)
    read_keys = ("extra_configs.dataset_path",)
    write_keys = ("extra_configs.export_path",)

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        pools = open_pools([context.path(name) for name in keys.dataset_path], apart=True)
        folder, made = folder_for(context.path(keys.export_path)), list[str]()
        for pool in pools:
            target = folder / f"{pool.stem}_ea_fmt.json"
            written = 0
            with replaced(target) as part, part.open("w", encoding="utf-8") as file:
                for span in pool.blocks():
                    for row in pool.read(*span):
                        videos = as_list(row.get("videos"))
                        if videos:
                            text = str(row.get("text") or "").replace(VIDEO_TOKEN, "").strip()
                            file.write(
                                (",\n" if written else "[\n") + json_line({**row, "text": text, "file_path": videos[0]})
                            )
                            written += 1
                file.write("\n]\n" if written else "[]\n")
            if not written:
                raise ComponentError(f"{context.job}: no row of {pool.path} has videos; give rows of videos")
            if written < len(pool):
                context.say(f"{len(pool) - written} of {len(pool)} rows of {pool.path} have no video and are left out")
            made.append(str(target))
        return Done([made])


COMPONENTS = (ToEasyAnimate(),)
