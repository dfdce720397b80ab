"""ProbeViaModelInferHook: what a model says of a sample of the rows, as statistics of them.

A reply that is a number is the statistic `infer_res_key`; of any reply the length is one. A model on this machine gives
its loss of the row's text, too: how hard the row is for it.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, Field

from engine.base.durable import replaced
from engine.data.cuts import seeded_order
from engine.data.readers.contract import Row
from engine.data.readers.pool_rows import PoolReader
from engine.pipeline.contract import Component, ComponentError, Context, Done, Draft, Group, Settings
from engine.pipeline.hooks import MODEL_PROBE
from engine.pipeline.work.chat import KEYS, ApiKeys, Asked, keys_in_file, messages_of, server_of
from engine.pools.analyse import described
from engine.pools.construct import STATS
from engine.pools.files import as_lines, open_pool

BLOCK = 256
LONGEST = 2_048  # tokens of a text whose loss is measured
Judge = Callable[[Sequence[Row]], list[dict[str, Any]]]  # rows → what is added to each: reply, statistics


class Sample(Group):
    """Keys of dj_configs; others of Data-Juicer's may stand there and play no part."""

    model_config = ConfigDict(extra="allow", frozen=True)
    dataset_path: str
    export_path: str
    data_probe_ratio: float = Field(1.0, gt=0, le=1)
    data_probe_algo: Literal["uniform"] = "uniform"
    text_keys: str = "text"


class ModelScopeKeys(Group):
    """What ModelScope's `pipeline` takes."""

    model_config = ConfigDict(extra="allow", frozen=True)
    model: str
    task: str | None = None
    infer_res_key: str = "response"


class ApiSettings(Settings):
    """See Settings."""

    dj_configs: Sample  # type: ignore[assignment]
    extra_configs: ApiKeys  # type: ignore[assignment]


class LocalSettings(Settings):
    """See Settings."""

    dj_configs: Sample  # type: ignore[assignment]
    extra_configs: Asked  # type: ignore[assignment]


class ScopeSettings(Settings):
    """See Settings."""

    dj_configs: Sample  # type: ignore[assignment]
    extra_configs: ModelScopeKeys  # type: ignore[assignment]


def probe(sample: Sample, key: str, judge: Judge, context: Context) -> Done:
    """Write the sampled rows with what the model said, and their statistics; what these are like."""
    pool = open_pool(context.path(sample.dataset_path))
    count = max(1, round(len(pool) * sample.data_probe_ratio)) if len(pool) else 0
    if not count:
        raise ComponentError(f"{context.job}: {pool.path} has no rows; give a file with rows")
    at = np.sort(seeded_order(pool.every.astype(np.uint64), context.seed)[:count])
    picked, out = PoolReader(pool.path, pool.rows.reader, at), context.path(sample.export_path)
    out = out if out.suffix == ".jsonl" else Path(f"{out}.jsonl")
    out.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, list[float]] = {}
    with replaced(out) as part, part.open("wb") as file:
        for start in range(0, count, BLOCK):
            rows = picked.read(start, start + BLOCK)
            for row, more in zip(rows, judge(rows), strict=True):
                said = more.pop(key, None)
                stats = {**_number(key, said), **more}
                row |= {key: said, STATS: {**(row.get(STATS) or {}), **stats}}
                for name, value in stats.items():
                    if math.isfinite(value):
                        columns.setdefault(name, []).append(float(value))
            file.write(as_lines(pool, rows))
    context.say(f"{count} of {len(pool)} rows probed; statistics: {', '.join(columns) or 'none'}")
    return Done([str(out)], {name: described(np.asarray(values)) for name, values in columns.items()})


def _number(key: str, said: Any) -> dict[str, float]:
    found = {f"{key}_len": float(len(said))} if isinstance(said, str) else {}
    try:
        return {**found, key: float(said)}
    except (TypeError, ValueError):
        return found


