"""Every OP that runs offline does, with local weights: tiny ones of the right architecture."""

from __future__ import annotations

import importlib.util
import inspect
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.base.errors import OpError
from engine.data.catalogue import as_built, check_params
from engine.data.datajuicer import load_op
from engine.data.ops.contract import MODELS_HOME
from engine.data.ops.needs import missing_needs
from engine.data.ops.table import OPS
from engine.study.opened import open_study
from tests.conftest import write_jsonl
from tests.engine.data import tiny_models

pytest.importorskip("av")
# the first has weights that are checked against a sum, so that no tiny ones can stand in; one package of the others is
# not installed; the last three need two images a row, or the place of another OP's statistic
LEFT_OUT = {
    "video_ocr_area_ratio_filter", "image_face_count_filter", "image_face_ratio_filter", "video_face_ratio_filter",
    "image_pair_similarity_filter", "video_motion_score_raft_filter", "video_motion_score_ptlflow_filter",
} | {name for name, op in OPS.items() if op.asks or op.barred or not op.statistics}  # fmt: skip
if importlib.util.find_spec("aesthetics_predictor") is None:  # installed by hand, without what it asks for
    LEFT_OUT |= {"image_aesthetics_filter", "video_aesthetics_filter"}
TEXTS = ("a dog", "a dog sees the red cat", "The car, of 12 hund hund")
FOLDERS: dict[str, Callable[[Path], Any]] = {
    "clip": tiny_models.clip, "blip": tiny_models.blip, "owlvit": tiny_models.owlvit, "tokenizer": tiny_models.bpe,
    "nsfw": lambda f: tiny_models.classifier(f, 1), "watermark": lambda f: tiny_models.classifier(f, 2),
    "words": tiny_models.word_lists, "lm": tiny_models.causal, "home": tiny_models.home,
    "predictor-v2-linear": tiny_models.aesthetics,
}  # fmt: skip
MODELS = {
    "hf_clip": "clip", "hf_blip": "blip", "hf_owlvit": "owlvit", "hf_tokenizer": "tokenizer", "hf_nsfw_model": "nsfw",
    "hf_watermark_model": "watermark", "flagged_words_dir": "words", "stopwords_dir": "words",
    "hf_scorer_model": "predictor-v2-linear", "hf_model": "lm", "api_or_hf_model": "lm",
}  # fmt: skip


