"""The demo worlds: small datasets with defects as on the web, whose right answers are known. One file per world.

A task names its world's module, which has `make_demo(folder) -> DemoFiles`; the study that fits it is the template
`recipes/demo-TASK.yaml`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from engine.base.errors import DataError
from engine.demo.files import DemoFiles
from engine.tasks.registry import task_named, task_names


def with_demo() -> list[str]:
    """The tasks that have a demo."""
    return [name for name in task_names() if task_named(name).traits.demo]


def make_demo(folder: Path, task: str) -> DemoFiles:
    """Write the demo of a task into `folder`, or reuse the one that is there.

    Raises: DataError when the task has none, or the folder holds anything else.
    """
    if task not in with_demo():
        raise DataError(f"task {task} has no demo; {', '.join(with_demo())} have one")
    files: DemoFiles = import_module(str(task_named(task).traits.demo)).make_demo(folder)
    return files
