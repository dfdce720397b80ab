"""EvaluateDataHook, type `accuracy`: the share of predicted labels that are the true ones."""

from __future__ import annotations

from typing import Any

from engine.pipeline.contract import Component, Context, Done, Takes
from engine.pipeline.hooks import EVALUATE_DATA
from engine.pipeline.work.compared import Compared, files_of, pairs


class Extra(Compared):
    """Its keys: dotted names of the labels."""

    predicted_label_key: str
    ground_truth_label_key: str


Keys = Takes[Extra]


class Accuracy(Component[Keys]):
    """Labels are compared as texts; a row without one is wrong."""

    name = "accuracy"
    hooks = frozenset({EVALUATE_DATA})
    settings = Keys
    gives = ("results", "max_accuracy")
    read_keys = ("extra_configs.predicted_dataset_path", "extra_configs.ground_truth_dataset_path")
    tracks = True

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        results: list[dict[str, Any]] = []
        for said, truth in files_of(keys, context):
            both = pairs(said, truth, keys.predicted_label_key, keys.ground_truth_label_key, context)
            right = [one is not None and str(one) == str(other) for one, other in both]
            results.append({"pred_path": said, "gt_path": truth, "accuracy": sum(right) / len(right)})
        best = max(result["accuracy"] for result in results)
        return Done([results, best], {"accuracy": best})


COMPONENTS = (Accuracy(),)
