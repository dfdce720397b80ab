"""docs/reference/checkpoints.md ticks what a test shows, of every family that is trained, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.tasks.clip.checkpoint import KINDS
from engine.tasks.t2v.unets import FAMILIES as VIDEO
from engine.tasks.vlm.families import FAMILIES
from tests.engine.tasks.clip import test_families as clip
from tests.engine.tasks.t2v import test_families as video
from tests.engine.tasks.vlm import test_families as vlm
from tests.engine.tasks.vlm import test_mini_gemini as mini

DOC = Path(__file__).parents[3] / "docs" / "reference" / "checkpoints.md"
COLUMNS = ("loads", "one step", "LoRA", "pause, resume", "evaluate", "reloads outside")
Test = Callable[..., None]
# what a row is called by the parameters of the tests
CLIPS = {
    "CLIP": "clip", "SigLIP, SigLIP 2 of a fixed resolution": "siglip", "open_clip's ViT": "open_clip",
    "open_clip's SigLIP": "open_siglip",
}  # fmt: skip
# heading -> tests with the columns that they show
SHOWN: dict[str, list[tuple[Test, tuple[str, ...]]]] = {
    "Checkpoints of image–text models": [(vlm.test_a_family_trains_pauses_evaluates_and_reloads, COLUMNS)],
    "Contrastive models": [
        (clip.test_a_family_does_all_that_a_study_asks, tuple(c for c in COLUMNS if c != "LoRA")),
        (clip.test_a_family_takes_adapters, ("LoRA",)),
    ],
    "Video pipelines": [(video.test_a_family_is_trained_and_its_pipeline_reads_what_is_kept, COLUMNS)],
}
ALONE: dict[str, tuple[tuple[Test, tuple[str, ...]], ...]] = {
    "Mini-Gemini": (
        (mini.test_projector_and_mining_are_trained_and_read_again, ("loads", "one step", "evaluate", COLUMNS[-1])),
        (mini.test_a_mini_gemini_takes_adapters_and_pauses, ("LoRA", "pause, resume")),
    )
}


def tables() -> Iterator[tuple[str, str, str, list[str]]]:
    """(heading, family, its second cell, what stands in the columns) of every row of a table with COLUMNS."""
    heading, found = "", False
    for line in DOC.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading, found = line.lstrip("# "), False
        cells = [cell.strip() for cell in line.strip().strip("|").split(" |")]
        cells = [cell.strip() for cell in cells]
        if tuple(cells[2:]) == COLUMNS:
            found = True
        elif found and line.startswith("| "):
            yield heading, cells[0], cells[1], cells[2:]


def names(test: Any) -> set[str]:
    """What a test is run with: the ids of its first parameter."""
    (mark,) = (m for m in test.pytestmark if m.name == "parametrize")
    return {str(v.id or v.values[0]) if isinstance(v, type(pytest.param())) else str(v) for v in mark.args[1]}


def name_of(heading: str, family: str, second: str) -> str:
    told = re.search(r"`(\w+)`", second)
    if heading == "Video pipelines":
        return family.lower().replace(" ", "-")
    return CLIPS[family] if heading == "Contrastive models" else str(told and told[1])


def test_every_tick_has_a_test() -> None:
    rows = list(tables())
    assert {heading for heading, *_ in rows} == set(SHOWN)
    for heading, family, second, cells in rows:
        if cells[0] == "refused":
            continue
        assert all(cells) and len(cells) == len(COLUMNS), family
        tests = ALONE.get(family) or SHOWN[heading]
        for column in COLUMNS:
            (test,) = (test for test, columns in tests if column in columns)
            assert family in ALONE or name_of(heading, family, second) in names(test), f"{family}: {column}"


def test_every_family_that_is_trained_has_a_row() -> None:
    told: dict[str, set[str]] = {heading: set() for heading in SHOWN}
    for heading, _, second, cells in tables():
        if cells[0] != "refused":
            told[heading] |= set(re.findall(r"`(\w+)`", second))
    assert told["Checkpoints of image–text models"] == set(FAMILIES)
    assert told["Video pipelines"] == set(VIDEO)
    assert told["Contrastive models"] == {*KINDS, "transformers"}


def test_a_family_without_a_test_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = DOC.read_text(encoding="utf-8")
    (tmp_path / "doc.md").write_text(text.replace("| Wan 2.2 |", "| Wan 3 |"), encoding="utf-8")
    monkeypatch.setattr("tests.engine.tasks.test_checkpoints.DOC", tmp_path / "doc.md")
    with pytest.raises(AssertionError, match="Wan 3: loads"):
        test_every_tick_has_a_test()
    (tmp_path / "doc.md").write_text(text.replace("| PaliGemma |", "no row"), encoding="utf-8")
    with pytest.raises(AssertionError):
        test_every_family_that_is_trained_has_a_row()
