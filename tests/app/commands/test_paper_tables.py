"""The paper's own tables, as data, give the paper's own conclusions through `djsb rank --from`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from app.commands.rank_file import rank
from engine.evidence.lineage import moves
from tests.conftest import run_djsb

TABLES = Path(__file__).parents[2] / "data" / "paper"
BUCKETS = ("low", "mid", "high")
# Table 1: task → the three best statistics with their changes in the pools low, mid and high, percent
TABLE_1 = {
    "table6_image_to_text": {
        "Image NSFW Score": (7.13, 18.44, 66.38),
        "Text Action Number": (59.90, 0.29, -2.05),
        "Language Score": (49.90, 0.85, -1.43),
    },
    "table6_text_to_video": {
        "Video Aesthetics Score": (-0.98, 0.13, 0.96),
        "Video NSFW Score": (0.82, -0.05, -0.57),
        "Frames-Text Similarity": (-1.45, 0.23, 0.79),
    },
    "table7_image_text_pretraining": {
        "CLIP Image-Text Similarity": (-32.57, -6.39, 39.53),
        "BLIP Image-Text Similarity": (-24.28, 1.82, 25.39),
        "Image NSFW Score": (12.18, 1.28, -18.38),
    },
}


def ranked(table: str) -> list[dict[str, Any]]:
    return rank(TABLES / f"{table}.csv", "mean-of-changes", [], 0.95)


@pytest.mark.parametrize("table", TABLE_1)
def test_the_top_three_statistics_are_those_of_table_1(table: str) -> None:
    found = ranked(table)
    changes = {r["pool"]: r["change"] for r in found}
    # a statistic stands where its best bucket stands
    order = list(dict.fromkeys(r["pool"].rsplit(" ", 1)[0] for r in found))
    assert order[:3] == list(TABLE_1[table])
    for statistic, wanted in TABLE_1[table].items():
        assert [changes[f"{statistic} {b}"] for b in BUCKETS] == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(
    ("table", "statistics"),
    [("table6_image_to_text", 23), ("table6_text_to_video", 21), ("table7_image_text_pretraining", 21)],
)
def test_the_tables_are_whole(table: str, statistics: int) -> None:
    found = ranked(table)
    assert len({r["pool"].rsplit(" ", 1)[0] for r in found}) == statistics
    assert len(found) == 3 * statistics
    assert all(r["change"] is not None and not r["skipped"] for r in found)


def test_one_number_a_pool_is_never_called_a_help() -> None:
    assert {r["verdict"] for table in TABLE_1 for r in ranked(table)} == {"unclear"}


def test_the_default_aggregate_gives_the_2_12_percent_of_table_10() -> None:
    done = run_djsb("rank", "--from", TABLES / "table10_mgm.csv", "--json")
    (mean_of_changes,) = json.loads(done.stdout)
    assert mean_of_changes["change"] == pytest.approx(2.12, abs=0.005)
    done = run_djsb("rank", "--from", TABLES / "table10_mgm.csv", "--aggregate", "change-of-means", "--json")
    (equation_1,) = json.loads(done.stdout)
    assert equation_1["change"] == pytest.approx(0.12, abs=0.005)  # MME's points outweigh all else


def test_the_best_prompts_of_both_cycles_are_those_of_table_16() -> None:
    first, second = ranked("table16_cycle1"), ranked("table16_cycle2")
    assert len(first) == len(second) == 11
    assert [r["pool"].split(",")[0][:31] for r in first[:2]] == [
        "Provide a brief yet comprehensi", "Describe the image in one sente"
    ]  # fmt: skip
    assert [r["pool"].split(",")[0][:31] for r in second[:2]] == [
        "(Baseline) Provide a one-senten", "If there is movement or activit"
    ]  # fmt: skip
    assert (first[0]["change"], second[1]["change"]) == pytest.approx((0.944, 0.433))
    assert min(r["change"] for r in first + second) == pytest.approx(-1.673)


def test_the_top_ten_of_both_cycles_share_seven_operators() -> None:
    """Table 14; the paper's text says eight."""
    first, second = ([r["pool"] for r in ranked(f"table14_cycle{n}")] for n in (1, 2))
    assert [len(first), len(second)] == [10, 10]
    # Table 1 has the captioning task's top three, too
    assert first[:3] == ["Text Length", "Image Watermark Score", "Character Repetition Ratio"]
    found = moves(first, second)
    assert len(found.both) == 7
    assert found.new == ("Flagged Word Ratio", "Image Size", "Image Height")
    assert found.gone == ("Text Length", "Word Repetition Ratio", "Image Aspect Ratio")
    assert dict(found.up) == {
        "CLIP Image-Text Similarity": 5, "Image Aesthetics Score": 4, "Text Perplexity": 1, "Phrase Grounding Recall": 1
    }  # fmt: skip
    assert dict(found.down) == {"Image Watermark Score": 8, "Image Width": 2, "Character Repetition Ratio": 1}
    assert (found.mean_up, found.mean_down) == pytest.approx((2.75, 11 / 3))


def test_deviations_are_recorded_where_the_table_has_them() -> None:
    with (TABLES / "table6_image_to_text.csv").open(encoding="utf-8", newline="") as text:
        by_pool = {r["pool"]: r["std"] for r in csv.DictReader(text)}
    assert by_pool["Image NSFW Score high"] == "32.65"
    assert by_pool.pop("control") == ""
    assert all(by_pool.values())
