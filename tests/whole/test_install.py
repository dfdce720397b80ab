"""How djsb is installed beside the wheel: the image's recipe, and completion in shells."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_dockerfile_is_sound_and_has_all_that_the_wheel_is_built_of() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed")
    ran = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    text = (ROOT / "Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for folder in project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]:
        assert f"COPY {folder} {folder}\n" in text
    [extras] = re.findall(r'"\.\[(.*?)\]"', text)
    assert extras == "all" and "all" in project["project"]["optional-dependencies"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell: str) -> None:
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # the shell is named
    djsb = Path(sys.executable).with_name("djsb")
    ran = subprocess.run(
        [djsb, "--show-completion", shell], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0 and "_DJSB_COMPLETE" in ran.stdout.upper(), ran.stderr


def test_a_beginning_is_completed() -> None:
    words = {"COMP_WORDS": "djsb doc", "COMP_CWORD": "1", "_DJSB_COMPLETE": "complete_bash"}
    djsb = Path(sys.executable).with_name("djsb")
    ran = subprocess.run([djsb], env=os.environ | words, capture_output=True, text=True, check=False)
    assert ran.stdout.split() == ["doctor"]
