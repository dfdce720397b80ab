"""InferModelHook, types `huggingface` and `vllm`: rows put to a model on this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from engine.pipeline.contract import Component, ComponentError, Context, Done, Draft, Takes
from engine.pipeline.hooks import INFER
from engine.pipeline.work.chat import Chat, infer
from engine.pipeline.work.local_model import local_params, opened_model, reply

OFFER = "use type huggingface, or type api with the address of a server"


Keys = Takes[Chat]


class InferHuggingFace(Component[Keys]):
    """By transformers. model: a folder with the checkpoint, or a name that the hub's cache holds."""

    name = "huggingface"
    hooks = frozenset({INFER})
    settings = Keys
    gives = ("paths",)
    read_keys = ("extra_configs.dataset_path",)
    write_keys = ("extra_configs.export_path",)

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        model = opened_model(keys, context)
        return Done([infer(keys, context, lambda messages: reply(model, messages, keys), 1)])


class InferVllm(Component[Keys]):
    """By vLLM, where it is installed."""

    name = "vllm"
    hooks = frozenset({INFER})
    settings = Keys
    gives = ("paths",)
    read_keys = ("extra_configs.dataset_path",)
    write_keys = ("extra_configs.export_path",)

    def check(self, draft: Draft) -> Iterable[tuple[str, str]]:
        """Whether vLLM is there."""
        del draft
        if importlib.util.find_spec("vllm") is None:
            yield "extra_configs.type", f"the package vllm is not installed; {OFFER}"

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        if importlib.util.find_spec("vllm") is None:
            raise ComponentError(f"{context.job}: the package vllm is not installed; {OFFER}")
        import torch
        import vllm  # type: ignore[import-not-found]

        keys = settings.extra_configs
        folder = context.path(keys.model)
        params = {"tensor_parallel_size": max(1, torch.cuda.device_count()), **local_params(keys)}
        model = vllm.LLM(model=str(folder) if folder.is_dir() else keys.model, **params)
        sampling = vllm.SamplingParams(**keys.sampling_params)
        return Done([infer(keys, context, lambda m: str(model.chat(m, sampling)[0].outputs[0].text), 1)])


COMPONENTS = (InferHuggingFace(), InferVllm())
