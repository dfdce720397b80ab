"""TrainModelHook, type `trinity-rft`: reinforcement fine-tuning by Trinity-RFT, a program of its own."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable

from engine.base.yaml_text import NotYaml, parse_yaml, read_utf8
from engine.pipeline.contract import Component, ComponentError, Context, Done, Draft, Takes
from engine.pipeline.hooks import TRAIN
from engine.pipeline.work.programs import EnvKeys, environment, lacks_manager, run_program

STEP = re.compile(r"monitor\.py:\d+\] Step (\d+): (\{.*\})\s*$")
LACKS = "the program trinity is not here; install Trinity-RFT, or name an environment that has it as env_name"


class Extra(EnvKeys):
    """Its keys. trinity_home: where its sources lie; with --allow-install they are installed."""

    trinity_home: str | None = None
    trinity_config_path: str


Keys = Takes[Extra]


class TrainTrinity(Component[Keys]):
    """Gives the folder of its checkpoints, as its own configuration names it."""

    name = "trinity-rft"
    hooks = frozenset({TRAIN})
    settings = Keys
    gives = ("checkpoint_root_dir",)
    read_keys = ("extra_configs.trinity_config_path",)

    def check(self, draft: Draft) -> Iterable[tuple[str, str]]:
        """Whether it can be there."""
        name = draft.get("extra_configs.env_name")
        if name is None and shutil.which("trinity") is None:
            yield "extra_configs.type", LACKS
        if reason := lacks_manager(name, draft.get("extra_configs.env_manager") or "conda"):
            yield "extra_configs.env_manager", reason

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        file = context.file(keys.trinity_config_path)
        try:
            content = parse_yaml(read_utf8(file), str(file))
        except NotYaml as error:
            raise ComponentError(f"{context.job}: {error}") from error
        before, env = environment(keys, context)
        if not before and shutil.which("trinity", path=env.get("PATH")) is None:
            raise ComponentError(f"{context.job}: {LACKS}")

        def heard(line: str) -> None:
            if match := STEP.search(line):
                try:
                    found = json.loads(match.group(2).replace("'", '"'))
                except ValueError:
                    return  # a record of another form is in the log all the same
                for name, value in found.items():
                    if isinstance(value, int | float):
                        context.measure(name, float(value), int(match.group(1)))

        run_program([*before, "trinity", "run", "--config", str(file)], context, env, context.root, heard)
        folder = content.get("checkpoint_root_dir") if isinstance(content, dict) else None
        return Done([None if folder is None else str(context.path(str(folder)))])


COMPONENTS = (TrainTrinity(),)
