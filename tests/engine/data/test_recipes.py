"""Recipes: real Data-Juicer keeps what the slices keep, and nothing harmful is ever read."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.base.errors import DataError, DjsbError, OpError, StudyError
from engine.data import datajuicer
from engine.data.apply_recipe import apply_recipe
from engine.data.catalogue import statistics_of
from engine.data.cuts import Column, keeps
from engine.data.field_entries import keeps_value
from engine.data.judgement import judged
from engine.data.ops.contract import IMAGE_TOKEN
from engine.data.ops.table import OPS
from engine.data.recipe_entries import slice_entries
from engine.data.recipes import Recipe, check_entry, read_recipe, recipe_yaml
from engine.records.pool import Slice
from engine.settings.data import DatasetSection

FIELDS = DatasetSection(path="rows.jsonl", text="text", images="images", videos="videos", id=None, max_bad=1)
TEXT = DatasetSection(path="rows.jsonl", text="text", images=None, videos=None, id=None, max_bad=1)
DJ_PROCESS = Path(sys.executable).with_name("dj-process")
NEEDS_NO_MODEL = {
    *(
        "alphanumeric",
        "character_repetition",
        "special_characters",
        "text_length",
        "words_num",
        "word_repetition",
    ),
    *("image_aspect_ratio", "image_shape", "image_size"),
    *("video_aspect_ratio", "video_duration", "video_resolution"),
}


def build(name: str, params: dict[str, Any]) -> Any:
    """The OP; one that needs a model gets all of its state but the model: its own process() judges."""
    if name.removesuffix("_filter") in NEEDS_NO_MODEL:
        return datajuicer.load_op(name, params)
    datajuicer.prepare()
    from data_juicer.ops import OPERATORS
    from data_juicer.ops.base_op import Filter

    op = object.__new__(OPERATORS.modules[name])
    Filter.__init__(op, **params)
    vars(op).update({k: v for k, v in params.items() if "closed" not in k and k != "reversed_range"})
    op.any, op.lang = params.get("any_or_all") == "any", None
    return op


def column(values: Sequence[Any]) -> Column:
    """One row's values as engine.statistics reads them: not finite is unreadable."""
    numbers = np.atleast_1d(np.asarray(values, np.float64))
    if not numbers.size or not np.isfinite(numbers).all():
        numbers = np.array([np.nan])
    low = numbers.min(keepdims=True)
    return Column(low, low if numbers.size == 1 else numbers.max(keepdims=True))


def stats_of(op: Any, rows: list[dict[str, Any]], statistic: str) -> list[Any]:
    batch: dict[str, list[Any]] = {key: [r[key] for r in rows] for key in rows[0]}
    batch |= {"__dj__stats__": [{} for _ in rows]}
    return [s[statistic] for s in op.compute_stats_batched(batch)["__dj__stats__"]]


def wanted(slices: Sequence[Slice], rows: list[dict[str, Any]]) -> list[bool]:
    """Which rows the slices keep, by the OPs' own statistics; every closed or open bound must matter."""
    kept = np.ones(len(rows), bool)
    for s in slices:
        values = stats_of(datajuicer.load_op(s.op, slice_entries(s)[0][1] | dict(s.params)), rows, s.statistic)
        columns = [column(v) for v in values]
        mask = np.array([keeps(s, c)[0] for c in columns])
        for side in ("low", "high"):
            if getattr(s, side) is not None:
                flipped = Slice(**{**vars(s), f"{side}_closed": not getattr(s, f"{side}_closed")})
                assert (np.array([keeps(flipped, c)[0] for c in columns]) != mask).any(), f"no tie at {side} of {s}"
        kept &= mask
    assert 0 < kept.sum() < len(kept)
    return [bool(k) for k in kept]


