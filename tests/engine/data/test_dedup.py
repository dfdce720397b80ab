"""Duplicates leave before pools are cut: those that are there, no others, and each with the row that it is like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.commands.check import check
from engine.base.errors import DataError
from engine.data.apply_recipe import apply_recipe
from engine.data.imagehash import AHash, DHash, PHash
from engine.study.opened import OpenStudy, open_study
from engine.study.rows import silent
from tests.conftest import TEXT_ONLY, Tiny
from tests.engine.data.test_recipes import dj_process, write_jsonl

NOUNS = ("river", "mountain", "forest", "bridge", "castle", "garden", "market", "station", "harbour", "village")


def sentences(n: int) -> list[str]:
    """Sentences of twenty words that have little in common."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(NOUNS, 20)) for _ in range(n)]


def text_study(tiny: Tiny, texts: list[str], dedup: dict[str, Any] | None) -> OpenStudy:
    tiny.train_file.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts)))
    tiny.set({**TEXT_ONLY, "ops": {"text_length_filter": {}}, **({"dedup": dedup} if dedup else {})})
    return open_study(tiny.study, 1)


def told(opened: OpenStudy) -> dict[int, int]:
    """Row → the row that it is like."""
    return {r.row: r.original for r in opened.duplicates()}


def test_minhash_finds_the_near_copies_and_spares_short_texts(tiny: Tiny) -> None:
    texts = sentences(40)
    texts[7] = texts[3] + " again"  # near
    texts[20] = texts[3].upper()  # the same but for its capitals
    texts[30:34] = ["a cat", "a dog", "A cat", "a cat sits"]  # too short for a shingle of five words
    with (opened := text_study(tiny, texts, {"text": "minhash"})).store:
        assert opened.scan.duplicates == 3
        assert np.flatnonzero(~opened.scan.good).tolist() == [7, 20, 32]
        assert told(opened) == {7: 3, 20: 3, 32: 30}
        assert opened.scan.bad == 0
        kept = opened.cuts
        assert all(c.kept <= 37 for c in kept)
        assert not {7, 20, 32} & set(opened.realise(kept[0].pool).tolist())
        assert np.isfinite(opened.columns["text_len"].value).all()  # statistics stay, should dedup be taken out again
        file = next((opened.state / "cache").glob("dedup-*.npy"))
        stamp = file.stat().st_mtime_ns
    with (again := open_study(tiny.study, 1)).store:
        assert again.scan.duplicates == 3
        assert told(again) == {7: 3, 20: 3, 32: 30}
        assert file.stat().st_mtime_ns == stamp  # it was read
    found = check(tiny.study, 1, silent)
    assert {r["row"] for r in found["duplicates"]} == {7, 20, 32}
    assert any("3 rows are like earlier ones" in f for f in found["findings"])
    line = "training rows: 37 of 40 rows; left out: 3 like earlier ones (dedup); text from text, id from id"
    assert line in [i["line"] for i in found["inputs"]]
    root = again.root
    with (plain := text_study(tiny, texts, None)).store:
        assert plain.scan.good.all()
        assert plain.root != root  # other rows, other trials


def test_half_a_letter_is_no_obstacle(tiny: Tiny) -> None:
    texts = sentences(10)
    texts[4] = texts[8] = texts[4] + " \ud83d"
    for kind in ("minhash", "exact"):
        with (opened := text_study(tiny, texts, {"text": kind})).store:
            assert told(opened) == {8: 4}


def test_exact_comparison_leaves_near_copies(tiny: Tiny) -> None:
    texts = sentences(6)
    texts[4], texts[5] = texts[1], texts[2] + " again"
    with (opened := text_study(tiny, texts, {"text": "exact"})).store:
        assert told(opened) == {4: 1}


