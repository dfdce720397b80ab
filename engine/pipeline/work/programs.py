"""Programs of others, run in an environment that exists. None is made or filled unless --allow-install says so."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from engine.base import program_guard as guard
from engine.pipeline.contract import ComponentError, Context, Group

Manager = Literal["conda", "mamba", "venv", "virtualenv", "uv"]
CONDA = ("conda", "mamba")
MAKES = {"venv": [sys.executable, "-m", "venv"], "virtualenv": ["virtualenv"], "uv": ["uv", "venv"]}
OWN = "; or set backend: djsb, which trains it here"
SHORT = 300


class EnvKeys(Group):
    """Which environment a program runs in; none: that of djsb itself."""

    env_name: str | None = None
    env_manager: Manager = "conda"
    env_params: dict[str, Any] = Field(default_factory=dict)


def lacks_manager(name: Any, manager: Any, offer: str = "") -> str | None:
    """Why an environment cannot be used, as far as can be seen at once; None where it may be there."""
    if name and manager in CONDA and shutil.which(str(manager)) is None:
        return f"{manager} is not on this machine, so its environment {name} cannot be used; install it{offer}"
    return None


def environment(keys: EnvKeys, context: Context, offer: str = "") -> tuple[list[str], dict[str, str]]:
    """(what stands before a command, variables) so that it runs in the environment. Raises: ComponentError."""
    if not keys.env_name:
        return [], dict(os.environ)
    if reason := lacks_manager(keys.env_name, keys.env_manager, offer):
        raise ComponentError(f"{context.job}: {reason}")
    if keys.env_manager in CONDA:
        make = [keys.env_manager, "create", "-y", "-n", keys.env_name]
        make.append(f"python={keys.env_params.get('env_py_version') or '3.10'}")
        if not _has_conda(keys.env_manager, keys.env_name):
            _make(make, f"the {keys.env_manager} environment {keys.env_name}", context, offer)
        return [keys.env_manager, "run", "--no-capture-output", "-n", keys.env_name], dict(os.environ)
    folder = context.path(keys.env_name)
    if not (folder / "bin" / "python").exists():
        _make([*MAKES[keys.env_manager], str(folder)], f"the environment {folder}", context, offer)
    places = {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}", "VIRTUAL_ENV": str(folder)}
    return [], {**os.environ, **places}


def _has_conda(manager: str, name: str) -> bool:
    try:
        told = subprocess.run([manager, "env", "list", "--json"], capture_output=True, timeout=120, check=True).stdout
        return any(Path(path).name == name for path in json.loads(told).get("envs", []))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ComponentError(f"{manager} does not list its environments ({error}); check its installation") from error


def _make(command: Sequence[str], what: str, context: Context, offer: str) -> None:
    shown = " ".join(command)
    if not context.allow_install:
        raise ComponentError(
            f"{context.job}: {what} is not there; make it ({shown}) and install what it needs, or give "
            f"--allow-install{offer}"
        )
    context.say(f"$ {shown}")
    run_program(list(command), context, dict(os.environ))


def run_program(
    command: list[str],
    context: Context,
    env: dict[str, str],
    cwd: Path | None = None,
    heard: Callable[[str], None] = lambda _line: None,
) -> None:
    """Run a command to its end; its lines go to the job's log. Raises: ComponentError with its last line."""
    last = ""
    process = guard.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, cwd=cwd)
    assert process.stdout is not None
    try:
        for raw in process.stdout:
            for line in raw.decode("utf-8", "replace").replace("\r", "\n").splitlines():
                if line.strip():
                    last = line.strip()
                    context.say(last)
                    heard(last)
        code = process.wait()
    finally:
        with contextlib.suppress(OSError):
            guard.end(process)
    if code:
        raise ComponentError(
            f"{context.job}: {Path(command[0]).name} ended with code {code}: {last[:SHORT] or 'it said nothing'}"
        )


class Losses:
    """Reads a curve out of what a program prints."""

    def __init__(self, context: Context, pattern: str, name: str = "loss") -> None:
        self._pattern, self._context, self._name, self._step = re.compile(pattern), context, name, 0

    def __call__(self, line: str) -> None:
        """A line of it."""
        if match := self._pattern.search(line):
            with contextlib.suppress(ValueError):
                value = float(match.group(1))
                self._step += 1
                self._context.measure(self._name, value, self._step)
