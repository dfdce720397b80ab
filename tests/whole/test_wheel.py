"""A wheel, installed away from the repository and run beside a user's own app.py and engine/."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import Tiny

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


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a venv that has the wheel, and borrows all that it depends on."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    subprocess.run([str(venv / "bin" / "pip"), "install", "-q", "--no-deps", str(wheel)], check=True)
    site = next((venv / "lib").glob("python*/site-packages"))
    borrowed = [p for p in sys.path if p.endswith("site-packages")]
    # appended, so the wheel's own package comes first; .pth files there, the editable djsb among them, are not read
    (site / "borrowed.pth").write_text("".join(f"{p}\n" for p in borrowed))
    return venv / "bin"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A user's folder, with an app.py and an engine/ that must not run in djsb's processes."""
    here = tmp_path / "elsewhere"
    (here / "engine").mkdir(parents=True)
    (here / "app.py").write_text(
        "import sys\nNAME = 'of the user'\nif 'djsb' in sys.argv[0]: sys.exit('the wrong app')\n"
    )
    (here / "engine" / "__init__.py").write_text("raise SystemExit('the wrong engine')\n")
    return here


def run(here: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Run a program in the user's folder, which is on PYTHONPATH too."""
    env = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"} | {"PYTHONPATH": str(here)}
    return subprocess.run(
        [*map(str, command)], cwd=here, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=800
    )


def test_the_wheel_holds_one_package_with_all_its_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {"djsb"}
    data = {
        "recipes/clip.yaml",
        "recipes/demo-clip.yaml",
        "prompts/propose.md",
        "agent/papers.jsonl",
        "agent/methods.jsonl",
    }
    data |= {"agent/methods.jsonl", "prompts/mcp.md", "prompts/skill.md", "app/publish/card.md.j2"}
    code = {"__init__.py", "__main__.py", "app/cli/main.py", "app/report/page.html.j2", "app/tui/djsb.tcss"}
    assert not {f"djsb/{n}" for n in data | code} - set(names)


def test_djsb_runs_its_own_modules_and_leaves_a_users_import_alone(installed: Path, hostile: Path) -> None:
    code = (
        "import djsb, app, importlib.metadata as m; print(app.NAME, m.version('djsb')); "
        "import sys; assert not any(p.endswith('djsb') for p in sys.path)"
    )
    done = run(hostile, installed / "python", "-c", code)
    assert done.stdout.split() == ["of", "the", "user", "0.1.0"], done.stderr
    for command in (
        ["djsb", "--version"],
        ["python", "-m", "djsb", "--version"],
        ["djsb", "papers", "DataComp"],
        ["python", "-c", "import djsb, sys; sys.argv = ['x', 'papers']; djsb.main()"],
    ):
        done = run(hostile, installed / command[0], *command[1:])
        assert done.returncode == 0, (command, done.stderr)


def test_python_gets_studies_from_the_wheel_unless_a_users_module_is_in_the_way(
    installed: Path, hostile: Path, tmp_path: Path
) -> None:
    code = "import djsb; print(djsb.open_study.__module__)"
    plain = tmp_path / "plain"
    plain.mkdir()
    done = run(plain, installed / "python", "-c", code)
    assert done.stdout.strip() == "app.api", done.stderr
    assert "app.py is before it" in run(hostile, installed / "python", "-c", code).stderr


def test_worker_and_feed_are_no_commands_of_a_person(installed: Path, hostile: Path) -> None:
    for program in (installed / "djsb", Path(sys.executable).with_name("djsb")):  # of the wheel, of the clone
        for name in ("worker", "feed"):
            done = run(hostile, program, name)
            assert done.returncode == 2 and f"No such command '{name}'" in done.stderr
    for entry in ((installed / "python", "-m", "djsb"), (sys.executable, ROOT / "djsb.py")):
        done = run(hostile, *entry, "worker")  # its standard input has ended, and so does it
        assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_does_the_demo_beside_a_users_own_modules(installed: Path, hostile: Path) -> None:
    done = run(hostile, installed / "djsb", "auto", "--demo", "--until", "probe", "--budget", "40s")
    assert done.returncode in (0, 4), done.stderr[-2000:]
    assert (hostile / "djsb-demo" / "report" / "report.html").exists()


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a venv that has pipx and uv, as pip gets them."""
    venv = tmp_path_factory.mktemp("tools") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    subprocess.run([str(venv / "bin" / "pip"), "install", "-q", "pipx", "uv"], check=True)
    return venv / "bin"


@pytest.mark.long
@pytest.mark.parametrize("tool", ["pipx", "uv"])
def test_as_a_tool_it_looks_at_studies_without_torch_and_ray(
    tool: str, tools: Path, wheel: Path, probed: Tiny, hostile: Path, tmp_path: Path
) -> None:
    places = {"PIPX_HOME": "pipx", "PIPX_BIN_DIR": "bin", "UV_TOOL_DIR": "uv", "UV_TOOL_BIN_DIR": "bin"}
    env = os.environ | {name: str(tmp_path / place) for name, place in places.items()}
    what = {
        "pipx": ["install", f"{wheel}[tui]"],
        "uv": ["tool", "install", f"djsb[tui] @ {wheel.as_uri()}", "--python", sys.executable],
    }
    done = subprocess.run([str(tools / tool), *what[tool]], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    djsb, report = tmp_path / "bin" / "djsb", tmp_path / "report"
    ranked = run(hostile, djsb, "rank", probed.study, "--json")
    assert ranked.returncode == 0, ranked.stderr
    best = json.loads(ranked.stdout)[0]["pool"]
    for look in (["status", probed.study], ["show", best, probed.study], ["report", probed.study, "--out", report]):
        done = run(hostile, djsb, *look)
        assert done.returncode == 0, (look, done.stderr)
    done = run(hostile, djsb, "auto", probed.study)
    assert done.returncode == 1 and "torch" in done.stderr and "pip install 'djsb[engine]'" in done.stderr
