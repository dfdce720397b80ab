"""GeneralDataExecutorHook: captions of COCO as InternVL has them, for Data-Juicer; and the meta files of InternVL."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from engine.base.durable import replaced
from engine.data.conversations import read_conversation
from engine.data.ops.contract import IMAGE_TOKEN
from engine.data.readers.contract import Row
from engine.data.readers.pool_rows import ROWS
from engine.data.sift import Unusable
from engine.pipeline.contract import Component, ComponentError, Context, Done, Files, Takes
from engine.pipeline.hooks import CONVERT
from engine.pools.files import Pool, as_lines, folder_for, open_pools, put_lines


class MetaExtra(Files):
    """Keys of the meta files. data_root_path: folder that annotations are named from."""

    data_root_path: str


Keys = Takes[Files]


MetaKeys = Takes[MetaExtra]


class ToDj(Component[Keys]):
    """Each row gets `text`, the caption behind the image's token, and `images`: `NAME_dj_fmt.jsonl`."""

    name = "coco_caption_to_dj_conversion"
    hooks = frozenset({CONVERT})
    settings = Keys
    gives = ("paths",)
    read_keys = ("extra_configs.dataset_path",)
    write_keys = ("extra_configs.export_path",)

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        pools = open_pools([context.path(name) for name in keys.dataset_path], apart=True)
        folder = folder_for(context.path(keys.export_path))
        places = [folder, folder.parent]  # the iteration's folder, and the one that the configuration names
        made = [put_lines(folder / f"{p.stem}_dj_fmt.jsonl", _converted(p, context.job, places)) for p in pools]
        return Done([[str(path) for path in made]])


def _converted(pool: Pool, job: str, places: list[Path]) -> Iterator[bytes]:
    bases = [*places, pool.path.parent, pool.path.parent.parent]
    for start, stop in pool.blocks():
        rows = pool.read(start, stop)
        named = [_with_text(row, f"{job}: {pool.path}, row {n}", bases) for n, row in enumerate(rows, start)]
        yield as_lines(pool, named)


def _with_text(row: Row, where: str, bases: list[Path]) -> Row:
    """A row with its caption, and its image by a path that holds anywhere where it lies below one of these folders."""
    image = row.get("image")
    if not isinstance(image, str):
        raise ComponentError(f"{where} has no image; give captions as InternVL has them")
    try:
        said = read_conversation({"conversations": row.get("conversations"), "image": image}).pairs[0][1]
    except Unusable as error:
        raise ComponentError(f"{where}: {error}; give captions as InternVL has them") from error
    path = next((str((base / image).resolve()) for base in bases if (base / image).is_file()), image)
    return {**row, "images": [path], "text": f"{IMAGE_TOKEN} {said}"}


class Meta(Component[MetaKeys]):
    """A meta file for each data set, `NAME_meta.json`: its annotation, root of the images, length."""

    name = "coco_caption_meta_generation"
    hooks = frozenset({CONVERT})
    settings = MetaKeys
    gives = ("paths",)
    read_keys = ("extra_configs.dataset_path",)
    write_keys = ("extra_configs.export_path",)

    def run(self, settings: MetaKeys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        pools = open_pools([context.path(name) for name in keys.dataset_path], apart=True)
        folder, root = folder_for(context.path(keys.export_path)), context.path(keys.data_root_path)
        made = []
        for pool in pools:
            file = str(pool.path).removesuffix(ROWS)  # whoever trains on it has it written
            meta = {
                "root": "data/coco/", "annotation": os.path.relpath(file, root), "data_augment": False,
                "repeat_time": 1, "length": len(pool),
            }  # fmt: skip
            target = folder / f"{pool.stem}_meta.json"
            with replaced(target) as part:
                part.write_text(json.dumps({pool.stem: meta}, allow_nan=False), encoding="utf-8")
            made.append(str(target))
        return Done([made])


COMPONENTS = (ToDj(), Meta())
