"""InferModelHook, type `api`: rows put to a server that speaks as OpenAI's does."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from engine.pipeline.contract import Component, Context, Done, Draft, Settings
from engine.pipeline.hooks import INFER
from engine.pipeline.work.chat import KEYS, Chat, Server, infer


class Extra(Chat):
    """Its keys. api_endpoint: path at the server, or a whole address. parallel: questions at once."""

    api_endpoint: str | None = None
    response_path: str | None = None
    max_retry_num: int = Field(5, ge=0)
    parallel: int = Field(8, ge=1, le=256)


class Keys(Settings):
    """See Settings."""

    extra_configs: Extra  # type: ignore[assignment]


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
        for name in ("api_key", "key", "token"):
            if draft.get(f"extra_configs.model_params.{name}"):
                yield (
                    f"extra_configs.model_params.{name}",
                    "is a key in a file; remove it, and set OPENAI_API_KEY",
                )

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        server = Server(
            keys.model, keys.api_endpoint, keys.response_path, keys.model_params, keys.sampling_params,
            keys.max_retry_num, context.job,
        )  # fmt: skip
        return Done([infer(keys, context, server.ask, keys.parallel)])


COMPONENTS = (InferApi(),)
