"""Type `command`, an addition of djsb: a program of the user's own as a job of any hook that has types.

It runs without a shell. `{key}` in an argument stands for what `values.key` holds, `{out}` for a folder of its own; it
leaves its outputs there in `outputs.json`, one key for each name in `gives`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable
from typing import Any

from pydantic import Field

from engine.base import program_guard
from engine.base.environment import passed
from engine.base.lines import storable
from engine.base.secrets import redact
from engine.data.readers.pool_rows import ROWS
from engine.pipeline.contract import Component, ComponentError, Context, Done, Draft, Group, Takes
from engine.pipeline.hooks import CONVERT, EVALUATE_DATA, EVALUATE_MODEL, GENERAL_PROBE, INFER, TRAIN
from engine.pools.files import as_file

PLACE = re.compile(r"\{([A-Za-z_]\w*)\}")


class Extra(Group):
    """Its keys. env: variables of the environment that it may see though they hold keys."""

    run: list[str] = Field(min_length=1)
    values: dict[str, Any] = Field(default_factory=dict)
    reads: list[str] = Field(default_factory=list)
    writes: list[str] = Field(default_factory=list)
    env: list[str] = Field(default_factory=list)


Keys = Takes[Extra]


class Command(Component[Keys]):
    """Its one output is what outputs.json holds: a mapping, of which `PIPELINE.NAME.res_1.KEY` is a part."""

    name = "command"
    environ_key = "env"
    hooks = frozenset({TRAIN, INFER, EVALUATE_DATA, EVALUATE_MODEL, CONVERT, GENERAL_PROBE})
    settings = Keys
    gives = ("outputs",)
    read_keys = ("extra_configs.reads",)
    write_keys = ("extra_configs.writes",)
    seeded = True
    tracks = True

    def check(self, draft: Draft) -> Iterable[tuple[str, str]]:
        """Places that nothing fills."""
        values = draft.groups["extra_configs"].get("values") or {}
        later = {key.rsplit(".", 1)[1] for key in draft.later if key.startswith("extra_configs.values.")}
        for part in draft.texts("extra_configs.run"):
            for place in PLACE.findall(part):
                if place not in {*values, *later, "out", "seed"}:
                    yield "extra_configs.run", f"nothing fills {{{place}}} in {part!r}; add it to values"

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        values = {name: _as_files(value, context) for name, value in keys.values.items()}
        places = {name: value if isinstance(value, str) else json.dumps(value, allow_nan=False)
                  for name, value in values.items()}  # fmt: skip
        places |= {"out": str(context.scratch), "seed": str(context.seed)}
        argv = [PLACE.sub(lambda match: places.get(match[1], match[0]), part) for part in keys.run]
        hidden = {name: value for name, value in os.environ.items() if name in keys.env}
        process = program_guard.start(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=context.root, env={**passed(), **hidden}
        )
        assert process.stdout
        last = "it said nothing"
        for line in process.stdout:
            if text := storable(line.decode("utf-8", "replace").strip()):
                context.say(text)
                last = f"its last line: {redact(text)[:300]}"
        if code := process.wait():
            raise ComponentError(f"{context.job}: {argv[0]} ended with exit code {code}; {last}")
        file = context.scratch / "outputs.json"
        if not file.exists():
            return Done([{}], {})
        try:
            outputs = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ComponentError(f"{context.job}: its outputs.json is no JSON: {error}") from error
        return Done([outputs], outputs)


def _as_files(value: Any, context: Context) -> Any:
    """A value in which pools of row numbers are files of their rows, which any program reads."""
    if isinstance(value, str) and value.endswith(ROWS) and context.path(value).is_file():
        return str(as_file(context.path(value)))
    if isinstance(value, list):
        return [_as_files(one, context) for one in value]
    return {key: _as_files(one, context) for key, one in value.items()} if isinstance(value, dict) else value


COMPONENTS = (Command(),)
