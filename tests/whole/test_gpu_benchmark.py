"""The benchmark for a GPU runs on a CPU, with tiny models, so that none of its lines is new on the day it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
def test_every_section_runs_on_a_cpu_and_the_figures_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=900)
    found = json.loads(out.read_text(encoding="utf-8"))["sections"]
    assert done.returncode == 0, {name: figures["error"] for name, figures in found.items() if "error" in figures}
    assert len(found) >= 12
    assert found["out of memory"]["rows"] == 16
    assert all(found[f"pause and resume: {task}"]["resumed"] == 0.0 for task in ("clip", "lm"))