def frames(moving: bool, n: int = 16, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """A bright square on a grey ground, which goes to the right or stays."""
    found = []
    for i in range(n):
        picture = np.full((height, width, 3), 60, np.uint8)
        left = 4 + (3 * i if moving else 0)
        picture[16:32, left : left + 12] = 230
        found.append(picture)
    return found


def write_clip(file: Path, pictures: list[np.ndarray], rate: int = 8) -> None:
    import av

    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


ROOT = Path(__file__).parents[3]
VALID = [{"text": "a red car"}, {"text": "the dog"}]
PARAMS: dict[str, dict[str, Any]] = {
    "instruction_following_difficulty_filter": {"query_template": "{other}", "response_template": "{text}"},
    "in_context_influence_filter": {"valid_dataset": VALID}, "text_embd_similarity_filter": {"valid_dataset": VALID},
    "text_pair_similarity_filter": {"text_key_second": "other"},
    "specified_numeric_field_filter": {"field_key": "score"},
    "general_field_filter": {"filter_condition": "score > 1 and other != 'x'"},
}  # fmt: skip
COMPUTE = """
import sys
from pathlib import Path
from engine.base import parallel
from engine.study.opened import open_study
parallel.PRELOAD.append("transformers.models.clip.modeling_clip")  # once, not for every OP with a model
with (opened := open_study(Path(sys.argv[1]), 1)).store:
    opened.statistic_columns
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weights")
    for name, make in FOLDERS.items():
        if name != "predictor-v2-linear" or "image_aesthetics_filter" not in LEFT_OUT:
            (root / name).mkdir()
            make(root / name)
    tiny_models.nltk_data(root / "nltk")
    return root


@pytest.fixture(scope="module")
def values(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Statistic → its values on three rows, each with a text, an image and a clip."""
    import yaml

    study = tmp_path_factory.mktemp("ops")
    rng = np.random.default_rng(0)
    clips = (frames(False), frames(True), frames(True, 40, 48, 64))
    for i, clip in enumerate(clips):
        Image.fromarray(rng.integers(0, 255, (20, 30 + i, 3), dtype=np.uint8)).save(study / f"{i}.png")
        write_clip(study / f"{i}.mp4", clip)
    rows = [
        {"id": i, "text": t, "images": [f"{i}.png"], "videos": [f"{i}.mp4"], "other": "the cat", "score": i + 0.5}
        for i, t in enumerate(TEXTS)
    ]
    write_jsonl(study / "rows.jsonl", rows)
    ops = {
        name: {**({op.model: str(weights / MODELS[op.model])} if op.model else {}), **PARAMS.get(name, {})}
        for name, op in OPS.items() if name not in LEFT_OUT
    }  # fmt: skip
    for name in ("video_nsfw_filter", "video_watermark_filter", "video_frames_text_similarity_filter"):
        ops[name] |= {"frame_sampling_method": "uniform", "frame_num": 2}
    fields = {"path": "rows.jsonl", "images": "images", "videos": "videos", "id": "id"}
    content = {"name": "all", "dataset": fields, "pools": {"buckets": 2}, "ops": ops}
    (study / "study.yaml").write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODELS_HOME, str(weights / "home"))
        patch.setenv("NLTK_DATA", str(weights / "nltk"))
        patch.setattr("nltk.data.path", [str(weights / "nltk")])
        # Data-Juicer reads the folder when it is imported, so a process of its own computes them
        done = subprocess.run(
            [sys.executable, "-c", COMPUTE, str(study)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        with (opened := open_study(study, 1)).store:
            assert not opened.op_plan[1]
            found = {c.statistic: c.column.value for c in opened.statistic_columns}
            unreadable = opened.store.query("SELECT u.row, u.reason, s.op FROM unreadable u JOIN statistics s "
                                            "ON s.id = u.statistic")  # fmt: skip
    long = [u for u in unreadable if u["op"] == "text_pair_similarity_filter" and u["row"] == 2]  # it cuts nothing off
    assert unreadable == long, (unreadable, done.stderr[-500:])
    return {**found, "folder": study}


def test_every_op_has_a_number_for_every_row(values: dict[str, Any]) -> None:
    wanted = {s or "score" for name, op in OPS.items() if name not in LEFT_OUT for s in op.statistics}
    assert wanted == set(values) - {"folder"}
    assert all(np.isfinite(values[s]).all() for s in wanted - {"text_pair_similarity"})


def test_statistics_of_later_filters_are_those_of_the_rows(values: dict[str, Any]) -> None:
    assert values["score"].tolist() == [0.5, 1.5, 2.5]
    assert values["general_field_filter_condition"].tolist() == [0, 1, 1]
    assert values["avg_line_length"].tolist() == values["max_line_length"].tolist() == [len(t) for t in TEXTS]
    assert (values["llm_perplexity"] > 1).all()
    assert (np.abs(values["text_pair_similarity"][:2]) <= 1).all()
    assert values["image_subplot_confidence"].tolist() == [0, 0, 0]


def test_pairs_of_images_and_subplots(weights: Path, tmp_path: Path) -> None:
    grid = np.full((320, 320), 255, np.uint8)
    for at in (20, 100, 180, 260):
        grid[at : at + 2, 10:310] = grid[10:310, at : at + 2] = 0
    Image.fromarray(grid).save(tmp_path / "grid.png")
    Image.fromarray(np.full_like(grid, 90)).save(tmp_path / "plain.png")
    pair = [str(tmp_path / name) for name in ("grid.png", "plain.png")]

    def stats(name: str, params: dict[str, Any]) -> dict[str, Any]:
        op = load_op(name, check_params(name, params))
        batch = {"images": [pair], "text": [""], "__dj__stats__": [{}], "__dj__context__": [{}]}
        return op.compute_stats_batched(batch)["__dj__stats__"][0]

    lines = stats("image_subplot_filter", {})["image_subplot_confidence"]
    assert lines[0] > 0.5 and lines[1] == 0  # OpenCV 5's form of lines is mended
    similar = stats("image_pair_similarity_filter", {"hf_clip": str(weights / "clip")})["image_pair_similarity"]
    assert -1 <= float(np.asarray(similar)[0]) <= 1


def test_the_catalogue_has_every_filter_of_the_installed_data_juicer() -> None:
    from engine.data import datajuicer

    datajuicer.prepare()
    import data_juicer.ops.filter  # noqa: F401
    from data_juicer.ops import OPERATORS

    installed = {name for name in OPERATORS.modules if name.endswith("_filter")}
    missing, gone = sorted(installed - OPS.keys()), sorted(OPS.keys() - installed)
    assert not missing, f"not in the catalogue: {', '.join(missing)}"
    assert not gone, f"in the catalogue and not in Data-Juicer {datajuicer.version()}: {', '.join(gone)}"
    for name, op in OPS.items():
        known = set()
        for kind in OPERATORS.modules[name].__mro__:
            known |= set(inspect.signature(kind.__init__).parameters)
        ends = {end for bounds in op.statistics.values() for end in (bounds.low, bounds.high) if end}
        named = {*op.params, *op.fixed, *ends, *([op.model] if op.model else [])}
        assert named <= known, f"{name}: Data-Juicer does not take {', '.join(sorted(named - known))}"


def test_weights_are_found_in_the_local_hub_by_data_juicers_name(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, op = "image_text_similarity_filter", "openai/clip-vit-base-patch32"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    params = check_params(name, {})
    assert params == {"hf_clip": op}
    assert f"hf download {op}" in (missing_needs(name, params) or "")
    folder = tmp_path / "models--openai--clip-vit-base-patch32"
    (folder / "refs").mkdir(parents=True)
    (folder / "snapshots").mkdir()
    (folder / "refs/main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).symlink_to(weights / "clip")
    assert missing_needs(name, params) is None
    assert as_built(name, params)["hf_clip"] == str(folder / "snapshots" / ("0" * 40))
    assert load_op(name, params).compute_stats_batched
    assert check_params(name, {"hf_clip": str(weights / "clip")})["hf_clip"] == str(weights / "clip")
    assert "no folder" in (missing_needs(name, check_params(name, {"hf_clip": "../no"}, tmp_path)) or "")


def test_text_statistics_are_those_of_the_local_models(values: dict[str, Any]) -> None:
    assert values["flagged_words_ratio"].tolist() == pytest.approx([1 / 2, 1 / 6, 0])
    assert values["stopwords_ratio"].tolist() == pytest.approx([1 / 2, 2 / 6, 2 / 5])  # a number is no word
    assert values["num_action"].tolist() == [0, 1, 0]
    assert values["num_dependency_edges"][1] == pytest.approx(1.5)  # the dog has its article and the verb, the cat one
    # "a dog": p(a) p(dog | a) p(end), three tokens
    assert values["perplexity"][0] == pytest.approx(10 ** ((0.5 + 0.25 + 0.5) / 3), abs=0.05)
    # mean of the words' vectors and the end's, through a softmax of two languages
    sigmoid = [1 / (1 + math.exp(-2 * x)) for x in (2 / 2, 6 / 4, 2 / 4)]
    assert values["lang_score"].tolist() == pytest.approx(sigmoid, abs=1e-4)
    assert values["num_token"][0] < values["num_token"][1]


def test_image_statistics_are_what_the_models_themselves_say(values: dict[str, Any], weights: Path) -> None:
    import torch
    from transformers import (
        AutoProcessor,
        BlipForImageTextRetrieval,
        CLIPModel,
        ViTForImageClassification,
        ViTImageProcessor,
    )

    pictures = [Image.open(values["folder"] / f"{i}.png").convert("RGB") for i in range(3)]
    with torch.inference_mode():
        for name, key in (("nsfw", "image_nsfw_score"), ("watermark", "image_watermark_prob")):
            inputs = ViTImageProcessor.from_pretrained(weights / name)(pictures, return_tensors="pt")
            right = ViTForImageClassification.from_pretrained(weights / name)(**inputs).logits.softmax(-1)[:, 1]
            assert values[key] == pytest.approx(right.numpy(), abs=1e-5)
        model, processor = CLIPModel.from_pretrained(weights / "clip"), AutoProcessor.from_pretrained(weights / "clip")
        for i, text in enumerate(TEXTS):
            out = model(**processor(text=[" " + text], images=[pictures[i]], return_tensors="pt", truncation=True))
            scaled = float(out.logits_per_image) / 100  # the cosine, where the scale is 100 as in all trained ones
            assert values["image_text_similarity"][i] == pytest.approx(scaled, abs=1e-4)
        blip, processor = (k.from_pretrained(weights / "blip") for k in (BlipForImageTextRetrieval, AutoProcessor))
        score = blip(**processor(text=TEXTS[1], images=pictures[1], return_tensors="pt")).itm_score.softmax(-1)[0, 1]
        assert values["image_text_matching_score"][1] == pytest.approx(float(score), abs=1e-4)
    assert set(values["phrase_grounding_recall"].tolist()) <= {0, 0.5, 1}
    assert values["image_width"].tolist() == [30, 31, 32]


def test_video_statistics_are_those_of_the_clips(values: dict[str, Any], weights: Path) -> None:
    import torch
    from transformers import ViTForImageClassification, ViTImageProcessor

    assert values["video_width"].tolist() == [64, 64, 48]
    assert values["video_height"].tolist() == [48, 48, 64]
    assert values["video_aspect_ratios"].tolist() == pytest.approx([4 / 3, 4 / 3, 3 / 4])
    assert values["video_duration"].tolist() == pytest.approx([2, 2, 5], abs=0.3)
    still, slow, _ = values["video_motion_score"]
    assert still < 0.01 < slow
    with torch.inference_mode():  # the clip that stands still scores as its one picture does
        inputs = ViTImageProcessor.from_pretrained(weights / "nsfw")(frames(False, 1), return_tensors="pt")
        right = ViTForImageClassification.from_pretrained(weights / "nsfw")(**inputs).logits.softmax(-1)[0, 1]
    assert values["video_nsfw_score"][0] == pytest.approx(float(right), abs=2e-3)
    assert all(-1 <= v <= 1 for v in values["video_frames_text_similarity"])


@pytest.mark.skipif("image_aesthetics_filter" in LEFT_OUT, reason="simple-aesthetics-predictor is not installed")
def test_aesthetics_are_the_predictors_score_over_ten_only_for_its_published_name(values: dict[str, Any]) -> None:
    assert values["image_aesthetics_scores"].std() > 0
    assert len(values["video_frames_aesthetics_score"]) == 3


def test_what_is_missing_is_named_before_anything_runs(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODELS_HOME, str(weights / "home"))

    def why(name: str, **params: Any) -> str | None:
        return missing_needs(name, check_params(name, params, weights))

    assert why("perplexity_filter") is None
    assert "de.sp.model, de.arpa.bin" in (why("perplexity_filter", lang="de") or "")
    assert "zh_core_web_md-3.7.0.tar.gz" in (why("text_action_filter", lang="zh") or "")
    assert "*stopwords*.json" in (why("stopwords_filter", stopwords_dir="clip") or "")
    assert "v2…linear" in (why("image_aesthetics_filter", hf_scorer_model="clip") or "aesthetics") or LEFT_OUT
    monkeypatch.setattr("nltk.data.path", [])
    assert "punkt_tab" in (why("phrase_grounding_recall_filter", hf_owlvit="owlvit") or "")


def test_nothing_is_fetched_for_weights_that_are_broken(tmp_path: Path) -> None:
    with pytest.raises(OpError, match="would download"):  # its list would be downloaded
        load_op("flagged_words_filter", {"flagged_words_dir": str(tmp_path)})
    assert not list(tmp_path.iterdir())
