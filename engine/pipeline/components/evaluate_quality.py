"""EvaluateDataHook, type `dj_text_quality_classifier`: the mean score of texts by Data-Juicer's GPT-3 classifier."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from engine.pipeline.contract import Component, ComponentError, Context, Done, Draft, Group, Takes
from engine.pipeline.hooks import EVALUATE_DATA
from engine.pipeline.work.spark_text import read_classifier
from engine.pools.files import open_pool

MODELS = "DATA_JUICER_MODELS_CACHE"
CACHE = "~/.cache/data_juicer/models"
FOLDER = "gpt3_quality_model"


class Extra(Group):
    """Its keys. model: a folder with a classifier of another kind; left out: the one of GPT-3."""

    dataset_path: str
    text_key: str = "text"
    model: str | None = None


Keys = Takes[Extra]


def place() -> Path:
    """Where Data-Juicer keeps the classifier."""
    return Path(os.environ.get(MODELS) or Path(CACHE).expanduser()) / FOLDER


def lacks(folder: Path) -> str | None:
    """Why there is no classifier, or None."""
    if folder.is_dir():
        return None
    return (
        f"{folder} is not there; put Data-Juicer's {FOLDER} (unpacked) there, set {MODELS}, or name a folder as model"
    )


class Quality(Component[Keys]):
    """The classifier's files are read here; neither Spark nor Java is needed."""

    name = "dj_text_quality_classifier"
    hooks = frozenset({EVALUATE_DATA})
    settings = Keys
    gives = ("mean_score",)
    read_keys = ("extra_configs.dataset_path", "extra_configs.model")
    tracks = True

    def check(self, draft: Draft) -> Iterable[tuple[str, str]]:
        """Whether the classifier is there."""
        if draft.get("extra_configs.model") is None and (reason := lacks(place())):
            yield "extra_configs.type", reason

    def run(self, settings: Keys, context: Context) -> Done:
        """See Component."""
        keys = settings.extra_configs
        folder = context.path(keys.model) if keys.model else place()
        if reason := lacks(folder):
            raise ComponentError(f"{context.job}: {reason}")
        classifier, pool = read_classifier(folder), open_pool(context.path(keys.dataset_path))
        total = 0.0
        for start, stop in pool.blocks():
            for number, row in enumerate(pool.read(start, stop), start):
                text = row.get(keys.text_key)
                if not isinstance(text, str):
                    raise ComponentError(f"{context.job}: {pool.path}, row {number} has no text as {keys.text_key}")
                total += classifier.score(text)
        if not len(pool):
            raise ComponentError(f"{context.job}: {pool.path} has no rows; look at the job that wrote it")
        mean = total / len(pool)
        return Done([mean], {"mean_score": mean})


COMPONENTS = (Quality(),)
