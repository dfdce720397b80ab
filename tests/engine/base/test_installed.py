"""What is missing of djsb's packages is said in one line with the command that gets it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from engine.base import installed
from engine.base.errors import MachineError
from tests.conftest import DJSB, Tiny

ROOT = Path(__file__).resolve().parents[3]
NEEDS = [
    "rich>=1",
    "nosuch-engine==2; extra == 'engine'",
    "py-absent-part>=1; extra == 'text'",
    "djsb[engine]; extra == 'text'",
]
# what `pip install djsb` alone leaves out, and all that it would bring
LEFT_OUT = (
    "torch,ray,data_juicer,transformers,tokenizers,datasets,safetensors,optuna,aiohttp,pyarrow,requests,pandas,"
    "huggingface_hub,fsspec,dill,multiprocess,httpx,tqdm,diffusers,peft,av"
)
WITHOUT = f"""
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {LEFT_OUT.split(",")!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Without())
"""


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """djsb asks for packages that nobody has."""
    monkeypatch.setattr("importlib.metadata.requires", lambda _name: NEEDS)
    monkeypatch.setattr(installed, "extras", lambda: ["engine", "text"])


@pytest.mark.usefixtures("lacking")
def test_a_package_that_is_missing_is_named_with_the_extra_that_brings_it() -> None:
    assert installed.missing("engine") == ["nosuch-engine"]
    with pytest.raises(MachineError, match=r"djsb auto needs nosuch-engine: pip install 'djsb\[engine\]'"):
        installed.need_engine("djsb auto")
    assert installed.remedy("absent_part.inner") == "pip install 'djsb[text]'"
    assert installed.remedy("tqdm") == "pip install 'djsb[engine]'", "brought by a package of the engine"


def test_a_module_that_no_extra_brings_is_an_error_of_djsb() -> None:
    assert installed.remedy("nosuch") is None


def test_an_extra_that_runs_studies_brings_the_engine() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for name in ("adam8", "image-models", "publish", "slurm", "text-models", "video", "vlm"):
        assert "djsb[engine]" in extras[name], name
    named = {part for need in extras["all"] for part in need.removeprefix("djsb[").rstrip("]").split(",")}
    assert named | {"adam8", "docs", "dev", "all", "engine", "video"} == set(extras), "adam8 needs a GPU's driver"


def test_a_study_is_looked_at_without_the_engine(probed: Tiny, tmp_path: Path) -> None:
    code = (
        "import sys; from app.cli.main import app\n"
        f"commands = [[c, {str(probed.study)!r}] for c in ('status', 'rank', 'log', 'proposals')]\n"
        f"for c in [*commands, ['report', {str(probed.study)!r}, '--out', {str(tmp_path / 'r')!r}]]:\n"
        "    app(c, standalone_mode=False)\n"
    )
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "r" / "report.html").exists()


def test_a_command_that_meets_a_missing_package_says_what_gets_it(probed: Tiny, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        WITHOUT + "import importlib.metadata as m\nm.requires = lambda _: ['nosuch-torch; extra == \"engine\"']\n"
    )
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    ran = subprocess.run([sys.executable, DJSB, "check", probed.study], env=env, capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.startswith("djsb: djsb check needs nosuch-torch: pip install 'djsb[engine]'"), ran.stderr
