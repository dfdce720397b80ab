"""The operators of the paper's Table 4: their statistics, bounds, modality, cost and needs.

The only list of OPs that a study or a recipe may name. Nothing outside it is ever built or run.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.base.errors import OpError

Number = Literal["float", "int", "bytes", "ratio"]
MODELS_HOME = "DATA_JUICER_EXTERNAL_MODELS_HOME"
NLTK_DATA = ("tokenizers/punkt_tab/english", "taggers/averaged_perceptron_tagger_eng")
OCR_WEIGHTS = "craft_mlt_25k.pth"
IMAGE_TOKEN, VIDEO_TOKEN = "<__dj__image>", "<__dj__video>"


@dataclass(frozen=True)
class Bounds:
    """How a filter's parameters bound one of its statistics.

    low, high: parameter names, None where the OP has no such bound. number: how a bound is
    written (`bytes` is a string of digits, `ratio` a string a/b). list_valued: one value per image or video.
    """

    low: str | None
    high: str | None
    number: Number = "float"
    list_valued: bool = False


@dataclass(frozen=True)
class Op:
    """One Data-Juicer filter.

    statistics: stats key → how it is bounded. rate: rows per second measured on one core.
    model: parameter that takes a local folder, or None. files: what must lie in MODELS_HOME, {lang} being that parameter.
    packages: importable names that it needs beyond the base installation.
    params: extra parameters that a study may set, with their type.
    """

    name: str
    modality: Literal["text", "image", "video", "text+image", "text+video"]
    statistics: Mapping[str, Bounds]
    rate: float
    model: str | None = None
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    params: Mapping[str, type] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def modalities(self) -> frozenset[str]:
        """The fields that it reads: text, image, video."""
        return frozenset(self.modality.split("+"))


def _op(
    name: str,
    modality: Any,
    key: str,
    low: str | None,
    high: str | None,
    rate: float,
    number: Number = "float",
    **more: Any,
) -> Op:
    """An OP with one statistic; image and video statistics have one value per file."""
    bounds = Bounds(low, high, number, list_valued=modality != "text" or key == "num_dependency_edges")
    return Op(name + "_filter", modality, {key: bounds}, rate, **more)


def _shape(name: str, modality: Any, prefix: str, rate: float, **more: Any) -> Op:
    sides = {
        f"{prefix}_{side}": Bounds(f"min_{side}", f"max_{side}", "int", list_valued=True)
        for side in ("width", "height")
    }
    return Op(name + "_filter", modality, sides, rate, **more)


_WORDS = {"lang": str, "tokenization": bool}
_FRAMES = {"frame_sampling_method": str, "frame_num": int}
_SPACY: dict[str, Any] = {
    "files": ("{lang}_core_web_md-3.7.0.tar.gz",),
    "packages": ("spacy",),
    "params": {"lang": str},
}
_SCORER: dict[str, Any] = {"model": "hf_scorer_model", "packages": ("aesthetics_predictor",)}
_VIDEO = ("av",)
OPS: dict[str, Op] = {
    op.name: op
    for op in (
        _op("alphanumeric", "text", "alnum_ratio", "min_ratio", "max_ratio", 144e3),
        _op("character_repetition", "text", "char_rep_ratio", "min_ratio", "max_ratio", 72e3, params={"rep_len": int}),
        _op("flagged_words", "text", "flagged_words_ratio", "min_ratio", "max_ratio", 36e3, params=_WORDS, model="flagged_words_dir"),
        _op("image_aesthetics", "image", "image_aesthetics_scores", "min_score", "max_score", 361, **_SCORER),
        _op("image_aspect_ratio", "image", "aspect_ratios", "min_ratio", "max_ratio", 3.2e3),
        _op("image_nsfw", "image", "image_nsfw_score", "min_score", "max_score", 410, model="hf_nsfw_model"),
        _shape("image_shape", "image", "image", 2.7e3),
        _op("image_size", "image", "image_sizes", "min_size", "max_size", 122e3, "bytes"),
        _op("image_text_matching", "text+image", "image_text_matching_score", "min_score", "max_score", 108, model="hf_blip"),
        _op("image_text_similarity", "text+image", "image_text_similarity", "min_score", "max_score", 155, model="hf_clip"),
        _op("image_watermark", "image", "image_watermark_prob", None, "prob_threshold", 276, model="hf_watermark_model"),
        _op("language_id_score", "text", "lang_score", "min_score", None, 111e3, files=("lid.176.bin",), packages=("fasttext",)),
        _op("perplexity", "text", "perplexity", "min_ppl", "max_ppl", 97e3, files=("{lang}.sp.model", "{lang}.arpa.bin"), packages=("sentencepiece", "kenlm"), params={"lang": str}),
        _op("phrase_grounding_recall", "text+image", "phrase_grounding_recall", "min_recall", "max_recall", 46, model="hf_owlvit", packages=("nltk",)),
        _op("special_characters", "text", "special_char_ratio", "min_ratio", "max_ratio", 260e3),
        _op("stopwords", "text", "stopwords_ratio", "min_ratio", "max_ratio", 57e3, params=_WORDS, model="stopwords_dir"),
        _op("text_action", "text", "num_action", "min_action_num", None, 150, "int", **_SPACY),
        _op("text_entity_dependency", "text", "num_dependency_edges", "min_dependency_num", None, 100, "int", **_SPACY),
        _op("text_length", "text", "text_len", "min_len", "max_len", 412e3, "int"),
        _op("token_num", "text", "num_token", "min_num", "max_num", 48e3, "int", model="hf_tokenizer"),
        _op("video_aesthetics", "video", "video_frames_aesthetics_score", "min_score", "max_score", 89, **{**_SCORER, "packages": ("aesthetics_predictor", "av")}, params=_FRAMES),
        _op("video_aspect_ratio", "video", "video_aspect_ratios", "min_ratio", "max_ratio", 3.7e3, "ratio", packages=_VIDEO),
        _op("video_duration", "video", "video_duration", "min_duration", "max_duration", 3e3, packages=_VIDEO, fixed={"video_backend": "av"}),
        _op("video_frames_text_similarity", "text+video", "video_frames_text_similarity", "min_score", "max_score", 99, model="hf_clip", packages=_VIDEO, params=_FRAMES),
        _op("video_motion_score", "video", "video_motion_score", "min_score", "max_score", 3, packages=("av", "cv2"), params={"sampling_fps": float}),
        _op("video_nsfw", "video", "video_nsfw_score", "min_score", "max_score", 115, model="hf_nsfw_model", packages=_VIDEO, params=_FRAMES, fixed={"video_backend": "av"}),
        _op("video_ocr_area_ratio", "video", "video_ocr_area_ratio", "min_area_ratio", "max_area_ratio", 2.7, packages=("av", "easyocr")),
        _shape("video_resolution", "video", "video", 3.2e3, packages=_VIDEO),
        _op("video_watermark", "video", "video_watermark_prob", None, "prob_threshold", 97, model="hf_watermark_model", packages=_VIDEO, params=_FRAMES),
        _op("words_num", "text", "num_words", "min_num", "max_num", 73e3, "int", params=_WORDS),
        _op("word_repetition", "text", "word_rep_ratio", "min_ratio", "max_ratio", 40e3, params={**_WORDS, "rep_len": int}),
    )
}  # fmt: skip


def get_op(name: str) -> Op:
    """The OP of that name.

    Raises: OpError that names the nearest known one.
    """
    if name in OPS:
        return OPS[name]
    import difflib

    near = difflib.get_close_matches(name, OPS, n=1)
    hint = f"; did you mean {near[0]}?" if near else "; docs/guides/ops.md lists the known ones"
    raise OpError(f"unknown OP {name!r}{hint}")


def check_params(name: str, params: Mapping[str, Any], root: Path | None = None) -> dict[str, Any]:
    """Parameters as Data-Juicer gets them: known names, right types, model folders as absolute paths.

    root: folder that relative model paths start from.
    Raises: OpError that names the OP, the parameter and what it takes.
    """
    op = get_op(name)
    checked: dict[str, Any] = dict(op.fixed)
    for key, value in params.items():
        if key in op.fixed and value == op.fixed[key]:
            continue  # a statistic's own parameters come back with it
        if key == op.model:
            if not isinstance(value, str):
                raise OpError(f"{name}: {key} takes the path of a local folder, not {value!r}")
            checked[key] = str(((root or Path()) / Path(value).expanduser()).resolve())
            continue
        kind = op.params.get(key)
        if kind is None:
            allowed = [*op.params, *([op.model] if op.model else [])]
            raise OpError(f"{name}: unknown parameter {key!r}; it takes {', '.join(allowed) or 'none'}")
        if isinstance(value, bool) is not (kind is bool) or not isinstance(value, int if kind is float else kind) | (
            kind is float and isinstance(value, float)
        ):
            raise OpError(f"{name}: {key} takes {kind.__name__}, not {value!r}")
        if kind is not bool and kind is not str and value <= 0:
            raise OpError(f"{name}: {key} must be above 0, not {value!r}")
        checked[key] = value
    return checked


def missing_needs(name: str, params: Mapping[str, Any]) -> str | None:
    """Why an OP cannot run here, with the remedy; None when it can. `params` as from `check_params`."""
    op = get_op(name)
    absent = [p for p in op.packages if importlib.util.find_spec(p) is None]
    if absent:
        names = {
            "cv2": "opencv-python-headless",
            "fasttext": "fasttext-predict",
            "aesthetics_predictor": "simple-aesthetics-predictor",
        }
        alone = "--no-deps " if "aesthetics_predictor" in absent else ""  # it asks for an old transformers
        return f"needs {', '.join(absent)}; pip install {alone}{' '.join(names.get(p, p) for p in absent)}"
    if params.get("tokenization"):
        return "tokenization: true would download a tokenizer; leave it out"
    if op.model:
        folder = params.get(op.model)
        if folder is None:
            return f"needs local weights; set ops.{name}.{op.model} to their folder"
        if not Path(folder).is_dir():
            return f"{op.model}: {folder} is no folder; put the weights there"
        if reason := _unusable(op.model, Path(folder)):
            return f"{op.model}: {reason}"
    if op.files:
        home = os.environ.get(MODELS_HOME)
        files = [f.format(lang=params.get("lang", "en")) for f in op.files]
        gone = [f for f in files if not home or not (Path(home) / f).exists()]
        if gone:
            return f"needs {', '.join(gone)}; put them in a folder and set {MODELS_HOME} to it"
    if "nltk" in op.packages and (gone := _gone_from_nltk()):
        return f"needs NLTK's {' and '.join(gone)}; put them in a folder and set NLTK_DATA to it"
    if "easyocr" in op.packages:
        home = os.environ.get("EASYOCR_MODULE_PATH")
        if not home or not (Path(home) / "model" / OCR_WEIGHTS).exists():
            return f"needs model/{OCR_WEIGHTS}; put it in a folder and set EASYOCR_MODULE_PATH to it"
    return None


def _unusable(parameter: str, folder: Path) -> str | None:
    """Why a folder does not hold what an OP's parameter means, as far as its names tell, or None."""
    if parameter in ("flagged_words_dir", "stopwords_dir"):
        kind = parameter.removesuffix("_dir")
        if not any(f.suffix == ".json" and kind in f.name for f in folder.iterdir()):
            return f"{folder} holds no *{kind}*.json with lists of words by language"
    elif parameter == "hf_scorer_model":
        path = str(folder)  # Data-Juicer chooses the class by the whole path
        kinds = [k for k in ("v1", "linear", "relu") if k in path]
        if len(kinds) != 1 or (kinds != ["v1"] and "v2" not in path):
            return f"{folder} must have one of v1, v2…linear or v2…relu in its path, which names the kind of predictor"
    return None


