"""A metric with its direction and scale."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

LOWER = frozenset(
    """
    bpb bpc bpd brier cer crps distance divergence ece eer entropy epe err error errors fad fid fvd hter kid kl lpips
    loss losses mae mape mse nll perplexity ppl rmse smape ter wer xent
    """.split()  # noqa: SIM905
)
HIGHER = frozenset(
    """
    acc accuracy ap auc auprc auroc bleu chrf cider comet correlation dice elo em exact f hits iou kappa likelihood map
    match mcc meteor miou mrr ndcg pass pearson precision psnr r recall reward rouge similarity spearman spice ssim
    success win
    """.split()  # noqa: SIM905
)
TURNS = frozenset({"inv", "inverse", "neg", "negative", "minus"})
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


@dataclass(frozen=True)
class Metric:
    """A score of a reference model.

    higher_is_better: its direction. low, high: its scale, the values it can take. main: counts in the
    ranking unless the study names others.
    """

    name: str
    higher_is_better: bool
    low: float
    high: float
    main: bool = True

    @property
    def direction(self) -> str:
        """Name and direction, as people read them."""
        return f"{self.name} ({'higher' if self.higher_is_better else 'lower'} is better)"


def direction(name: str) -> bool | None:
    """What a metric's name says: True for higher is better, False for lower, None where it says neither or both.

    `val/loss`, `evalLoss` and `word_error_rate` are better when low; `neg_mean_squared_error` is better when high.
    """
    words = [word.lower() for word in _WORD.findall(name)]
    words += [part.lower() for part in re.split(r"[^A-Za-z]+", name)]
    low = not LOWER.isdisjoint(words) or ("bits", "per") in pairwise(words)
    high = not HIGHER.isdisjoint(words)
    if low == high:
        return None
    return high != (not TURNS.isdisjoint(words))
