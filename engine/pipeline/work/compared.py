"""Predictions beside the truth, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from engine.pipeline.contract import ComponentError, Context, Group, Paths
from engine.pools.files import open_pool, value_at


def _listed(value: Any) -> Any:
    return [] if value is None else [value] if isinstance(value, str) else value


class Compared(Group):
    """Keys of both evaluators. ground_truth_dataset_path: none where the truth stands beside the predictions."""

    predicted_dataset_path: Paths = Field(min_length=1)
    ground_truth_dataset_path: Annotated[list[str], BeforeValidator(_listed)] = Field(default_factory=list)


def files_of(keys: Compared, context: Context) -> list[tuple[str, str]]:
    """(predictions, truth) of each data set. Raises: ComponentError where they are not as many."""
    truths = keys.ground_truth_dataset_path or keys.predicted_dataset_path
    if len(truths) != len(keys.predicted_dataset_path):
        raise ComponentError(
            f"{context.job}: {len(keys.predicted_dataset_path)} predicted_dataset_path and {len(truths)} "
            "ground_truth_dataset_path; give as many, or no ground_truth_dataset_path"
        )
    return list(zip(keys.predicted_dataset_path, truths, strict=True))


def pairs(said: str, truth: str, key: str, truth_key: str, context: Context) -> Iterator[tuple[Any, Any]]:
    """(what was predicted, what is true) of each row, None where a row has none.

    Raises: ComponentError where both have not as many rows, or no row has such a key.
    """
    left, right = open_pool(context.path(said)), open_pool(context.path(truth))
    if len(left) != len(right):
        sizes = f"{said} has {len(left)} rows and {truth} {len(right)}"
        raise ComponentError(f"{context.job}: {sizes}; give rows that match")
    if not len(left):
        raise ComponentError(f"{context.job}: {said} has no rows; look at the job that wrote it")
    there = [False, False]
    for span in left.blocks():
        for one, other in zip(left.read(*span), right.read(*span), strict=True):
            pair = value_at(one, key), value_at(other, truth_key)
            there = [there[0] or pair[0] is not None, there[1] or pair[1] is not None]
            yield pair
    for found, name, file in zip(there, (key, truth_key), (said, truth), strict=True):
        if not found:
            raise ComponentError(f"{context.job}: no row of {file} has {name}; check the key")