def _gone_from_nltk() -> list[str]:
    """Of the data that phrases are found with, what NLTK does not have here."""
    import nltk

    gone = []
    for path in NLTK_DATA:
        try:
            nltk.data.find(path)
        except LookupError:
            gone.append(path)
    return gone


def ops_for(modalities: frozenset[str]) -> list[Op]:
    """The OPs whose fields are all there, cheapest first."""
    return sorted((op for op in OPS.values() if op.modalities <= modalities), key=lambda op: -op.rate)


# mappers that a proposal may name, with the parameters that it may set; what a type cannot say stays out
MAPPERS: dict[str, Mapping[str, type]] = {
    "clean_copyright_mapper": {},
    "clean_email_mapper": {},
    "clean_html_mapper": {},
    "clean_ip_mapper": {},
    "clean_links_mapper": {},
    "fix_unicode_mapper": {},
    "image_captioning_mapper": {"hf_img2seq": Path, "caption_num": int, "prompt": str},
    "image_diffusion_mapper": {"hf_diffusion": Path, "strength": float, "guidance_scale": float},
    "punctuation_normalization_mapper": {},
    "remove_long_words_mapper": {"min_len": int, "max_len": int},
    "remove_specific_chars_mapper": {"chars_to_remove": str},
    "whitespace_normalization_mapper": {},
}