def dj_process(folder: Path, recipe: str, data: Path) -> list[dict[str, Any]]:
    """Run the real executable from another working directory."""
    (folder / "r.yaml").write_text(recipe)
    out, elsewhere = folder / "dj" / "out.jsonl", folder / "elsewhere"
    elsewhere.mkdir()
    command = [DJ_PROCESS, "--config", folder / "r.yaml", "--dataset_path", data, "--export_path", out]
    environment = os.environ | datajuicer.OFFLINE | {"HF_DATASETS_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in out.read_text().splitlines()]


def write_jsonl(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return file


# --- bounds ---


def test_a_recipe_names_no_number_for_an_end_that_is_open() -> None:
    fields = DatasetSection(path="rows.jsonl", text="text", images="images")
    slices = [
        Slice("text_length_filter", "text_len", low=5.0), Slice("special_characters_filter", "special_char_ratio", 0.2),
        Slice("image_shape_filter", "image_width", high=300.0),
        Slice("specified_numeric_field_filter", "score", high=-2.0, params=FIELD),
        Slice("specified_numeric_field_filter", "score", low=0.0, params=FIELD),
    ]  # fmt: skip
    for s in slices:
        text = recipe_yaml([s], fields, name="x")
        assert not re.search(r"(?<![.\d])[0-9]{16}|e\+[0-9]{3}", text), text
        assert read_recipe(text, "r", Path()).yaml() in text
    both = recipe_yaml([slices[2], Slice("image_shape_filter", "image_height", low=30.0)], fields, name="x")
    assert both.count("max_width") == both.count("max_height") == 2  # the second entry would inherit the first's


FLOATS = st.sampled_from([-sys.float_info.max, -1.0, 0.0, 5e-324, 0.1 + 0.2, 0.3, 0.5, 1.0, 1e9, sys.float_info.max])
VALUES = {
    "float": st.one_of(FLOATS, st.floats()),
    "int": st.integers(0, 9) | st.sampled_from([0, 2**53, 2**31]),
    "bytes": st.integers(0, 9) | st.sampled_from([0, 2**40]),
    "ratio": st.fractions(0, 5, max_denominator=7).map(float) | st.sampled_from([1 / 3, 16 / 9, 1e-12, 1e12]),
}
BOUNDS = {
    "float": st.one_of(FLOATS, st.floats(allow_nan=False)),
    "int": st.integers(-1, 10) | st.floats(-1, 10) | st.sampled_from([math.inf, -math.inf, 1e300]),
    "bytes": st.integers(-1, 10) | st.floats(-1, 10) | st.sampled_from([math.inf, -math.inf, 1e300]),
    "ratio": VALUES["ratio"] | st.sampled_from([-1.0, math.inf, -math.inf]),
}
FIELD = (("field_key", "score"),)
STATISTICS = [
    (op.name, key or "score", FIELD if op.named_by else ())
    for op in OPS.values() for key, bounds in op.statistics.items() if bounds.keeps == "range" and not op.barred
]  # fmt: skip


def stored(value: float) -> float:
    """A statistic as Data-Juicer's filters see it in a run: datasets keeps ten decimals of it."""
    from datasets.utils.json import ujson_dumps, ujson_loads

    return float(ujson_loads(ujson_dumps(value)))


def told_apart(value: float, bound: float | None) -> bool:
    return bound is None or value == bound or not abs(value - bound) < 3e-10 + 3e-15 * abs(bound)


@pytest.mark.parametrize(("name", "statistic", "params"), STATISTICS)
@pytest.mark.parametrize("outside", [False, True], ids=["inside", "outside"])
def test_the_entries_of_a_slice_keep_what_the_slice_keeps(
    name: str, statistic: str, params: Any, outside: bool
) -> None:
    bounds = statistics_of(name, dict(params))[statistic]
    if outside and not (bounds.low and bounds.high):
        with pytest.raises(OpError, match="on one side only"):
            slice_entries(Slice(name, statistic, 1, 2, params=params, outside=True))
        return
    if outside and params:
        pytest.skip("what lies outside two values of a field, and its zero, are a condition: test_columns.py")
    value, bound = VALUES[bounds.number], st.none() | BOUNDS[bounds.number]
    pairs = st.tuples(bound, bound).map(
        lambda pair: pair if None in pair or pair[0] <= pair[1] else (pair[1], pair[0])  # type: ignore[operator]
    )
    several = 3 if bounds.list_valued and not outside else 1
    rows = st.lists(st.lists(value, min_size=1, max_size=several), min_size=1, max_size=8)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(pairs, st.booleans(), st.booleans(), rows)
    @example((None, None), False, False, [[0], [1], [9]])
    @example((0, 0), True, True, [[0], [1]])
    @example((3.5, 3.75), True, True, [[3], [4]])
    @example((10 / 11, 10 / 11), True, True, [[0]])
    @example((1 / 3, 2 / 3), False, False, [[0]])
    @example((1 / 3, 2 / 3), True, True, [[0]])
    def check(pair: tuple[Any, Any], low_closed: bool, high_closed: bool, values: list[list[Any]]) -> None:
        s = Slice(name, statistic, *pair, low_closed, high_closed, params, outside)
        if bounds.number in ("float", "ratio"):  # the bounds always occur, and their neighbours
            ties = [b + step for b in pair if b is not None and math.isfinite(b) for step in (0, -1e-9, 1e-9)]
            values = values + [[t] for t in ties if bounds.number == "float" or t >= 0]
        values = [v for v in values if all(told_apart(x, b) for x in v for b in pair)]
        if params:  # Data-Juicer takes a zero in a field for no number; the recipe says so
            values = [v for v in values if all(abs(x) > 1e-9 for x in v)]
        assume(not (params and keeps_value(s, 0.0)))
        entries = slice_entries(s)
        ops = [build(name, dict(params)) for _, params in entries]
        for seen in (float, stored) if bounds.number in ("float", "ratio") else (int,):
            if seen is stored:
                values = [v for v in values if all(abs(x) < 1e6 for x in v)]
            stats = []
            for v in values:
                numbers = [seen(x) for x in v]
                stat: dict[str, Any] = {key: [1] * len(v) for key in OPS[name].statistics}
                stats.append(stat | {statistic: numbers if bounds.list_valued else numbers[0]})
            kept = np.ones(len(values), bool)
            for op in ops:
                kept &= np.array(list(op.process_batched({"__dj__stats__": stats})), bool)
            assert kept.tolist() == [bool(keeps(s, column(v))[0]) for v in values]
        assert all(check_entry(name, params, Path()) == (name, params) for _, params in entries)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("checked", [True, False])
def test_every_op_gets_through_data_juicers_own_parser_unchanged(tmp_path: Path, checked: bool) -> None:
    """Also what stands twice: an entry inherits what it leaves out from the entry of the same OP above it."""
    slices = [
        Slice(name, key, 1, 2, False, True, params)
        for name, key, params in STATISTICS
        if (OPS[name].statistics[key].check != "none" if key in OPS[name].statistics else True) == checked
    ]
    if checked:
        slices += [*ONE_SIDED, Slice("text_length_filter", "text_len"), Slice("image_nsfw_filter", "image_nsfw_score")]
    else:
        slices += [Slice("average_line_length_filter", "avg_line_length", 3.5, 7.25)]
    recipe = recipe_yaml(slices, FIELDS, name="all")
    (tmp_path / "r.yaml").write_text(recipe)
    script = (
        "import json, sys; from engine.data.datajuicer import prepare; prepare();"
        "from data_juicer.config import init_configs;"
        "from data_juicer.core.preflight import pre_instantiation_check;"
        "cfg = init_configs(['--config', 'r.yaml', '--export_path', 'o.jsonl'], load_configs_only=True);"
        "cfg.strict_preflight and pre_instantiation_check(cfg.process);"
        "print('\\n' + json.dumps([cfg.process, cfg.text_keys, cfg.image_key, cfg.skip_op_error,"
        " cfg.strict_preflight]))"
    )
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    process, *settings_ = json.loads(done.stdout.splitlines()[-1])
    assert settings_ == ["text", "images", False, checked]
    written = yaml.safe_load(recipe)["process"]
    assert len(process) == len(written) >= len(slices) + checked
    for got, expected in zip(process, written, strict=True):
        [(name, params)] = expected.items()
        assert {key: got[name][key] for key in params} == params
        assert not got[name].get("trust_remote_code") and got[name]["skip_op_error"] is False
    assert read_recipe(recipe, "r.yaml", tmp_path).process == tuple((n, p) for e in written for n, p in e.items())


ONE_SIDED = [
    Slice("image_subplot_filter", "image_subplot_confidence", None, 0.5),
    Slice("video_face_ratio_filter", "video_face_exist", 0.5),
    Slice("general_field_filter", "general_field_filter_condition", 1, 2, params=(("filter_condition", "a > 1 or b"),)),
]


def test_an_op_with_one_bound_keeps_one_side_and_says_where_that_is_not_enough() -> None:
    for s in ONE_SIDED:
        [(name, params)] = slice_entries(s)
        assert check_entry(name, params, Path()) == (name, params)
        ones = np.ones(1)
        assert judged(name, params, {s.statistic: (ones, ones)}) is None  # bounds alone do not settle it
        with pytest.raises(OpError, match="export pool"):
            slice_entries(Slice(s.op, s.statistic, 0.1, 0.3, params=s.params))
    for s in ONE_SIDED[:2]:
        for closed in (True, False):
            s = Slice(**{**vars(s), "high_closed": closed, "low_closed": closed})
            [(name, params)] = slice_entries(s)
            op = build(name, {"min_horizontal_lines": 1, "min_vertical_lines": 1, **params})
            lines = {"horizontal_peak_count": [1], "vertical_peak_count": [1]}
            for number in (0.4, 0.5, 0.6, 0.5 + 1e-9, 0.5 - 1e-9):
                kept = op.process_single({"__dj__stats__": {s.statistic: [number], **lines}})
                assert bool(kept) == bool(keeps(s, column([number]))[0]), (s, number)
    yes = ONE_SIDED[2]
    [(_, params)] = slice_entries(Slice(yes.op, yes.statistic, None, 0.5, params=yes.params))
    assert params == {"filter_condition": "not (a > 1 or b)"}


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"llm_quality_score_filter": {"min_score": 0.5}}, "asks a language model"),
        ({"audio_size_filter": {}}, "no audio"),
        ({"general_field_filter": {"filter_condition": "__import__('os').system('x')"}}, "takes comparisons"),
        ({"general_field_filter": {"filter_condition": "text.__class__ == 1"}}, "takes comparisons"),
        ({"general_field_filter": {"filter_condition": "a > 1", "reversed_range": True}}, "may not be set"),
        ({"llm_perplexity_filter": {"response_template": "{text.__class__}"}}, "takes a text with"),
        ({"specified_field_filter": {"field_key": "a", "target_value": {"b": 1}}}, "may not be"),
        ({"in_context_influence_filter": {"valid_dataset": [{"text": {"b": 1}}]}}, "takes a list of rows"),
        ({"text_embd_similarity_filter": {"api_or_hf_model": "https://example.org/v1"}}, "no local folder"),
        ({"text_embd_similarity_filter": {"is_hf_model": False}}, "may not be set"),
        ({"video_motion_score_filter": {"optical_flow_key": "x"}}, "may not be set"),
    ],
)
def test_what_the_later_filters_may_not_do_in_a_recipe(entry: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(OpError, match=why):
        read_recipe(yaml.safe_dump({"process": [entry]}), "r.yaml", tmp_path)


def test_a_bound_between_whole_numbers_becomes_the_next_one() -> None:
    [(_, params)] = slice_entries(Slice("text_length_filter", "text_len", 3.5, 7.2))
    assert (params["min_len"], params["max_len"]) == (4, 7)
    assert params["min_closed_interval"] and params["max_closed_interval"]


# --- real runs ---


def on_values(
    op: str, statistic: str, rows: list[dict[str, Any]], closed: tuple[bool, bool], params: Any = ()
) -> Slice:
    """A slice whose bounds are values of the rows, so that ties decide."""
    values = stats_of(datajuicer.load_op(op, dict(params)), rows, statistic)
    distinct = sorted({x for v in values for x in (v if isinstance(v, list) else [v])})
    return Slice(op, statistic, distinct[1], distinct[-2], *closed, params)


@pytest.mark.slow
def test_dj_process_keeps_the_rows_of_text_slices(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    words = ["a", "the", "cat,", "sat!", "on", "x1", "mat.", "été", "3", "&"]
    texts = [" ".join(random.choice(words, n)) for n in random.integers(1, 9, 80)]
    rows = [{"id": i, "text": t} for i, t in enumerate(texts)]
    slices = [
        on_values("text_length_filter", "text_len", rows, (True, False)),
        on_values("alphanumeric_filter", "alnum_ratio", rows, (False, True)),
        on_values("special_characters_filter", "special_char_ratio", rows, (True, True)),
        Slice("words_num_filter", "num_words", 1, 7, False, False),
        Slice("text_length_filter", "text_len", 5),
        Slice("words_num_filter", "num_words", 4, 4, True, True, outside=True),
    ]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    keep = wanted(slices, rows)
    kept = dj_process(tmp_path, recipe_yaml(slices, TEXT, name="t"), data)
    assert kept == [r for r, k in zip(rows, keep, strict=True) if k]


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real watermark model, tiny and random."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = ViTConfig(**size, image_size=16, patch_size=8, num_labels=2, initializer_range=2.0)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows.jsonl of one or two images each, in a folder beside it."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "img").mkdir()
    random = np.random.default_rng(0)
    for width in (10, 16, 20, 24, 30, 40):
        for height in (10, 20):
            pixels = random.integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"img/{width}x{height}.png")
    names = sorted(f"img/{p.name}" for p in (folder / "img").iterdir())
    rows: list[dict[str, Any]] = [{"images": [n], "text": "é", "id": i} for i, n in enumerate(names)]
    rows += [
        {"images": [a, b], "text": "two", "id": 100 + i} for i, (a, b) in enumerate(zip(names, names[4:], strict=False))
    ]
    write_jsonl(folder / "rows.jsonl", rows)
    return folder