class ProbeApi(Component[ApiSettings]):
    """By a server that speaks as OpenAI's does."""

    name = "api"
    hooks = frozenset({MODEL_PROBE})
    settings = ApiSettings
    gives = ("path",)
    environ = KEYS
    read_keys = ("dj_configs.dataset_path",)
    write_keys = ("dj_configs.export_path",)
    tracks = True
    seeded = True

    def check(self, draft: Draft) -> Iterable[tuple[str, str]]:
        """No key stands in a configuration."""
        return keys_in_file(draft)

    def run(self, settings: ApiSettings, context: Context) -> Done:
        """See Component."""
        keys, server = settings.extra_configs, server_of(settings.extra_configs, context.job)
        with ThreadPoolExecutor(keys.parallel) as threads:

            def judge(rows: Sequence[Row]) -> list[dict[str, Any]]:
                questions = [messages_of(row, keys, f"{context.job}: a row") for row in rows]
                return [{keys.infer_res_key: said} for said in threads.map(server.ask, questions)]

            return probe(settings.dj_configs, keys.infer_res_key, judge, context)


class ProbeLocal(Component[LocalSettings]):
    """By transformers: the reply, and the statistic `model_loss` of the row's text."""

    name = "huggingface"
    hooks = frozenset({MODEL_PROBE})
    settings = LocalSettings
    gives = ("path",)
    read_keys = ("dj_configs.dataset_path",)
    write_keys = ("dj_configs.export_path",)
    tracks = True
    seeded = True

    def run(self, settings: LocalSettings, context: Context) -> Done:
        """See Component."""
        from engine.pipeline.work.local_model import opened_model, reply

        keys, text_key = settings.extra_configs, settings.dj_configs.text_keys
        model = opened_model(keys, context)
        import torch

        def loss(text: str) -> float:
            ids = model.tokenizer(text, return_tensors="pt", truncation=True, max_length=LONGEST)
            ids = ids.to(model.model.device)
            if ids["input_ids"].shape[1] < 2:
                return math.nan
            with torch.inference_mode():
                return float(model.model(**ids, labels=ids["input_ids"]).loss)

        def judge(rows: Sequence[Row]) -> list[dict[str, Any]]:
            found = []
            for row in rows:
                said = reply(model, messages_of(row, keys, f"{context.job}: a row"), keys)
                found.append({keys.infer_res_key: said, "model_loss": loss(str(row.get(text_key) or ""))})
            return found

        return probe(settings.dj_configs, keys.infer_res_key, judge, context)


class ProbeModelScope(Component[ScopeSettings]):
    """By a pipeline of ModelScope, where it is installed."""

    name = "modelscope"
    hooks = frozenset({MODEL_PROBE})
    settings = ScopeSettings
    gives = ("path",)
    read_keys = ("dj_configs.dataset_path",)
    write_keys = ("dj_configs.export_path",)
    tracks = True
    seeded = True

    def check(self, draft: Draft) -> Iterable[tuple[str, str]]:
        """Whether ModelScope is there."""
        del draft
        if importlib.util.find_spec("modelscope") is None:
            yield "extra_configs.type", "the package modelscope is not installed; install it, or use type huggingface"

    def run(self, settings: ScopeSettings, context: Context) -> Done:
        """See Component."""
        if importlib.util.find_spec("modelscope") is None:
            raise ComponentError(f"{context.job}: the package modelscope is not installed; use type huggingface")
        from modelscope.pipelines import pipeline  # type: ignore[import-not-found]

        keys, text_key = settings.extra_configs, settings.dj_configs.text_keys
        given = keys.model_dump(exclude_none=True, exclude={"type", "infer_res_key", "trust_remote_code"})
        model = pipeline(**given)

        def judge(rows: Sequence[Row]) -> list[dict[str, Any]]:
            return [{keys.infer_res_key: _plain(model(str(row.get(text_key) or "")))} for row in rows]

        return probe(settings.dj_configs, keys.infer_res_key, judge, context)


def _plain(said: Any) -> Any:
    """A reply as a text or number: of a mapping its text or score."""
    if isinstance(said, dict):
        said = next((said[name] for name in ("text", "score", "scores", "response") if name in said), said)
    if isinstance(said, list) and len(said) == 1:
        (said,) = said
    return said if isinstance(said, str | int | float) else str(said)


COMPONENTS = (ProbeApi(), ProbeLocal(), ProbeModelScope())