def test_image_hashes_see_through_size_and_light_compression(tiny: Tiny) -> None:
    folder, rng = tiny.train_file.parent, np.random.default_rng(0)
    steps = rng.integers(1, 5, (5, 8, 9)).cumsum(2) % 5 * 60  # neighbours differ by 60 or more
    pictures = [Image.fromarray(s.astype(np.uint8)).resize((144, 128), Image.Resampling.NEAREST) for s in steps]
    for i, picture in enumerate(pictures):
        picture.save(folder / f"{i}.png")
    pictures[1].resize((72, 64)).save(folder / "5.png")
    pictures[3].save(folder / "6.jpg", quality=90)
    names = [f"{i}.png" for i in range(6)] + ["6.jpg"]
    write_jsonl(tiny.train_file, [{"id": i, "text": f"row {i}", "images": [n]} for i, n in enumerate(names)])
    tiny.set({"task": None, "ops": {"text_length_filter": {}}, "dedup": {"images": "dhash"}})
    with (opened := open_study(tiny.study, 1)).store:
        assert told(opened) == {5: 1, 6: 3}
        assert {r.op for r in opened.duplicates()} == {"image_deduplicator"}


def test_hashes_are_those_of_imagededup() -> None:
    """Made once by imagededup 0.3.3 of the same picture."""
    picture = np.random.default_rng(5).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    made = {kind.__name__: kind().encode_image(image_array=picture) for kind in (PHash, AHash, DHash)}
    assert made == json.loads(Path(__file__).with_name("imagededup.json").read_text())


def test_a_study_without_images_says_so(tiny: Tiny) -> None:
    opened = text_study(tiny, ["a", "b"], {"images": "phash"})
    with opened.store, pytest.raises(DataError, match="no image"):
        _ = opened.scan


# --- in recipes ---


def recipe_of(*process: str) -> str:
    return "process:\n" + "".join(f"- {entry}\n" for entry in process)


def rows_kept(folder: Path, recipe: str, data: Path, **more: Any) -> list[int]:
    """Ids of the rows that `djsb apply` writes."""
    apply_recipe(recipe, "r.yaml", data, folder / "out.jsonl", root=folder, overwrite=True, **more)
    return [json.loads(line)["id"] for line in (folder / "out.jsonl").read_text().splitlines()]


@pytest.mark.long
@pytest.mark.slow
def test_deduplicators_of_a_recipe_keep_what_dj_process_keeps(tmp_path: Path) -> None:
    """After a filter that drops the first of some; texts too short for a shingle are all alike, as in Data-Juicer."""
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(40)]
    base = [" ".join(rng.choice(words, 30)) for _ in range(20)]
    texts = [*base, *(b.upper() for b in base[:6]), *(b + " more" for b in base[4:12]), "a b", "c d", "a  b", *base[:3]]
    texts[2] += " " * 9 + "x" * 300  # too long: the filter drops it
    rows = [{"id": i, "text": text} for i, text in enumerate(rng.permutation(texts).tolist())]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    recipe = recipe_of(
        "text_length_filter: {min_len: 1, max_len: 250}",
        "document_deduplicator: {lowercase: true}",
        "document_minhash_deduplicator: {jaccard_threshold: 0.6, window_size: 3, tokenization: space}",
    )
    kept = rows_kept(tmp_path, recipe, data, workers=2)
    assert kept == [row["id"] for row in dj_process(tmp_path, recipe, data)]
    assert 15 < len(kept) < 30
    done = apply_recipe(recipe, "r.yaml", data, tmp_path / "shards", root=tmp_path, shard_rows=7)
    assert done.alike == len(rows) - 1 - len(kept) and done.rows_out == len(kept)


def test_an_image_deduplicator_of_a_recipe(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(4):
        steps = rng.integers(1, 5, (8, 9)).cumsum(1) % 5 * 60
        Image.fromarray(steps.astype(np.uint8)).resize((144, 128), Image.Resampling.NEAREST).save(tmp_path / f"{i}.png")
    Image.open(tmp_path / "1.png").resize((72, 64)).save(tmp_path / "4.png")
    data = write_jsonl(tmp_path / "rows.jsonl", [{"id": i, "images": [f"{i}.png"]} for i in range(5)])
    recipe = "image_key: images\n" + recipe_of("image_deduplicator: {method: dhash}")
    assert rows_kept(tmp_path, recipe, data) == [0, 1, 2, 3]
