"""The demo worlds: small datasets with defects as on the web, whose right answers are known. One file per world.

A world's module has `make_demo(folder) -> DemoFiles`; the study that fits it is the template `recipes/demo-TASK.yaml`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from engine.base.errors import DataError
from engine.demo.files import DemoFiles

WORLDS = {
    "clip": "engine.demo.images",
    "vlm": "engine.demo.questions",
    "caption": "engine.demo.questions",
    "t2v": "engine.demo.video",
    "lm": "engine.demo.text",
}


def make_demo(folder: Path, task: str = "clip") -> DemoFiles:
    """Write the demo of a task into `folder`, or reuse the one that is there.

    Raises: DataError when the task has none, or the folder holds anything else.
    """
    if task not in WORLDS:
        raise DataError(f"task {task} has no demo; {', '.join(WORLDS)} have one")
    files: DemoFiles = import_module(WORLDS[task]).make_demo(folder)
    return files
