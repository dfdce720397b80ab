"""Pools are copied N times over, rows as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from engine.pipeline.components.data_pool_duplication import Duplication, Keys
from engine.pipeline.contract import Context


def run(tmp_path: Path, **keys: object) -> list[Path]:
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n\n{"x": 2.0}', encoding="utf-8")
    settings = Keys.model_validate({"extra_configs": {"dataset_path": "a.jsonl", "export_path": "out", **keys}})
    context = Context(root=tmp_path, work=tmp_path, job="p.job", scratch=tmp_path / "scratch")
    (paths,) = Duplication().run(settings, context).outputs
    return [Path(path) for path in paths]


def test_each_pool_is_written_as_often_as_asked(tmp_path: Path) -> None:
    one, three = run(tmp_path, duplicating_times=[1, 3])
    assert (one.name, three.name) == ("a_x1.jsonl", "a_x3.jsonl")
    assert one.read_text(encoding="utf-8") == '{"x": 1}\n{"x": 2.0}\n'
    assert three.read_text(encoding="utf-8") == one.read_text(encoding="utf-8") * 3


def test_a_shuffle_has_the_same_rows_by_its_seed(tmp_path: Path) -> None:
    first, same, other = (
        run(tmp_path, duplicating_times=[50], shuffle=True, shuffle_seed=seed)[0].read_text(encoding="utf-8")
        for seed in (42, 42, 1)
    )
    assert first == same != other
    assert sorted(first.splitlines()) == ['{"x": 1}'] * 50 + ['{"x": 2.0}'] * 50


def test_unknown_keys_and_impossible_times_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="duplicating_times"):
        run(tmp_path, duplicating_times=[0])
    with pytest.raises(ValidationError, match=r"extra_configs\.duplicate"):
        run(tmp_path, duplicating_times=[1], duplicate=2)
