"""The study file: written with every field explained, read back the same, and wrong ones named by field."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engine.base.errors import DjsbError, StudyError
from engine.base.ids import content_id
from engine.base.paths import resolve
from engine.settings.study import RARE, Study, study_yaml
from engine.study.file import parse_study, read_study
from tests.conftest import fuzz

LEAST: dict[str, Any] = {"name": "s", "dataset": {"path": "rows.jsonl"}, "ops": {"text_length_filter": {}}}
FULL: dict[str, Any] = {
    "name": "a: 'b' # \"c\" {d} – 数据",
    "seed": 7,
    "task": "clip",
    "dataset": {"path": "../my data/rows #1.jsonl", "text": "text: x", "images": "images", "id": "no", "max_bad": 0},
    "evaluation": {"path": "test.jsonl", "label": "1", "prompts": ["a {}", "- {}: #"], "metrics": ["accuracy"]},
    "train": {"epochs": 0.5, "learning_rate": 1e-05, "micro_batch": 4},
    "ops": {"text_length_filter": {}, "word_repetition_filter": {"rep_len": 3, "lang": "no"}},
    "pools": {"size": 20, "buckets": 4},
    "scale": {"rates": []},
    "approve": "hold",
}  # fmt: skip


def parse(change: dict[str, Any]) -> Study:
    return parse_study(yaml.safe_dump({**LEAST, **change}))


@pytest.mark.parametrize("raw", [LEAST, FULL], ids=["least", "full"])
def test_what_is_written_reads_back_the_same(raw: dict[str, Any]) -> None:
    study = Study.model_validate(raw)
    text = study_yaml(study)
    assert parse_study(text) == study
    assert study_yaml(parse_study(text)) == text


@given(name=st.text(max_size=30), path=st.text(min_size=1, max_size=30), label=st.none() | st.text(max_size=10))
def test_any_text_survives_the_file(name: str, path: str, label: str | None) -> None:
    study = Study.model_validate({**LEAST, "name": name, "dataset": {"path": path}, "evaluation": {"label": label}})
    assert parse_study(study_yaml(study)) == study


def test_a_default_that_is_written_out_is_the_same_study() -> None:
    study = Study.model_validate(LEAST)
    assert parse_study(study_yaml(study)).model_dump_json() == study.model_dump_json()  # else its trials would run anew


def test_every_field_stands_in_the_file_with_its_meaning() -> None:
    text = study_yaml(Study.model_validate(LEAST))
    for section in (Study, *(f.annotation for n, f in Study.model_fields.items() if n not in RARE)):
        for name, info in getattr(section, "model_fields", {}).items():
            assert name in RARE or f"{name}:" in text
            assert name in RARE or info.description is None or info.description in text


def test_ops_may_be_a_list() -> None:
    ops = ["text_length_filter", {"words_num_filter": {"lang": "en"}}, {"alphanumeric_filter": None}]
    assert parse({"ops": ops}).ops == {
        "text_length_filter": {}, "words_num_filter": {"lang": "en"}, "alphanumeric_filter": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dataset": {}}, "dataset: path is missing; add it, or sources"),
        ({"colour": 1}, "colour: unknown field; remove it (docs/reference/study.md lists them all)"),
        ({"train": {"epoch": 1}}, "train.epoch: unknown field; remove it"),
        ({"train": {"epochs": 0}}, "train.epochs: Input should be greater than 0 (it is 0)"),
        ({"train": {"epochs": "x"}}, "train.epochs: Input should be a valid number"),
        ({"budget": "soon"}, "budget: budget 'soon' is not an amount of device time; write it like 8gpu-days"),
        ({"pools": {"buckets": 6}}, "pools.buckets: Input should be less than or equal to 5 (it is 6)"),
        ({"evaluation": {"prompts": ["a photo"]}}, "every prompt needs exactly one {} for the class name"),
        ({"evaluation": {"prompts": []}}, "every prompt needs exactly one {}"),
        ({"ops": ["a", "a"]}, "ops: a stands twice; give each OP once"),
        ({"ops": [1]}, "each entry is an OP's name or a mapping from its name to its parameters"),
        ({"ops": "text_length_filter"}, "ops: Input should be a valid dictionary"),
        ({"task": "clip"}, "task clip needs dataset.images; name the field, or set task: null"),
        ({"task": "clip", "dataset": {"path": "x", "images": "i"}}, "task clip needs evaluation.path"),
        ({"search": {"confidence": 1}}, "search.confidence: Input should be less than 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_field_in_one_line(change: dict[str, Any], says: str) -> None:
    with pytest.raises(StudyError) as caught:
        parse(change)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(StudyError, match=r"seed: .*; train\.epochs: .*; colour: unknown field"):
        parse({"seed": -1, "train": {"epochs": 0}, "colour": 1})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1\nb: 2", "study.yaml, line 2 is not YAML"),
        ("name: !!python/name:os.system", "is not YAML"),
        ("just words", "is not a mapping of fields; make a new one with: djsb init"),
        ("", "is not a mapping of fields"),
        ("- a", "is not a mapping of fields"),
    ],
)
def test_a_file_that_is_no_study(text: str, says: str) -> None:
    with pytest.raises(StudyError) as caught:
        parse_study(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_study_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="make one with: djsb init"):
        read_study(tmp_path)
    (tmp_path / "study.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(StudyError, match=r"study\.yaml is not UTF-8"):
        read_study(tmp_path)
    (tmp_path / "study.yaml").unlink()
    (tmp_path / "study.yaml").mkdir()
    with pytest.raises(StudyError, match="cannot be read"):
        read_study(tmp_path)


def test_paths_start_from_the_study(tmp_path: Path) -> None:
    assert resolve(tmp_path / "study", "../data/x.jsonl") == tmp_path / "data" / "x.jsonl"
    assert resolve(tmp_path, "/elsewhere/x.jsonl") == Path("/elsewhere/x.jsonl")


def test_a_digest_depends_on_content_only() -> None:
    assert content_id({"a": 1, "b": [None, "ü"]}) == content_id({"b": [None, "ü"], "a": 1}) == "501f4397eb27412e"
    assert content_id({"a": 1}) != content_id({"a": 2})
    assert len(content_id({}, 12)) == 12


def test_search_and_executor_may_be_named_in_a_word() -> None:
    base = "name: x\ndataset: {path: x.jsonl}\nops: {text_length_filter: {}}\n"
    study = parse_study(base + "search: grid\nexecutor: ray\n")
    assert (study.search.strategy, study.executor.kind) == ("grid", "ray")
    assert parse_study(base).search.strategy == "race"
    with pytest.raises(StudyError, match=r"search\.strategy"):
        parse_study(base + "search: fastest\n")


def fields(model: Any = Study, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every field of the study file, as a path."""
    for name, field in model.model_fields.items():
        yield (*above, name)
        if hasattr(field.annotation, "model_fields"):
            yield from fields(field.annotation, (*above, name))


ODD = st.sampled_from(["~", "../x", "1h", "-1h", "1e400", "lm", "command", "{pool", ".nan", "a\x00", "x\n"])
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | ODD
ANY = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@fuzz
@given(st.lists(st.tuples(st.sampled_from(list(fields())), ANY), min_size=1, max_size=3))
def test_any_value_in_any_field_is_read_or_refused_in_one_line(changes: list[tuple[tuple[str, ...], Any]]) -> None:
    raw: dict[str, Any] = {**FULL}
    for (*above, name), value in changes:
        at = raw
        for part in above:
            at[part] = {**at[part]} if isinstance(at.get(part), dict) else {}
            at = at[part]
        at[name] = value
    try:
        parse_study(yaml.safe_dump(raw))
    except DjsbError as error:
        assert "\n" not in str(error)


@fuzz
@given(st.data())
def test_any_damage_to_a_study_file_is_read_or_refused(data: st.DataObject) -> None:
    text = yaml.safe_dump(FULL, allow_unicode=True)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(len(text), start + 40)))
        text = text[:start] + data.draw(st.text("a:-[]{}&*!?|>'\"#%@`,\n \t<~01.é\x00", max_size=5)) + text[stop:]
    with contextlib.suppress(DjsbError):
        parse_study(text)
