"""InferModelHook, type `api`: rows put to a server that speaks as OpenAI's does."""

from __future__ import annotations

from collections.abc import Iterable

from engine.pipeline.contract import Component, Context, Done, Draft, Takes
from engine.pipeline.hooks import INFER
from engine.pipeline.work.chat import KEYS, ApiKeys, Chat, infer, keys_in_file, server_of


class Extra(Chat, ApiKeys):
    """Its keys."""


Keys = Takes[Extra]


class InferApi(Component[Keys]):
    """The server: `model_params.base_url`, or OPENAI_BASE_URL. The key: OPENAI_API_KEY of the environment."""

    name = "api"
    hooks = frozenset({INFER})
    settings = Keys
    gives = ("paths",)
    environ = KEYS
    read_keys = ("extra_configs.dataset_path",)
    write_keys = ("extra_configs.export_path",)

    def check(self, draft: Draft) -> Iterable[tuple[str, str]]:
        """No key stands in a configuration."""
        return keys_in_file(draft)

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        return Done([infer(keys, context, server_of(keys, context.job).ask, keys.parallel)])


COMPONENTS = (InferApi(),)
