"""Every filter of Data-Juicer 1.6.1. Nothing outside this list is ever built or run.

Rates: CPU, one core, rows of a caption, an image of 224 px or a clip of two seconds (docs/guides/ops.md).
"""

from __future__ import annotations

from typing import Any

from engine.data.ops.contract import Bounds, Modality, Number, Op


def _op(
    name: str,
    modality: Modality,
    key: str,
    low: str | None,
    high: str | None,
    rate: float | None,
    number: Number = "float",
    **more: Any,
) -> Op:
    """An OP with one statistic; image and video statistics have one value per file."""
    listed = modality not in ("text", "row") or key in ("num_dependency_edges", "text_pair_similarity")
    says = {name: more.pop(name) for name in ("keeps", "check") if name in more}
    return Op(name + "_filter", modality, {key: Bounds(low, high, number, listed, **says)}, rate, **more)


def _shape(name: str, modality: Modality, prefix: str, rate: float, **more: Any) -> Op:
    sides = {
        f"{prefix}_{side}": Bounds(f"min_{side}", f"max_{side}", "int", list_valued=True)
        for side in ("width", "height")
    }
    return Op(name + "_filter", modality, sides, rate, **more)


_MARKED: dict[str, Any] = {"input_keys": "fields", "field_names": "words", "system_prompt": str}


def _asked(name: str, key: str, params: dict[str, Any] = _MARKED, **more: Any) -> Op:
    """An OP whose scores a language model's server gives."""
    params = {"api_or_hf_model": str, **params}
    return Op(
        name + "_filter", "text", {key: Bounds(None, None, keeps="nothing")}, None, asks=True, params=params, **more
    )


def _barred(name: str, modality: Modality, why: str, **more: Any) -> Op:
    """An OP that keeps rows by something else than a number of theirs."""
    return Op(name + "_filter", modality, {}, None, barred=why, **more)