# fixed parameters: one output row for each input row, and no second model
MAPPERS_FIXED: dict[str, Mapping[str, Any]] = {
    "image_captioning_mapper": {"keep_original_sample": False},
    "image_diffusion_mapper": {"keep_original_sample": False, "aug_num": 1},
}
MAPPERS_PACKAGES = {
    "clean_html_mapper": "selectolax", "fix_unicode_mapper": "ftfy", "image_diffusion_mapper": "diffusers",
}  # fmt: skip


def mapper_fields(name: str) -> tuple[frozenset[str], str]:
    """(modalities that a mapper reads, the one that it changes)."""
    if name == "image_diffusion_mapper":
        return frozenset({"text", "image"}), "image"
    return frozenset({"image", "text"} if name == "image_captioning_mapper" else {"text"}), "text"


def mapper_model(name: str) -> str | None:
    """The parameter of a mapper that takes a model's folder, or None."""
    return next((key for key, kind in MAPPERS[name].items() if kind is Path), None)


def mapper_needs(name: str, params: Mapping[str, Any]) -> str | None:
    """Why a mapper cannot run here, with the remedy; None when it can. `params` as from `check_mapper`."""
    package = MAPPERS_PACKAGES.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        return f"needs {package}; pip install {package}"
    model = mapper_model(name)
    if model is None:
        return None
    folder = params.get(model)
    if folder is None:
        return f"needs local weights; set {model} to their folder"
    wanted = "model_index.json" if name == "image_diffusion_mapper" else "config.json"
    if not (Path(folder) / wanted).is_file():
        return f"{model}: {folder} holds no {wanted}; put the weights there"
    return None


