"""Which GPUs are used, as CUDA_VISIBLE_DEVICES is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.base.errors import MachineError
from engine.base.gpus import gpus


@pytest.fixture(autouse=True)
def four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of four GPUs, as nvidia-smi lists them."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '0\\n1\\n2\\n3\\n'\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("visible", "used"),
    [
        (None, ["0", "1", "2", "3"]), ("1,3", ["1", "3"]), ("", []), ("-1", []), ("NoDevFiles", []),
        ("GPU-8932f937-d72c", ["GPU-8932f937-d72c"]), ("MIG-1/2/0", ["MIG-1/2/0"]),
    ],
)  # fmt: skip
def test_the_variable_narrows_them_as_cuda_reads_it(
    visible: str | None, used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == used


@pytest.mark.parametrize("visible", ["7", "0,7", "cuda:0"])
def test_a_gpu_that_is_not_there_is_refused(visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(MachineError, match="nvidia-smi lists 0, 1, 2, 3"):
        gpus()