_WORDS = {"lang": str, "tokenization": bool}
_FRAMES = {"frame_sampling_method": str, "frame_num": int}
_SPACY: dict[str, Any] = {
    "files": ("{lang}_core_web_md-3.7.0.tar.gz",),
    "packages": ("spacy",),
    "params": {"lang": str},
}
_SCORER: dict[str, Any] = {
    "model": "hf_scorer_model",
    "hub": "shunk031/aesthetics-predictor-v2-sac-logos-ava1-l14-linearMSE",
    "packages": ("aesthetics_predictor",),
}
_CLIP: dict[str, Any] = {"model": "hf_clip", "hub": "openai/clip-vit-base-patch32"}
_NSFW: dict[str, Any] = {"model": "hf_nsfw_model", "hub": "Falconsai/nsfw_image_detection"}
_WATERMARK: dict[str, Any] = {"model": "hf_watermark_model", "hub": "amrul-hzz/watermark_detector"}
_LANGUAGE_MODEL: dict[str, Any] = {"model": "hf_model", "hub": "Qwen/Qwen2.5-0.5B", "rare": True}
_TURNS = {"query_template": "template", "response_template": "template"}
_VIDEO = ("av",)
_FLOW: dict[str, Any] = {"packages": ("av", "cv2", "torchvision"), "params": {"sampling_fps": float}}
_FACES: dict[str, Any] = {"packages": ("cv2",), "rare": True}
_NO_AUDIO: dict[str, Any] = {"barred": "djsb reads no audio: no task trains on it", "packages": ("librosa",)}
OPS: dict[str, Op] = {
    op.name: op
    for op in (
        # text
        _op("alphanumeric", "text", "alnum_ratio", "min_ratio", "max_ratio", 144e3),
        _op("average_line_length", "text", "avg_line_length", "min_len", "max_len", 470e3, check="whole", rare=True),
        _op("character_repetition", "text", "char_rep_ratio", "min_ratio", "max_ratio", 72e3, params={"rep_len": int}),
        _op("flagged_words", "text", "flagged_words_ratio", "min_ratio", "max_ratio", 36e3, params=_WORDS, model="flagged_words_dir"),
        _op("in_context_influence", "text", "in_context_influence", "min_score", "max_score", 300, **_LANGUAGE_MODEL, params={"valid_dataset": "rows", "task_desc": str, "valid_as_demo": bool, "n_shot": int, **_TURNS}, required=("valid_dataset",)),
        _op("instruction_following_difficulty", "text", "ifd_score", "min_score", "max_score", 170, **_LANGUAGE_MODEL, params=_TURNS, required=("query_template", "response_template")),
        _op("language_id_score", "text", "lang_score", "min_score", None, 111e3, files=("lid.176.bin",), packages=("fasttext",)),
        _op("llm_perplexity", "text", "llm_perplexity", "min_score", "max_score", 330, **_LANGUAGE_MODEL, params=_TURNS),
        _op("maximum_line_length", "text", "max_line_length", "min_len", "max_len", 430e3, "int", rare=True),
        _op("perplexity", "text", "perplexity", "min_ppl", "max_ppl", 97e3, files=("{lang}.sp.model", "{lang}.arpa.bin"), packages=("sentencepiece", "kenlm"), params={"lang": str}),
        _op("special_characters", "text", "special_char_ratio", "min_ratio", "max_ratio", 260e3),
        _op("stopwords", "text", "stopwords_ratio", "min_ratio", "max_ratio", 57e3, params=_WORDS, model="stopwords_dir"),
        _op("text_action", "text", "num_action", "min_action_num", None, 150, "int", **_SPACY),
        _op("text_embd_similarity", "text", "text_embd_similarity", "min_score", "max_score", 320, check="none", model="api_or_hf_model", fixed={"is_hf_model": True}, params={"valid_dataset": "rows", "pooling": str, "input_template": "template"}, required=("valid_dataset",), rare=True),
        _op("text_entity_dependency", "text", "num_dependency_edges", "min_dependency_num", None, 100, "int", **_SPACY),
        _op("text_length", "text", "text_len", "min_len", "max_len", 412e3, "int"),
        _op("text_pair_similarity", "text", "text_pair_similarity", "min_score", "max_score", None, check="none", **_CLIP, params={"text_key_second": "field"}, required=("text_key_second",), rare=True),
        _op("token_num", "text", "num_token", "min_num", "max_num", 48e3, "int", model="hf_tokenizer", hub="EleutherAI/pythia-6.9b-deduped"),
        _op("words_num", "text", "num_words", "min_num", "max_num", 73e3, "int", params=_WORDS),
        _op("word_repetition", "text", "word_rep_ratio", "min_ratio", "max_ratio", 40e3, params={**_WORDS, "rep_len": int}),
        # text, by a language model's server
        _asked("llm_analysis", "llm_analysis_score"),
        _asked("llm_condition", "llm_condition_filter_result", params={"condition": str, "knowledge_grounding_fixed": str}, required=("condition",)),
        _asked("llm_difficulty_score", "llm_difficulty_score"),
        _asked("llm_quality_score", "llm_quality_score"),
        _asked("llm_task_relevance", "llm_task_relevance", params={**_MARKED, "valid_dataset": "rows", "task_desc": str, "n_shot": int}, required=("valid_dataset",)),
        # images
        _op("image_aesthetics", "image", "image_aesthetics_scores", "min_score", "max_score", 361, **_SCORER),
        _op("image_aspect_ratio", "image", "aspect_ratios", "min_ratio", "max_ratio", 3.2e3),
        _op("image_face_count", "image", "face_counts", "min_face_count", "max_face_count", None, "int", **_FACES),
        _op("image_face_ratio", "image", "face_ratios", "min_ratio", "max_ratio", None, **_FACES),
        _op("image_nsfw", "image", "image_nsfw_score", "min_score", "max_score", 410, **_NSFW),
        _op("image_pair_similarity", "image", "image_pair_similarity", "min_score", "max_score", None, check="none", **_CLIP, rare=True),
        _shape("image_shape", "image", "image", 2.7e3),
        _op("image_size", "image", "image_sizes", "min_size", "max_size", 122e3, "bytes"),
        _op("image_subplot", "image", "image_subplot_confidence", None, "min_confidence", None, keeps="below", packages=("cv2",), fixed={"min_horizontal_lines": 1, "min_vertical_lines": 1}, params={"hough_threshold": int, "min_line_length": int}, rare=True),
        _op("image_text_matching", "text+image", "image_text_matching_score", "min_score", "max_score", 108, model="hf_blip", hub="Salesforce/blip-itm-base-coco"),
        _op("image_text_similarity", "text+image", "image_text_similarity", "min_score", "max_score", 155, **_CLIP),
        _op("image_watermark", "image", "image_watermark_prob", None, "prob_threshold", 276, **_WATERMARK),
        _op("phrase_grounding_recall", "text+image", "phrase_grounding_recall", "min_recall", "max_recall", 46, model="hf_owlvit", hub="google/owlvit-base-patch32", packages=("nltk",)),
        # videos
        _op("video_aesthetics", "video", "video_frames_aesthetics_score", "min_score", "max_score", 89, **{**_SCORER, "packages": ("aesthetics_predictor", "av")}, params=_FRAMES),
        _op("video_aspect_ratio", "video", "video_aspect_ratios", "min_ratio", "max_ratio", 3.7e3, "ratio", packages=_VIDEO),
        _op("video_duration", "video", "video_duration", "min_duration", "max_duration", 3e3, packages=_VIDEO, fixed={"video_backend": "av"}),
        _op("video_face_ratio", "video", "video_face_exist", "threshold", None, None, keeps="at_least", packages=("av", "cv2", "dlib"), params={"detect_interval": int}, rare=True),
        _op("video_frames_text_similarity", "text+video", "video_frames_text_similarity", "min_score", "max_score", 99, **_CLIP, packages=_VIDEO, params=_FRAMES),
        _op("video_motion_score", "video", "video_motion_score", "min_score", "max_score", 3, packages=("av", "cv2"), params={"sampling_fps": float}),
        _op("video_motion_score_ptlflow", "video", "video_motion_score", "min_score", "max_score", None, **{**_FLOW, "packages": (*_FLOW["packages"], "ptlflow")}, rare=True),
        _op("video_motion_score_raft", "video", "video_motion_score", "min_score", "max_score", None, **_FLOW, rare=True),
        _op("video_nsfw", "video", "video_nsfw_score", "min_score", "max_score", 115, **_NSFW, packages=_VIDEO, params=_FRAMES, fixed={"video_backend": "av"}),
        _op("video_ocr_area_ratio", "video", "video_ocr_area_ratio", "min_area_ratio", "max_area_ratio", 2.7, packages=("av", "easyocr")),
        _shape("video_resolution", "video", "video", 3.2e3, packages=_VIDEO),
        _barred("video_tagging_from_frames", "video", "it keeps videos by tags of a model that it downloads, and gives no number", packages=("av", "ram", "torchvision")),
        _op("video_watermark", "video", "video_watermark_prob", None, "prob_threshold", 97, **_WATERMARK, packages=_VIDEO, params=_FRAMES),
        # audio
        _op("audio_duration", "audio", "audio_duration", "min_duration", "max_duration", None, "int", **_NO_AUDIO),
        _op("audio_nmf_snr", "audio", "audio_nmf_snr", "min_snr", "max_snr", None, **_NO_AUDIO, params={"nmf_iter_num": int}),
        _op("audio_size", "audio", "audio_sizes", "min_size", "max_size", None, "bytes", **{**_NO_AUDIO, "packages": ()}),
        # fields of the rows
        _op("general_field", "row", "general_field_filter_condition", None, None, 180e3, keeps="true", params={"filter_condition": "condition"}, required=("filter_condition",), rare=True),
        Op("specified_field_filter", "row", {}, None, params={"field_key": "field", "target_value": "words"}, required=("field_key", "target_value")),
        _op("specified_numeric_field", "row", "", "min_value", "max_value", 1.2e6, params={"field_key": "field"}, required=("field_key",), named_by="field_key", rare=True),
        _barred("suffix", "row", "it keeps rows by the suffix of a file, which only Data-Juicer's own reader of folders notes; specified_field_filter does the same by a field", params={"suffixes": "words"}, required=("suffixes",)),
    )
}  # fmt: skip
