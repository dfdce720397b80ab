"""Cycles: each goes on from the best checkpoint of the one before, is judged against it, and can be killed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import cycles, loop
from engine.cycles import chain_of, lineage, moves
from engine.open_study import open_study, view_study
from engine.proposal_queue import trial_id
from engine.scheduler import Scheduler
from engine.search.paper import control, request
from tests.conftest import COLOURS, Row, Tiny, make_tiny, run_djsb, write_jsonl

SETTINGS: dict[str, Any] = {
    "ops": {"text_length_filter": {}},
    "train": {"epochs": 3, "keep_checkpoints": 1},
    "combine": {"top": 1, "clusters": 0},
    "scale": {"rates": []},
    "confirm": {"seeds": 3, "candidates": 1},
}


def planted(root: Path) -> Tiny:
    """Long captions name a wrong colour, so that short ones help in every cycle."""
    made = make_tiny(root, 300)
    rng = np.random.default_rng(3)
    for i, row in enumerate(made.rows):
        own = list(COLOURS)[i % 3]
        others = [c for c in COLOURS if c != own]
        long = rng.random() < 0.6
        row["text"] = f"{rng.choice(others)} {'thing ' * int(rng.integers(5, 9))}" if long else f"{own} a{'b' * (i % 7)}"
    write_jsonl(made.train_file, made.rows)
    made.set(SETTINGS)
    return made
