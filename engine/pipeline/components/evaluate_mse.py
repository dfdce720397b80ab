"""EvaluateDataHook, type `mse`: the mean squared error of predicted numbers."""

from __future__ import annotations

import math
from typing import Any

from engine.pipeline.contract import Component, ComponentError, Context, Done, Takes
from engine.pipeline.hooks import EVALUATE_DATA
from engine.pipeline.work.compared import Compared, files_of, pairs


class Extra(Compared):
    """Its keys: dotted names of the numbers."""

    predicted_value_key: str
    ground_truth_value_key: str


Keys = Takes[Extra]


class Mse(Component[Keys]):
    """A row in which either is no number counts as a format error. Where all rows are so, the error is None."""

    name = "mse"
    hooks = frozenset({EVALUATE_DATA})
    settings = Keys
    gives = ("results", "min_mse")
    read_keys = ("extra_configs.predicted_dataset_path", "extra_configs.ground_truth_dataset_path")
    tracks = True

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        results: list[dict[str, Any]] = []
        for said, truth in files_of(keys, context):
            squares, wrong = [], 0
            for pair in pairs(said, truth, keys.predicted_value_key, keys.ground_truth_value_key, context):
                one, other = map(_number, pair)
                if one is None or other is None:
                    wrong += 1
                else:
                    squares.append((one - other) ** 2)
            error = math.fsum(squares) / len(squares) if squares else None
            results.append({"pred_path": said, "gt_path": truth, "mse": error, "format_error": wrong})
        errors = [result["mse"] for result in results if result["mse"] is not None]
        if not errors:
            raise ComponentError(
                f"{context.job}: {keys.predicted_value_key} is a number in no row; look at what the model has said in "
                f"{results[0]['pred_path']}"
            )
        return Done([results, min(errors)], {"mse": min(errors)})


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


COMPONENTS = (Mse(),)
