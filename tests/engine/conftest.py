"""A study of two cycles on data where something helps in each, for the tests of cycles and of scaling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import COLOURS, Tiny, make_tiny, once, run_djsb, write_jsonl

CYCLES: dict[str, Any] = {
    "ops": {"text_length_filter": {}},
    "train": {"epochs": 3, "keep_checkpoints": 1},
    "combine": {"top": 1, "clusters": 0},
    "scale": {"rates": []},
    "confirm": {"seeds": 3, "candidates": 1},
    "evaluation": {"metrics": ["likelihood"]},
}


def planted(root: Path) -> Tiny:
    """Long captions name a wrong colour, so that short ones help in every cycle."""
    made = make_tiny(root, 300)
    rng = np.random.default_rng(3)
    for i, row in enumerate(made.rows):
        own = list(COLOURS)[i % 3]
        others = [c for c in COLOURS if c != own]
        long = rng.random() < 0.6
        told = (rng.choice(others), "thing " * int(rng.integers(5, 9))) if long else (own, "a" + "b" * (i % 7))
        row["text"] = " ".join(told)
    write_jsonl(made.train_file, made.rows)
    made.set(CYCLES)
    return made


@pytest.fixture(scope="session")
def two_cycles(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A study of two cycles, run to its end; not to be changed."""

    def make(root: Path) -> Tiny:
        made = planted(root)
        made.set({**CYCLES, "cycles": 2})
        done = run_djsb("auto", made.study, timeout=600)
        assert done.returncode == 0, done.stderr
        assert "rose" in done.stdout
        return made

    return once(tmp_path_factory, "cycles", make)
