"""RefineRecipeViaKSigmaHook: a recipe whose bounds are the mean of each statistic, plus and minus k deviations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from engine.base.durable import replaced
from engine.base.ids import json_text
from engine.data.catalogue import find_op, statistics_of
from engine.data.ops.contract import Bounds
from engine.pipeline.contract import Component, ComponentError, Context, Done, Group, Settings
from engine.pipeline.hooks import K_SIGMA
from engine.pipeline.work.dj_keys import DjConfigs, without_iteration


class Extra(Group):
    """Its keys. k: deviations on either side, 3 as Data-Juicer takes."""

    path_k_sigma_recipe: str = Field(pattern=r"\.(yaml|yml|json)$")
    k: float = Field(3.0, gt=0)


class Keys(Settings):
    """See Settings."""

    dj_configs: DjConfigs  # type: ignore[assignment]
    extra_configs: Extra  # type: ignore[assignment]


class KSigma(Component[Keys]):
    """The summary is that of the earlier analysis under the same name."""

    name = "k_sigma"
    hooks = frozenset({K_SIGMA})
    settings = Keys
    gives = ("path",)
    write_keys = ("extra_configs.path_k_sigma_recipe",)
    needs_tracked = True

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        target = context.path(settings.extra_configs.path_k_sigma_recipe)
        process = [refined(entry, context, settings.extra_configs.k) for entry in settings.dj_configs.process]
        write_recipe(settings.dj_configs, process, target)
        return Done([str(target)])


def write_recipe(configs: DjConfigs, process: list[dict[str, Any]], target: Path) -> None:
    """The same configuration with other bounds."""
    content = {**configs.model_dump(exclude_unset=True), "process": process}
    content["export_path"] = without_iteration(configs.export_path)
    text = json_text(content, indent=2) if target.suffix == ".json" else yaml.safe_dump(content, sort_keys=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replaced(target) as part:
        part.write_text(text, encoding="utf-8")


def refined(entry: Mapping[str, Mapping[str, Any] | None], context: Context, k: float) -> dict[str, Any]:
    """An OP with its bounds from what was tracked; one that gives no statistic stays as it is.

    Raises: ComponentError where its statistics were not analysed.
    """
    ((name, given),) = entry.items()
    params = dict(given or {})
    if find_op(name) is None:
        return {name: params}
    for statistic, bounds in statistics_of(name, params).items():
        table = context.tracked.get(statistic)
        if not isinstance(table, Mapping) or "mean" not in table:
            analysed = ", ".join(map(str, context.tracked)) or "nothing"
            raise ComponentError(
                f"{context.job}: {statistic} of {name} was not analysed; let the analysis have {name}, too: it has "
                f"{analysed}"
            )
        mean, deviation = float(table["mean"]), float(table.get("std", math.nan))
        if not math.isfinite(mean + deviation):
            context.say(f"{statistic} has no deviation (too few rows); the bounds of {name} stay as they are")
            continue
        for end, value, up in ((bounds.low, mean - k * deviation, False), (bounds.high, mean + k * deviation, True)):
            if end:
                params[end] = written(value, bounds, up)
    return {name: params}


def written(value: float, bounds: Bounds, up: bool) -> Any:
    """A bound as the OP takes it, rounded outwards."""
    if bounds.number == "float":
        return value
    whole = math.ceil(value) if up else math.floor(value)
    if bounds.number == "int":
        return whole
    if bounds.number == "bytes":
        return str(max(0, whole))
    near = Fraction(value).limit_denominator(10**6)
    return f"{near.numerator}/{near.denominator}"


COMPONENTS = (KSigma(),)
