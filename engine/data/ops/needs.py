"""Why an OP cannot run on this machine: packages, weights and files that are not there, each with the remedy."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.data.catalogue import get_op
from engine.data.ops import hub
from engine.data.ops.contract import MODELS_HOME, Op

NLTK_DATA = ("tokenizers/punkt_tab/english", "taggers/averaged_perceptron_tagger_eng")
OCR_WEIGHTS = "craft_mlt_25k.pth"
FACES = "haarcascade_frontalface_alt.xml"
RAFT = "raft_large_C_T_SKHT_V2-ff5fadd5.pth"
_PACKAGES = {
    "cv2": "opencv-python-headless",
    "fasttext": "fasttext-predict",
    "aesthetics_predictor": "simple-aesthetics-predictor",
}


def missing_needs(name: str, params: Mapping[str, Any]) -> str | None:
    """Why an OP cannot run here, with the remedy; None when it can. `params` as from `check_params`."""
    op = get_op(name)
    if op.barred:
        return op.barred
    absent = [p for p in op.packages if importlib.util.find_spec(p) is None]
    if absent:
        alone = "--no-deps " if "aesthetics_predictor" in absent else ""  # it asks for an old transformers
        return f"needs {', '.join(absent)}; pip install {alone}{' '.join(_PACKAGES.get(p, p) for p in absent)}"
    if params.get("tokenization"):
        return "tokenization: true would download a tokenizer; leave it out"
    if gone := [key for key in op.required if not params.get(key)]:
        return f"needs {' and '.join(f'ops.{name}.{key}' for key in gone)}; set it in the study"
    return (op.model and _no_model(op, params)) or _no_files(op, params)


def _no_model(op: Op, params: Mapping[str, Any]) -> str | None:
    """Why the weights that an OP loads are not usable."""
    assert op.model
    given = params.get(op.model)
    if given is None:
        return f"needs local weights; set ops.{op.name}.{op.model} to their folder"
    folder = hub.snapshot(given) or Path(given)
    if not folder.is_dir():
        if hub.NAME.fullmatch(given):
            what = f"{given} in the hub's local cache; run {hub.command(given)}"
            return f"needs local weights: {what}, or set ops.{op.name}.{op.model} to their folder"
        return f"{op.model}: {folder} is no folder; put the weights there"
    reason = _unusable(op.model, folder)
    return f"{op.model}: {reason}" if reason else None


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
    elif parameter == "api_or_hf_model" and _holds_code(folder):
        return f"{folder} holds code of its own (auto_map), which Data-Juicer would run; take a model without"
    return None


def _holds_code(folder: Path) -> bool:
    """True where a model's settings name code that lies beside them."""
    for file in folder.glob("*.json"):
        try:
            if "auto_map" in json.loads(file.read_text(encoding="utf-8")):
                return True
        except (OSError, ValueError):
            continue  # what cannot be read is told when the model is loaded
    return False


def _no_files(op: Op, params: Mapping[str, Any]) -> str | None:
    """Which files beside packages and weights an OP does not find."""
    if op.files:
        home = os.environ.get(MODELS_HOME)
        files = [f.format(lang=params.get("lang", "en")) for f in op.files]
        gone = [f for f in files if not home or not (Path(home) / f).exists()]
        if gone:
            return f"needs {', '.join(gone)}; put them in a folder and set {MODELS_HOME} to it"
    if "nltk" in op.packages and (absent := _gone_from_nltk()):
        return f"needs NLTK's {' and '.join(absent)}; put them in a folder and set NLTK_DATA to it"
    if "easyocr" in op.packages:
        home = os.environ.get("EASYOCR_MODULE_PATH")
        if not home or not (Path(home) / "model" / OCR_WEIGHTS).exists():
            return f"needs model/{OCR_WEIGHTS}; put it in a folder and set EASYOCR_MODULE_PATH to it"
    if "face" in op.name and "image" in op.modalities and not _has_faces():
        return f"needs OpenCV's {FACES}, which version 5 has not; pip install 'opencv-python-headless<5'"
    if "raft" in op.name and not (_torch_home() / "hub" / "checkpoints" / RAFT).is_file():
        return f"needs hub/checkpoints/{RAFT}; put it in a folder and set TORCH_HOME to it"
    if "ptlflow" in op.packages and not any((_torch_home() / "hub" / "checkpoints").glob("dpflow-things-*.ckpt")):
        return "needs hub/checkpoints/dpflow-things-….ckpt of ptlflow; put it in a folder and set TORCH_HOME to it"
    return None


def _has_faces() -> bool:
    spec = importlib.util.find_spec("cv2")
    return bool(spec and spec.origin and (Path(spec.origin).parent / "data" / FACES).is_file())


def _torch_home() -> Path:
    return Path(os.environ.get("TORCH_HOME") or "~/.cache/torch").expanduser()


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
