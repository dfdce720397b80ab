"""Pools as files: what each manipulation gives, by hand; as rows and as row numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.base.errors import DataError, PoolError
from engine.data.readers.opening import open_reader
from engine.pools.combine import combine
from engine.pools.construct import construct
from engine.pools.files import Form, as_file, open_pool
from engine.pools.join import join, merge
from engine.pools.rank import rank
from engine.pools.resize import downsample, duplicate

FORMS: tuple[Form, ...] = ("rows", "jsonl")


def write(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def analysed(file: Path, **columns: Sequence[Any]) -> Path:
    """Rows that are numbered, with these statistics."""
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    return write(file, [{"n": n, "__dj__stats__": dict(zip(names, row, strict=True))} for n, row in enumerate(rows)])


def called(pools: Sequence[Path]) -> list[str]:
    """What the pools are called, whatever is kept of them."""
    return [path.name.removesuffix(".rows") for path in pools]


def numbers(pool: Path | str) -> list[int]:
    """The rows of a pool, in order."""
    reader = open_reader(Path(pool))
    return [row["n"] for row in reader.read(0, len(reader))]


@pytest.mark.parametrize("form", FORMS)
def test_construction_cuts_each_statistic_into_thirds(tmp_path: Path, form: Form) -> None:
    data = analysed(tmp_path / "d.jsonl", a=[6, 5, 4, 3, 2, 1], b=[[0, 2], [9], [8, 8], [3], [4], [5]], lang=["en"] * 6)
    made = construct(data, tmp_path / "out", form=form)
    names = [f"{s}/d_{s}_{i}.jsonl" for s in "ab" for i in range(3)]
    assert [str(path.relative_to(tmp_path / "out")).removesuffix(".rows") for path in made] == names
    assert [numbers(path) for path in made] == [[4, 5], [2, 3], [0, 1], [0, 3], [4, 5], [1, 2]]
    assert made[0].name.endswith(".rows") is (form == "rows")


def test_a_pool_of_row_numbers_is_small_and_is_written_out_on_demand(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = analysed(tmp_path / "d.jsonl", **{name: rng.random(3_000).tolist() for name in "abcdef"})
    made = construct(data, tmp_path / "out", form="rows")
    written = sum(file.stat().st_size for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert written * 10 < data.stat().st_size
    before = numbers(made[4])
    file = as_file(made[4])
    assert file == made[4].with_suffix("")
    assert [json.loads(line)["n"] for line in file.read_text(encoding="utf-8").splitlines()] == before
    assert numbers(made[4]) == numbers(file) == before
    made = construct(data, tmp_path / "out", form="rows")
    assert not file.exists()
    assert numbers(file) == before  # by its name alone


def test_rows_of_one_value_stay_together_and_a_constant_has_no_pools(tmp_path: Path) -> None:
    data = analysed(tmp_path / "d.jsonl", a=[1, 1, 1, 2, 2, 3], same=[7] * 6, two=[0, 1] * 3)
    told: list[str] = []
    made = construct(data, tmp_path, tell=told.append)
    assert [numbers(path) for path in made] == [[0, 1, 2], [3, 4], [5]]
    assert [("same has 1 distinct value" in told[0]), ("two has 2 distinct values" in told[1])] == [True, True]


def test_rows_without_a_statistic_are_in_none_of_its_pools(tmp_path: Path) -> None:
    nan = float("nan")
    data = analysed(tmp_path / "d.jsonl", a=[1, nan, 2, None, 3, "?"], b=[[3], [], [1], [nan], [2], [9, "x"]])
    told: list[str] = []
    made = construct(data, tmp_path, tell=told.append)
    assert [numbers(path) for path in made] == [[0], [2], [4], [2], [4], [0]]
    assert [text.split(": ")[1] for text in told] == [
        f"3 of 6 rows have no {name}; they are in none of its pools" for name in "ab"
    ]


def test_construction_by_size_and_without_statistics(tmp_path: Path) -> None:
    data = analysed(tmp_path / "d.jsonl", a=[2, 2, 1, 1, 3])
    made = construct(data, tmp_path, size=2)
    assert [numbers(path) for path in made] == [[2, 3], [0, 1], [4]]
    made = construct(data, tmp_path, ratios=[0.2, "2/5"], ignore_stats=True)
    assert [path.name for path in made] == [f"d_ignore_stats_{i}.jsonl" for i in range(3)]
    assert [numbers(path) for path in made] == [[0], [1], [2, 3, 4]]
    one = write(tmp_path / "one.jsonl", [{"n": 0}])
    assert [path.name for path in construct(one, tmp_path, ignore_stats=True)] == ["one_ignore_stats_1.jsonl"]


@pytest.mark.parametrize(
    "asked, message",
    [
        ({"ratios": ["1/3", "1/0"]}, "split_ratios"),
        ({"ratios": [0.7, 0.3]}, "ascend"),
        ({"ratios": [0, 0.5]}, "between 0 and 1"),
        ({"size": 0}, "split_num is 0"),
    ],
)
def test_construction_refuses_what_is_no_cut(tmp_path: Path, asked: dict[str, Any], message: str) -> None:
    data = analysed(tmp_path / "d.jsonl", a=[1, 2, 3])
    with pytest.raises(PoolError, match=message):
        construct(data, tmp_path, **asked)


def test_construction_refuses_rows_that_were_not_analysed_and_names_that_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="analyse it first"):
        construct(write(tmp_path / "d.jsonl", [{"n": 0}]), tmp_path)
    with pytest.raises(PoolError, match="cannot name a folder"):
        construct(analysed(tmp_path / "e.jsonl", **{"../x": [1, 2, 3]}), tmp_path)
    with pytest.raises(PoolError, match="no such pool"):
        construct(tmp_path / "no.jsonl", tmp_path)
    with pytest.raises(PoolError, match="several pools are called d"):
        downsample([tmp_path / "d.jsonl", write(tmp_path / "x" / "d.jsonl", [{"n": 1}])], tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_combination_has_every_intersection_in_the_order_of_ranks(tmp_path: Path, form: Form) -> None:
    sets = [[0, 1, 2, 3], [3, 1, 0], [2, 3, 1], [3, 5]]
    pools = [write(tmp_path / f"p_{i}.jsonl", [{"n": n} for n in some]) for i, some in enumerate(sets)]
    told: list[str] = []
    made = combine(pools, tmp_path / "out", form=form, tell=told.append)
    ranks = [
        "0",
        "1",
        "2",
        "3",
        "0_1",
        "0_2",
        "1_2",
        "0_3",
        "1_3",
        "2_3",
        "0_1_2",
        "0_1_3",
        "0_2_3",
        "1_2_3",
        "0_1_2_3",
    ]
    counts = [4, 3, 3, 2, 3, 3, 2, 1, 1, 1, 2, 1, 1, 1, 1]
    assert called(made) == [f"p__top_{r}_num_{n}.jsonl" for r, n in zip(ranks, counts, strict=True)]
    assert numbers(made[4]) == [0, 1, 3]
    assert numbers(made[6]) == [3, 1]  # the order of the best of both
    assert told == []


@pytest.mark.parametrize("form", FORMS)
def test_combination_keeps_equal_rows(tmp_path: Path, form: Form) -> None:
    one = write(tmp_path / "a_1.jsonl", [{"n": n} for n in [7, 7, 7, 1]])
    two = write(tmp_path / "a_2.jsonl", [{"n": n} for n in [7, 2, 7]])
    made = combine([one, two], tmp_path / "out", form=form)
    assert [numbers(path) for path in made] == [[7, 7, 7, 1], [7, 2, 7], [7, 7]]


def test_pools_of_one_file_meet_by_place_and_others_by_content(tmp_path: Path) -> None:
    data = analysed(tmp_path / "d.jsonl", a=[1, 2, 3, 4, 5, 6], b=[1, 2, 5, 6, 3, 4])
    pools = construct(data, tmp_path / "pools", form="rows")
    by_place = [numbers(path) for path in combine([pools[1], pools[4]], tmp_path / "x", form="rows")]
    files = [as_file(path) for path in (pools[1], pools[4])]
    assert by_place == [numbers(path) for path in combine(files, tmp_path / "y")] == [[2, 3], [4, 5]]
    assert [numbers(p) for p in combine([pools[1], pools[5]], tmp_path / "z")] == [[2, 3], [2, 3], [2, 3]]


def test_combination_has_a_limit_and_leaves_small_ones_out(tmp_path: Path) -> None:
    pools = [write(tmp_path / f"{i}x.jsonl", [{"n": n} for n in range(i + 1)]) for i in range(4)]
    with pytest.raises(PoolError, match="15 combinations, more than 7"):
        combine(pools, tmp_path, most=7)
    told: list[str] = []
    made = combine(pools, tmp_path / "out", at_least=3, tell=told.append)
    assert [path.name for path in made] == [
        f"default_prefix_top_{r}.jsonl" for r in ("2_num_3", "3_num_4", "2_3_num_3")
    ]
    assert told == ["0 combinations have no rows and 12 fewer than 3; they are not written"]


@pytest.mark.parametrize("form", FORMS)
def test_duplication_repeats_and_shuffles_by_a_seed(tmp_path: Path, form: Form) -> None:
    pool = write(tmp_path / "p.jsonl", [{"n": n} for n in range(20)])
    twice, once = duplicate(str(pool), tmp_path / "out", [2, 1], form=form)
    assert called([twice, once]) == ["p_x2.jsonl", "p_x1.jsonl"]
    assert numbers(twice) == [*range(20), *range(20)]
    mixed = [numbers(duplicate(pool, tmp_path / "out", 3, True, seed, form)[0]) for seed in (1, 1, 2)]
    assert mixed[0] == mixed[1] != mixed[2]
    assert sorted(mixed[0]) == sorted([*range(20)] * 3) != mixed[0]
    with pytest.raises(PoolError, match="duplicating_times"):
        duplicate(pool, tmp_path, [2, 0])


@pytest.mark.parametrize("form", FORMS)
def test_downsampling_cuts_all_to_the_smallest(tmp_path: Path, form: Form) -> None:
    big, small = (write(tmp_path / f"{n}.jsonl", [{"n": i} for i in range(n)]) for n in (200, 40))
    made = downsample([big, small], tmp_path / "out", form=form)
    assert called(made) == ["200_40.jsonl", "40_40.jsonl"]
    taken = numbers(made[0])
    assert len(taken) == len(set(taken)) == 40
    assert taken == sorted(taken) == numbers(downsample(big, tmp_path / "out", 40, form=form)[0])
    assert taken != numbers(downsample(big, tmp_path / "out", 40, 43, form)[0])
    assert 70 < np.mean(taken) < 130
    told: list[str] = []
    assert numbers(downsample([big, small], tmp_path / "out", 50, tell=told.append)[1]) == [*range(40)]
    assert told == ["1 pools have fewer rows than 50 and stay whole, as 40.jsonl"]


def test_downsampling_says_where_one_tiny_pool_sets_the_size(tmp_path: Path) -> None:
    pools = [write(tmp_path / f"{n}.jsonl", [{"n": i} for i in range(n)]) for n in (100, 90, 2)]
    told: list[str] = []
    downsample(pools, tmp_path / "out", tell=told.append)
    assert "2.jsonl has 2 rows" in told[0]
    with pytest.raises(PoolError, match="target_num_samples is 0"):
        downsample([*pools, write(tmp_path / "none.jsonl", [{"n": 0}])], tmp_path / "out", 0)


def test_ranking_by_dotted_keys_with_ties_and_lacks(tmp_path: Path) -> None:
    pools = ["a", "b", "c", "d", "e"]
    metrics = [{"m": {"x": 1}, "e": 2}, {"m": {"x": 3}}, {"m": {"x": 1}, "e": 1}, {"m": {"x": float("nan")}}, {}]
    told: list[str] = []
    assert rank(pools, metrics, ["m.x", "e"], tell=told.append) == ["b", "a", "c", "d", "e"]
    assert [text.split(" and ")[0] for text in told] == [
        "2 of 5 pools have no number as m.x",
        "3 of 5 pools have no number as e",
    ]
    assert rank(pools, metrics, ["m.x", "e"], descending=False) == ["c", "a", "b", "d", "e"]
    assert rank(pools, [0.0, 2, np.float32(3), 2, -1], top=3) == ["c", "b", "d"]
    assert rank("a", {"m": 1}, "m") == ["a"]
    with pytest.raises(PoolError, match="no pool has a number as auc; set ranking_keys to one of: m"):
        rank(["a"], [{"m": 1}], ["auc"])
    with pytest.raises(PoolError, match="5 pools and the metrics of 1"):
        rank(pools, [1])


@pytest.mark.parametrize("form", FORMS)
def test_merging_keeps_all_rows_in_order(tmp_path: Path, form: Form) -> None:
    data = write(tmp_path / "d.jsonl", [{"n": n} for n in range(6)])
    parts = construct(data, tmp_path / "parts", ignore_stats=True, form=form)
    merged = merge([parts[2], parts[0]], tmp_path / "out", form)
    assert called([merged])[0] == "d_ignore_stats__merged.jsonl"
    assert numbers(merged) == [4, 5, 0, 1]
    mixed = merge([parts[0], write(tmp_path / "other.jsonl", [{"n": 9, "w": 1}])], tmp_path / "out", form)
    assert (mixed.name, numbers(mixed)) == ("default_prefix_merged.jsonl", [0, 1, 9])


def test_cartesian_join_pairs_every_row(tmp_path: Path) -> None:
    prompts = [write(tmp_path / f"p_{i}.jsonl", [{"p": p} for p in some]) for i, some in enumerate(("AB", "C"))]
    items = write(tmp_path / "items.jsonl", [{"n": 1}, {"n": 2}])
    made = join(prompts, items, tmp_path / "out")
    assert [path.name for path in made] == [f"p__items_cartesian_join_{i}_0.jsonl" for i in (0, 1)]
    rows = [json.loads(line) for line in made[0].read_text(encoding="utf-8").splitlines()]
    assert rows == [{"p": p, "n": n} for p in "AB" for n in (1, 2)]
    with pytest.raises(PoolError, match="both have a field 'n'"):
        join(items, write(tmp_path / "more.jsonl", [{"n": 1}]), tmp_path / "out")


def test_pools_of_parquet_and_of_a_list(tmp_path: Path) -> None:
    rows = [{"n": n, "__dj__stats__": {"a": float(-n)}} for n in range(9)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    (tmp_path / "l.json").write_text(json.dumps(rows), encoding="utf-8")
    for file in ("t.parquet", "l.json"):
        for form in FORMS:
            made = construct(tmp_path / file, tmp_path / form, form=form)
            assert [numbers(path) for path in made] == [[6, 7, 8], [3, 4, 5], [0, 1, 2]]
            mixed = duplicate(made[0], tmp_path / form, 2, shuffle=True, form=form)[0]
            assert sorted(numbers(mixed)) == [6, 6, 7, 7, 8, 8]
            assert numbers(as_file(mixed)) == numbers(mixed)


def test_a_pool_of_row_numbers_is_refused_when_its_file_has_changed(tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", [{"n": n} for n in range(5)])
    pool = duplicate(data, tmp_path, 1, form="rows")[0]
    data.write_bytes(data.read_bytes())  # another time, the same bytes
    assert numbers(pool) == [0, 1, 2, 3, 4]
    write(data, [{"n": n} for n in (9, 1, 2, 3, 4)])
    with pytest.raises(DataError, match="has changed since"):
        open_pool(pool)
    data.unlink()
    with pytest.raises(DataError, match="is not there"):
        open_pool(pool)
    pool.write_bytes(b"PK\x03\x04 no")
    with pytest.raises(DataError, match="does not say which rows"):
        open_pool(pool)


def test_broken_rows_are_named(tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text('{"n": 1, "__dj__stats__": {"a": 1}}\n{"n": \n', encoding="utf-8")
    with pytest.raises(PoolError, match="row 1: not JSON"):
        construct(file, tmp_path)