def picture_slices(rows: list[dict[str, Any]], vit: str) -> list[Slice]:
    """Bounds of every kind; the watermark OP has a parameter for its upper bound only."""
    model = (("hf_watermark_model", vit),)
    return [
        Slice("image_shape_filter", "image_width", 10, 40, False, False),
        Slice("image_aspect_ratio_filter", "aspect_ratios", 0.8, 2.4, False, True),
        on_values("image_size_filter", "image_sizes", rows, (True, True)),
        on_values("image_watermark_filter", "image_watermark_prob", rows, (False, True), model),
    ]


def read_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


@pytest.mark.long
def test_dj_process_keeps_the_rows_of_image_slices(tmp_path: Path, pictures: Path, vit: str) -> None:
    rows = read_rows(pictures)
    absolute = [r | {"images": [str(pictures / i) for i in r["images"]]} for r in rows]
    slices = picture_slices(absolute, vit)
    keep = wanted(slices, absolute)
    assert any(k for r, k in zip(rows, keep, strict=True) if len(r["images"]) == 2)
    kept = dj_process(tmp_path, recipe_yaml(slices, FIELDS, name="i"), pictures / "rows.jsonl")
    assert kept == [r for r, k in zip(absolute, keep, strict=True) if k]  # dj-process makes the paths absolute


