"""What a metric's name says of its direction."""

from __future__ import annotations

import pytest

from engine.records.metric import direction


@pytest.mark.parametrize(
    "name",
    [
        "loss", "val/loss", "eval_loss", "evalLoss", "log_perplexity", "PPL", "nll", "negative_log_likelihood", "FID",
        "fid50k", "fvd", "kid", "wer", "CER", "ter", "mse", "RMSE", "mae", "bpb", "bits_per_byte", "cross_entropy",
        "word.error.rate", "top1_error", "inv_psnr",
    ],
)  # fmt: skip
def test_lower(name: str) -> None:
    assert direction(name) is False


@pytest.mark.parametrize(
    "name",
    [
        "acc", "Accuracy", "mme_accuracy", "f1", "macro-F1", "bleu_4", "BLEU", "rougeL", "mAP", "mIoU",
        "image_to_text_r1", "likelihood", "neg_mean_squared_error", "neg_loss", "cider", "exact_match", "pass@1",
        "recall@10",
    ],
)  # fmt: skip
def test_higher(name: str) -> None:
    assert direction(name) is True


@pytest.mark.parametrize("name", ["a", "score", "quality", "accuracy_loss", "steps", "glossary", "closser", ""])
def test_neither_or_both(name: str) -> None:
    assert direction(name) is None
