"""A wheel, installed away from the repository and run beside a user's own app.py and engine/."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    return next(out.glob("*.whl"))


def test_the_wheel_carries_templates_and_no_other_top_level_names(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {n.split("/")[0] for n in names if ".dist-info" not in n}
    assert top == {"djsb.py", "app", "agent", "engine"}
    assert "engine/_recipes/clip.yaml" in names
    assert "engine/_recipes/demo-clip.yaml" in names
    assert "app/report.html.j2" in names
    assert "agent/_prompts/propose.md" in names
    assert "agent/papers.jsonl" in names


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_does_the_demo_beside_a_users_own_modules(wheel: Path, tmp_path: Path) -> None:
    """The venv borrows the installed dependencies, so that only the wheel itself is new."""
    venv, here = tmp_path / "venv", tmp_path / "elsewhere"
    here.mkdir()
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    subprocess.run([str(venv / "bin" / "pip"), "install", "-q", "--no-deps", str(wheel)], check=True)
    site = next((venv / "lib").glob("python*/site-packages"))
    borrowed = next(p for p in sys.path if p.endswith("site-packages"))
    # appended, so the wheel's own packages come first; the editable djsb of the repository stays out of it
    (site / "borrowed.pth").write_text(f"{borrowed}\n")
    (here / "app.py").write_text("raise SystemExit('the wrong app')\n")
    (here / "engine").mkdir()
    (here / "engine" / "__init__.py").write_text("raise SystemExit('the wrong engine')\n")
    env = {**os.environ, "PYTHONPATH": str(here)}
    env.pop("VIRTUAL_ENV", None)
    done = subprocess.run(
        [str(venv / "bin" / "djsb"), "auto", "--demo", "--until", "probe", "--budget", "40s"],
        cwd=here, env=env, capture_output=True, text=True, check=False, timeout=800,
    )  # fmt: skip
    assert done.returncode in (0, 4), done.stderr[-2000:]
    assert (here / "djsb-demo" / "report" / "report.html").exists()
    where = subprocess.run(
        [str(venv / "bin" / "python"), "-c", "import djsb, engine; print(engine.__file__)"],
        cwd=here, env={**env, "PYTHONPATH": ""}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert str(venv) in where.stdout
    for command in (
        ["djsb", "papers", "DataComp"],
        ["python", "-P", "-c", "from agent.prompts import prompt; prompt('propose')"],
    ):
        asked = [str(venv / "bin" / command[0]), *command[1:]]
        subprocess.run(asked, cwd=here, env={**env, "PYTHONPATH": ""}, capture_output=True, check=True)
