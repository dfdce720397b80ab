"""The small inputs of `../shared/cases`, each run as it stands; our own copies stand with what they test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import DJSB

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT.parent / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not there")
# names of the revision that the cases were written for → today's
NAMES = {
    "import app.cli as c": "import app.cli.main as c",
    "engine.tasks.vqa_files": "engine.tasks.vlm.benchmarks",
    "engine.media": "engine.data.images",
    "engine.tasks.images": "engine.tasks.shared.images",
    "import engine.parallel, engine.scan, engine.statistics, mock": (
        "import engine.data.scan, engine.data.statistics, mock"
    ),
    "lambda work,jobs,workers:": "lambda work,jobs,*more,**named:",
    "engine.scan.": "engine.data.scan.",
    "engine.statistics.": "engine.data.statistics.",
    'b=Path("w/llm")': 'b=Path("w/llm").absolute()',  # the case goes into it, then names files in it
}
MISREAD = {  # what each line of the case said, and must not say again
    "vqav2 dicts": "{",
    "string answers": "('y', 'e', 's')",
    "gpt first": "hello",
    "null answer": "None",
}
Check = Callable[[str], object]


def run(case: str, folder: Path, *command: str) -> str:
    """All that a case says, with today's names."""
    shutil.copytree(CASES / case, folder / "cases" / case)
    for file in (folder / "cases" / case).iterdir():
        text = file.read_text(encoding="utf-8")
        for old, new in NAMES.items():
            text = text.replace(old, new)
        file.write_text(text, encoding="utf-8")
    environment = {**os.environ, "DJ": str(DJSB.parent), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command or ("bash", f"cases/{case}/run.sh"),
        cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert "internal error" not in said, said
    return said


def memory(said: str) -> bool:
    """The image was refused, or took little."""
    grown = re.search(r"-> (\d+) MB more", said)
    return int(grown[1]) < 300 if grown else "ValueError" in said


def vqa(said: str) -> bool:
    """Nothing is read as what it is not: refused, or right."""
    for name, wrong in MISREAD.items():
        line = next((one for one in said.splitlines() if one.startswith(f"{name}:")), "")
        assert wrong not in line, line
    for name, right in (("nan options: rotations", 2), ("lone quotes: questions", 5)):
        if number := re.search(rf"{name} (\d+)", said):
            assert int(number[1]) == right, said
    return True


RIGHT: dict[str, Check] = {
    "bom-not-read-everywhere": lambda said: "no column" not in said and "not JSON" not in said and "ufeff" not in said,
    "dash-manifest-as-video": lambda said: said.rstrip().endswith("none") and "requests made by djsb check" in said,
    "export-pool-parquet-mixed-ids": lambda said: "cannot hold the rows" in said and ".jsonl" in said,
    "extreme-aspect-image-memory": memory,
    "rank-loss-counted-as-higher-better": lambda said: "--lower" in said and "helps" not in said,
    "rank-one-nan-seed-drops-all-seeds": lambda said: said.count("+10") >= 2,
    "readonly-study-folder": lambda said: "readonly database" not in said and "read-only" not in said,
    "unrelated-tar-beside-data": lambda said: "PROBLEM" not in said,
    "vqa-and-instruction-files-silently-wrong": vqa,
}


@pytest.mark.slow
@pytest.mark.parametrize("case", RIGHT)
def test_a_case_is_right(case: str, tmp_path: Path) -> None:
    said = run(case, tmp_path)
    assert RIGHT[case](said), said


def test_every_case_is_run() -> None:
    assert {case.name for case in CASES.iterdir()} == {*RIGHT, "llm-quirks"}


RAW = re.compile(r"\b(?!ModelError)\w*(Error|Exception):|Traceback|pydantic\.dev")  # of no error of ours
NO_ANSWER = ("reasononly", "reasonlen", "nochoices", "nullchoices", "html200", "err200", "html502", "cut")
SAYS = {
    **dict.fromkeys(("reasononly", "reasonlen", "nochoices", "nullchoices"), "the model gave no answer"),
    "html200": "no OpenAI protocol at", "html502": "502 (Bad Gateway)", "err200": "Provider returned error",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("command", ["chat", "propose"])
def test_a_language_model_server_with_quirks_gets_one_plain_line(command: str, tmp_path: Path) -> None:
    (tmp_path / "w" / "llm").mkdir(parents=True)
    modes = (*NO_ANSWER, "jsonnotsse", "dictargs", "noid", "badjson", "notools")
    said = run("llm-quirks", tmp_path, sys.executable, "cases/llm-quirks/run.py", command, *modes)
    parts = re.findall(rf"=== {command} (\w+) rc=(\d+)[^\n]*\n   out: ([^\n]*)(?:\n   err: ([^\n]*))?", said)
    assert [mode for mode, *_ in parts] == list(modes), said
    for mode, code, out, error in parts:
        assert not RAW.search(error), (mode, error)
        assert SAYS.get(mode, "") in error, (mode, error)
        if mode in NO_ANSWER:
            assert code == "1", (mode, out)
        assert (code == "1") == bool(error), (mode, code, error)
        assert error or out.strip("'\""), mode  # an answer is not empty
    if command == "chat":
        (cut,) = [error for mode, _, _, error in parts if mode == "cut"]
        assert "the answer is cut off" in cut