def check_mapper(name: str, params: Mapping[str, Any], root: Path, anywhere: bool = False) -> dict[str, Any]:
    """Parameters of a mapper on the allowlist; model folders as absolute paths inside the study's folder `root`.

    anywhere: they may lie elsewhere on this machine, as in a recipe that a person applies.
    Raises: OpError for any other OP or parameter, a value of another type, and a path that leads out of the study.
    """
    if name not in MAPPERS:
        raise OpError(f"OP {name!r} is not on the list of mappers; it has {', '.join(MAPPERS)}")
    checked: dict[str, Any] = {}
    for key, value in params.items():
        kind = MAPPERS[name].get(key)
        if kind is None:
            raise OpError(f"{name}: parameter {key!r} may not be set; it takes {', '.join(MAPPERS[name]) or 'none'}")
        accepted: Any = {Path: str, float: (int, float)}.get(kind, kind)
        if isinstance(value, bool) or not isinstance(value, accepted):
            raise OpError(f"{name}: {key} takes {'a local path' if kind is Path else kind.__name__}, not {value!r:.80}")
        if isinstance(value, str) and len(value) > 500:
            raise OpError(f"{name}: {key} is {len(value)} characters long, and may be 500")
        if kind in (int, float) and not 0 < value < 1e6:
            raise OpError(f"{name}: {key} must be above 0 and below a million, not {value}")
        if key == "strength" and value > 1:
            raise OpError(f"{name}: strength must be at most 1, not {value}")
        if kind is Path:
            checked[key] = str((root / Path(value).expanduser()).resolve() if anywhere else inside(root, value))
        else:
            checked[key] = value
    return checked


def inside(root: Path, path: str) -> Path:
    """A path that someone else wrote, which must stay in the study's folder `root`.

    Raises: OpError for an absolute path, a URL, and one that leads out of it, also by a link.
    """
    plain = "://" not in path and "\0" not in path and not Path(path).is_absolute() and not path.startswith("~")
    if plain and (found := (root / path).resolve()).is_relative_to(root.resolve()):
        return found
    raise OpError(f"path {path!r:.80} leads out of the study; give one inside its folder")


NATURAL_MAX = {
    "float": sys.float_info.max,
    "int": sys.maxsize,
    "bytes": "1000000TB",
    "ratio": f"{sys.maxsize}/1",
}