@pytest.mark.slow
def test_apply_leaves_rows_as_they_were_and_counts_bad_ones(
    tmp_path: Path,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    rows = read_rows(pictures)
    absolute = [r | {"images": [str(pictures / i) for i in r["images"]]} for r in rows]
    slices = [
        Slice("image_aspect_ratio_filter", "aspect_ratios", 0.8, 2.4, False, True),
        on_values("image_size_filter", "image_sizes", absolute, (True, False)),
    ]
    expected = [r for r, k in zip(rows, wanted(slices, absolute), strict=True) if k]
    odd = dict(expected[0]) | {
        "images": expected[0]["images"][0],
        "extra": {"n": 2**60, "x": 0.1},
        "text": "half \ud800",
    }
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "img").symlink_to(pictures / "img")
    lines = [
        json.dumps(r) for r in [*rows, odd, *([{"text": "t", "images": i} for i in ([], None, "no.png", "bad.png")])]
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join([*lines, "{broken"]) + "\n")
    monkeypatch.chdir("/")
    out = tmp_path / "new" / "out.jsonl"
    recipe = recipe_yaml(slices, FIELDS.model_copy(update={"videos": None}), name="i")
    done = apply_recipe(recipe, "r.yaml", data, out)
    named = [row | {"images": [f"../{i}" for i in row["images"]]} for row in expected]
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        *named, odd | {"images": named[0]["images"][0]}
    ]  # fmt: skip
    assert all((out.parent / image).is_file() for row in named for image in row["images"])
    assert (done.rows_in, done.rows_out, done.quarantined) == (len(rows) + 6, len(expected) + 1, 5)
    assert [row for row, _ in done.bad] == list(range(len(rows) + 1, len(rows) + 6))
    assert list(out.parent.iterdir()) == [out]
    assert capfd.readouterr().out == ""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real CLIP with a tokenizer of single characters, tiny and random."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(c) for c in range(97, 123)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(c + "</w>" for c in letters)]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    torch.manual_seed(0)
    tower = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = tower | {
        "vocab_size": len(tokens),
        "max_position_embeddings": 16,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    vision = tower | {"image_size": 16, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return str(folder)


@pytest.mark.slow
def test_apply_names_the_images_for_image_text_ops_only_and_reads_bytes(
    tmp_path: Path, pictures: Path, clip: str
) -> None:
    """Parquet with image bytes in and out; text_length must not see the token that the similarity needs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted((pictures / "img").iterdir())
    texts = ["cat", "a dog", "two birds", "x", "some fish", "red"] * 2
    raw = [
        {"n": i, "caption": t, "image": {"bytes": f.read_bytes(), "path": None}}
        for i, (t, f) in enumerate(zip(texts, files, strict=True))
    ]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("n", pa.int16()), ("caption", pa.string()), ("image", image)])
    pq.write_table(pa.Table.from_pylist(raw, schema), tmp_path / "in.parquet")
    params = (("hf_clip", clip),)
    op = datajuicer.load_op("image_text_similarity_filter", dict(params))
    batch = [{"text": f"{IMAGE_TOKEN} {t}", "images": [str(f)]} for t, f in zip(texts, files, strict=True)]
    scores = [v[0] for v in stats_of(op, batch, "image_text_similarity")]
    cut = sorted(scores)[6]
    slices = [
        Slice("text_length_filter", "text_len", 3, 9, True, True),
        Slice("image_text_similarity_filter", "image_text_similarity", cut, None, params=params),
    ]
    fields = FIELDS.model_copy(update={"text": "caption", "images": "image", "videos": None})
    recipe = recipe_yaml(slices, fields, name="b")
    done = apply_recipe(recipe, "r.yaml", tmp_path / "in.parquet", tmp_path / "out.parquet")
    expected = [r for r, t, v in zip(raw, texts, scores, strict=True) if 3 <= len(t) <= 9 and v >= cut]
    table = pq.read_table(tmp_path / "out.parquet")
    assert 0 < len(expected) < 6 and table.to_pylist() == expected and table.schema.equals(schema)
    assert (done.rows_in, done.rows_out, done.quarantined) == (12, len(expected), 0)


@pytest.mark.slow
def test_a_run_that_fails_says_why_and_leaves_nothing(
    tmp_path: Path, pictures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    recipe = "process: [{image_watermark_filter: {hf_watermark_model: empty}}]"
    with pytest.raises(OpError, match="image_watermark_filter cannot load its model") as caught:
        apply_recipe(recipe, "r.yaml", pictures / "rows.jsonl", tmp_path / "out.jsonl", root=tmp_path)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]
    assert capfd.readouterr().out == ""


def test_apply_refuses_before_it_runs(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a"}])
    there = write_jsonl(tmp_path / "there.jsonl", [])
    recipe = "process: [{text_length_filter: {min_len: 1}}]"
    for out, overwrite, words in (
        (there, False, "exists already"),
        (data, True, "is the data itself"),
        (tmp_path, True, "holds other files"),
        (tmp_path / "out.csv", False, "must end in"),
    ):
        with pytest.raises(DataError, match=words):
            apply_recipe(recipe, "r.yaml", data, out, overwrite=overwrite)
    with pytest.raises(OpError, match="needs local weights"):
        apply_recipe("process: [{token_num_filter: }]", "r.yaml", data, tmp_path / "out.jsonl")
    with pytest.raises(DataError, match=r"no row of .* can be read.* no caption"):
        apply_recipe("text_keys: caption\n" + recipe, "r.yaml", data, tmp_path / "out.jsonl")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows.jsonl", "there.jsonl"]


# --- the file ---


@given(st.lists(st.text(max_size=40), max_size=3), st.text(max_size=20))
@settings(max_examples=150, deadline=None)
@example(["a\nprocess: [x]", "b\r\x85c\u2028d\u2029e\x00\ud800f\ufeff\x07"], "n\n- x: {y")
def test_a_header_cannot_leave_its_comment(header: list[str], name: str) -> None:
    s = Slice("text_length_filter", "text_len", 1, 5)
    read = yaml.safe_load(recipe_yaml([s], TEXT, name=name, header=header))
    plain = yaml.safe_load(recipe_yaml([s], TEXT, name="n"))
    assert {**read, "project_name": "n"} == plain


def test_a_recipe_comes_back_as_it_was_written(tmp_path: Path) -> None:
    slices = [
        Slice("image_aspect_ratio_filter", "aspect_ratios", 0.1 + 0.2, None),
        Slice("video_duration_filter", "video_duration", 1, 2),
    ]
    fields = FIELDS.model_copy(update={"text": None, "images": "img"})
    text = recipe_yaml(slices, fields, name="both")
    recipe = read_recipe(text, "r.yaml", tmp_path)
    assert recipe.process == tuple(e for s in slices for e in slice_entries(s))
    assert (recipe.text, recipe.images, recipe.videos, recipe.project_name) == (None, "img", "videos", "both")
    assert read_recipe(recipe.yaml(), "again", tmp_path) == recipe
    assert "'img' as lists of paths" in text


def test_image_text_slices_say_what_dj_process_needs() -> None:
    s = Slice("image_text_similarity_filter", "image_text_similarity", 0.2)
    text = recipe_yaml([s], FIELDS, name="n")
    assert IMAGE_TOKEN in text.split("project_name")[0]


def test_one_statistic_with_two_parameters_is_refused() -> None:
    slices = [Slice("word_repetition_filter", "word_rep_ratio", 0, 1, params=(("rep_len", n),)) for n in (2, 3)]
    with pytest.raises(OpError, match=r"rep_len.*two recipes"):
        recipe_yaml(slices, TEXT, name="n")


def test_paths_of_a_recipe_are_ignored_and_told(tmp_path: Path) -> None:
    text = "dataset_path: /etc/passwd\nexport_path: /x.jsonl\nprocess:\n- text_length_filter:\n"
    recipe = read_recipe(text, "r.yaml", tmp_path)
    assert recipe == Recipe((("text_length_filter", {}),)) and recipe.ignored == (
        "dataset_path",
        "export_path",
    )
    assert "/etc" not in recipe.yaml()


# --- recipes from elsewhere ---

LENGTH = "text_length_filter"
BAD_ENTRIES = [
    ("python_lambda_mapper: {lambda_str: 'lambda x: x'}", "python_lambda_mapper"),
    ("python_file_mapper: {file_path: x.py}", "python_file_mapper"),
    ("remove_repeat_sentences_mapper: {tokenizer: x}", "remove_repeat_sentences_mapper"),
    ("image_ohem_selector: {score_file: x.py}", "image_ohem_selector"),
    ("general_fused_op: {fused_op_list: [{python_lambda_mapper: {lambda_str: x}}]}", "general_fused_op"),
    ("text_length_filter: {fused_op_list: [{python_lambda_mapper: {lambda_str: x}}]}", "fused_op_list"),
    ("text_length_filter: {min_len: {python_lambda_mapper: }}", "min_len"),
    ("video_resize_aspect_ratio_mapper: {}", "video_resize_aspect_ratio_mapper"),
    ("video_ffmpeg_wrapped_mapper: {filter_name: x}", "video_ffmpeg_wrapped_mapper"),
    ("download_file_mapper: {download_field: x}", "download_file_mapper"),
    ("s3_upload_file_mapper: {s3_bucket: x}", "s3_upload_file_mapper"),
    ("llm_quality_score_filter: {api_or_hf_model: gpt}", "llm_quality_score_filter"),
    ("image_captioning_mapper: {hf_img2seq: x}", "image_captioning_mapper"),
    ("image_nsfw_filter: {trust_remote_code: true}", "trust_remote_code"),
    ("image_nsfw_filter: {hf_nsfw_model: 'https://example.org/x'}", "hf_nsfw_model"),
    ("image_nsfw_filter: {hf_nsfw_model: '~nobody-here/x'}", "hf_nsfw_model"),
    ('image_nsfw_filter: {hf_nsfw_model: "a\\0b"}', "hf_nsfw_model"),
    ("image_nsfw_filter: {hf_nsfw_model: [x]}", "hf_nsfw_model"),
    ("text_length_filter: {api_endpoint: 'http://x'}", "api_endpoint"),
    ("text_length_filter: {save_dir: /tmp}", "save_dir"),
    ("text_length_filter: {stats_export_path: /tmp/x}", "stats_export_path"),
    ("text_length_filter: {work_dir: /tmp}", "work_dir"),
    ("text_length_filter: {runtime_env: {pip: [x]}}", "runtime_env"),
    ("text_length_filter: {skip_op_error: true}", "skip_op_error"),
    ("text_length_filter: {text_key: other}", "text_key"),
    ("text_length_filter: {min_len: abc}", "min_len"),
    ("text_length_filter: {min_len: 1.5}", "min_len"),
    ("text_length_filter: {min_len: true}", "min_len"),
    ("text_length_filter: {min_len: 9, max_len: 3}", "min_len 9 is above max_len 3"),
    ("text_length_filter: {min_len: 1, any_or_all: all}", "any_or_all"),
    ("text_length_filter: {reversed_range: 'no'}", "reversed_range"),
    ("alphanumeric_filter: {min_ratio: .nan}", "min_ratio"),
    ("image_size_filter: {min_size: 5.5KB}", "min_size"),
    ("image_size_filter: {min_size: 5}", "min_size"),
    ("image_size_filter: {min_size: 1MB, max_size: 9KB}", "swap"),
    ("image_shape_filter: {any_or_all: some}", "any_or_all"),
    ("video_aspect_ratio_filter: {min_ratio: 1e999999999}", "min_ratio"),
    ("video_aspect_ratio_filter: {min_ratio: 1/0}", "min_ratio"),
    ("video_aspect_ratio_filter: {min_ratio: 1.5}", "min_ratio"),
    ("video_duration_filter: {video_backend: ffmpeg}", "video_backend"),
    ("character_repetition_filter: {rep_len: -1}", "rep_len"),
    ("{a: {}, b: {}}", "one OP"),
    (LENGTH, "one OP"),
    ("text_length_filter: [1]", "one OP"),
]


@pytest.mark.parametrize(("entry", "names"), BAD_ENTRIES)
def test_an_entry_that_might_harm_is_refused(entry: str, names: str, tmp_path: Path) -> None:
    with pytest.raises(OpError) as caught:
        read_recipe(f"process:\n- {LENGTH}: {{min_len: 1}}\n- {entry}\n", "theirs.yaml", tmp_path)
    message = str(caught.value)
    assert names in message and "theirs.yaml, process[1]" in message and "\n" not in message and len(message) < 400


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("custom_operator_paths: [/tmp/x.py]\nprocess: []", "custom_operator_paths"),
        ("notification_config: {enabled: true}\nprocess: []", "notification_config"),
        ("work_dir: /tmp\nprocess: []", "work_dir"),
        ("runtime_env: {}\nprocess: []", "runtime_env"),
        ("executor_type: ray\nprocess: []", "executor_type"),
        ("temp_dir: /\nprocess: []", "temp_dir"),
        ("strict_preflight: true\nprocess: []", "strict_preflight"),
        ("dataset: {configs: []}\nprocess: []", "dataset"),
        ("auto: true\nprocess: []", "auto"),
        ("skip_op_error: true\nprocess: []", "skip_op_error"),
        ("open_tracer: true\nprocess: []", "open_tracer"),
        ("np: 65\nprocess: []", "np"),
        ("np: true\nprocess: []", "np"),
        ("text_keys: [a, b]\nprocess: []", "text_keys"),
        ("image_key: [a]\nprocess: []", "image_key"),
        ("export_path: {a: b}\nprocess: []", "export_path"),
        ("text_keys: text", "process"),
        ("process: {text_length_filter: {}}", "process"),
        ("[]", "not a mapping"),
        ("process: !!python/object/apply:os.system [id]", "line 1 is not YAML"),
        ("process: [", "not YAML"),
        ("process: [{1: {}}]", "the key '1' is no text"),
        ("process:\n- ? [a, b]\n  : {}", "not YAML"),
        ("process: " + "[" * 5000, "not YAML"),
        ("process: [{text_length_filter: {min_len: " + "9" * 5000 + "}}]", "not YAML"),
        ("process: []\nprocess: []", "line 2 is not YAML: the key process stands there twice"),
        ("process: []\n#" + "x" * 1_000_000, "characters, more than"),
        (BOMB + "process: *a11", "stands for more than"),
        (BOMB.replace("a0:", "process:", 1), "stands for more than"),
        ('"a\\nb": 1\nprocess: []', "may not be set"),
    ],
    ids=lambda value: value[:30],
)
def test_a_file_that_might_harm_is_refused(text: str, names: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        read_recipe(text, "theirs.yaml", tmp_path)
    message = str(caught.value)
    assert names in message and "theirs.yaml" in message and "\n" not in message and len(message) < 400


@pytest.mark.parametrize(
    ("process", "what"),
    [
        ("document_simhash_deduplicator: {}", "none of those that are applied here .*: dj-process"),
        ("document_minhash_deduplicator: {tokenization: sentencepiece}", "write space or punctuation or character"),
        ("document_minhash_deduplicator: {ignore_pattern: (a+)+$}", "'ignore_pattern' may not be set"),
        ("document_minhash_deduplicator: {window_size: 0}", "a whole number of 1 … 100"),
        ("document_minhash_deduplicator: {jaccard_threshold: .nan}", "a number of 0.0 … 1.0"),
        ("document_deduplicator: {lowercase: 1}", "write true or false"),
        ("image_deduplicator: {consider_text: true}", "'consider_text' may not be set"),
        ("document_deduplicator: {}\n- document_deduplicator: {lowercase: true}", "stands twice"),
        (f"document_deduplicator: {{}}\n- {LENGTH}: {{min_len: 4}}", "follows a deduplicator, and filters come first"),
    ],
)
def test_deduplicators_that_are_not_applied_are_refused(process: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(OpError, match=what):
        read_recipe(f"process:\n- {process}\n", "theirs.yaml", tmp_path)


def test_an_entry_must_set_what_it_would_inherit(tmp_path: Path) -> None:
    text = f"process:\n- {LENGTH}: {{min_len: 4, reversed_range: true}}\n- {LENGTH}: {{min_len: 1}}\n"
    with pytest.raises(OpError, match=r"process\[1\].*reversed_range again"):
        read_recipe(text, "theirs.yaml", tmp_path)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["process", LENGTH, "min_len", "np", "x"]), x),
    )
)
@settings(max_examples=100, deadline=None)
def test_whatever_is_read_is_refused_in_one_line_or_harmless(content: Any) -> None:
    try:
        recipe = read_recipe(
            yaml.safe_dump({"process": content} if isinstance(content, list) else content), "r", Path()
        )
    except DjsbError as error:
        assert "\n" not in str(error)
    else:
        assert all(name in OPS for name, _ in recipe.process)
