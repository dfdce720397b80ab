"""RefineRecipeViaModelFeedbackHook: bounds of a recipe's OPs from the rows that a model prefers.

Of rows with the statistics of the OPs and of a model (ProbeViaModelInferHook), the share with the best scores is
taken; the bounds of each OP hold all but the ends of its statistic among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from engine.data.catalogue import find_op, statistics_of
from engine.pipeline.components.k_sigma import write_recipe, written
from engine.pipeline.contract import Component, ComponentError, Context, Done, Group, Settings
from engine.pipeline.hooks import MODEL_FEEDBACK
from engine.pipeline.work.dj_keys import DjConfigs
from engine.pools.construct import Values, statistics
from engine.pools.files import Numbers, open_pool

FEWEST = 10  # rows that bounds are read of


class Extra(Group):
    """Its keys. dataset_path: rows with both kinds of statistics. prefer: which scores are good. ratio: share taken.

    percentiles: of the OP's statistic among the rows taken, between which its bounds lie.
    """

    dataset_path: str
    path_model_feedback_recipe: str = Field(pattern=r"\.(yaml|yml|json)$")
    feedback_key: str
    prefer: Literal["high", "low"] = "high"
    ratio: float = Field(0.5, gt=0, lt=1)
    percentiles: tuple[float, float] = (0.05, 0.95)

    @model_validator(mode="after")
    def _ascends(self) -> Extra:
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 1:
            raise ValueError("percentiles are two shares that ascend, as [0.05, 0.95]")
        return self


class Keys(Settings):
    """See Settings."""

    dj_configs: DjConfigs  # type: ignore[assignment]
    extra_configs: Extra  # type: ignore[assignment]


class ModelFeedback(Component[Keys]):
    """Gives the path of the recipe."""

    name = "model_feedback"
    hooks = frozenset({MODEL_FEEDBACK})
    settings = Keys
    gives = ("path",)
    read_keys = ("extra_configs.dataset_path",)
    write_keys = ("extra_configs.path_model_feedback_recipe",)

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        columns = statistics(open_pool(context.path(keys.dataset_path)))
        if keys.feedback_key not in columns:
            there = ", ".join(columns) or "none"
            raise ComponentError(
                f"{context.job}: {keys.dataset_path} has no statistic {keys.feedback_key}; set feedback_key to one of: "
                f"{there}"
            )
        scores = columns[keys.feedback_key]
        order = np.argsort(-scores if keys.prefer == "high" else scores, kind="stable")
        known = int((~np.isnan(scores)).sum())
        taken = order[: round(known * keys.ratio)]
        if len(taken) < FEWEST:
            raise ComponentError(
                f"{context.job}: {len(taken)} rows have the best scores, and bounds need {FEWEST}; probe more rows, "
                "or raise ratio"
            )
        process = [_bounded(entry, columns, taken, keys, context) for entry in settings.dj_configs.process]
        target = context.path(keys.path_model_feedback_recipe)
        write_recipe(settings.dj_configs, process, target)
        return Done([str(target)])


def _bounded(
    entry: Mapping[str, Mapping[str, Any] | None], columns: Mapping[str, Values], taken: Numbers, keys: Extra,
    context: Context,
) -> dict[str, Any]:  # fmt: skip
    ((name, given),) = entry.items()
    params = dict(given or {})
    for statistic, bounds in (statistics_of(name, params) if find_op(name) else {}).items():
        if statistic not in columns:
            raise ComponentError(
                f"{context.job}: {keys.dataset_path} has no {statistic} of {name}; analyse the rows first, then probe "
                "what the analysis gives"
            )
        values = columns[statistic][taken]
        values = values[~np.isnan(values)]
        if not len(values):
            context.say(f"no row with the best scores has {statistic}; the bounds of {name} stay as they are")
            continue
        for end, share, up in ((bounds.low, keys.percentiles[0], False), (bounds.high, keys.percentiles[1], True)):
            if end:
                params[end] = written(float(np.quantile(values, share)), bounds, up)
    return {name: params}


COMPONENTS = (ModelFeedback(),)
