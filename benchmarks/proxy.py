"""Do small trainings predict large ones? `python benchmarks/proxy.py [--write]`, 40 minutes on two cores.

24 recipes of the demo world (buckets of its statistics and pairs of them) train a target model, about 24 times the
tiny preset in FLOPs a sample, to the end, six seeds each; and the tiny preset to the middle of its schedule, at
two learning rates, three seeds each. Compute is counted in FLOPs (torch.utils.flop_counter), forward and backward.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from app.commands.init import write_demo
from benchmarks.write import write_section
from engine.records.pool import Layer, Pool
from engine.settings.study import Study
from engine.study.opened import OpenStudy, open_study
from engine.tasks.clip.model import PRESETS, Preset
from engine.tasks.contract import Job, Report

# image, patch, width, layers, heads; text width, layers, heads; length, vocabulary, projection
TARGET = Preset(32, 4, 128, 4, 4, 128, 2, 4, 16, 1024, 128)
TARGET_SEEDS, PROXY_SEEDS, SHARE = 6, 3, 0.44
Values = NDArray[np.float64]
RATES = (0.002, 0.0005)
RECIPES = (
    "text_len low", "text_len mid", "text_len high", "num_words low", "num_words mid", "num_words high",
    "special_char_ratio low", "special_char_ratio mid", "special_char_ratio high", "alnum_ratio low",
    "alnum_ratio mid", "alnum_ratio high", "char_rep_ratio high", "word_rep_ratio low", "word_rep_ratio high",
    "image_sizes low", "image_sizes high", "aspect_ratios mid",
    "num_words mid + special_char_ratio low", "num_words mid + alnum_ratio mid", "text_len mid + word_rep_ratio low",
    "num_words low + special_char_ratio mid", "text_len high + word_rep_ratio high", "text_len low + alnum_ratio high",
)  # fmt: skip


def study_of(study: Study, who: str) -> Study:
    """The study with the model and learning rate of `target` or of a proxy's rate."""
    if who == "target":
        PRESETS["target"] = TARGET
        return study.model_copy(update={"model": study.model.model_copy(update={"preset": "target"})})
    return study.model_copy(update={"train": study.train.model_copy(update={"learning_rate": float(who)})})


def pools(opened: OpenStudy) -> dict[str, Pool]:
    """Recipe → pool, all of one size; and the control."""
    slices = {c.label: c.slice for c in opened.cuts}
    found = {name: Pool((Layer(tuple(slices[s] for s in name.split(" + "))),), 1) for name in RECIPES}
    size = min(opened.pool_size, *(opened.kept(p) for p in found.values()))
    return {n: Pool(p.layers, size) for n, p in {"control": Pool((Layer(),), 1), **found}.items()}


def results(folder: Path) -> list[dict[str, Any]]:
    """What was measured so far."""
    return [json.loads(line) for f in sorted(folder.glob("proxy-*.jsonl")) for line in f.read_text().splitlines()]


def run_share(folder: Path, share: int, shares: int) -> None:
    """Train every n-th of what is missing."""
    import torch

    from engine.tasks.clip.model import build_model, train
    from engine.tasks.clip.task import evaluate

    torch.set_num_threads(1)
    opened = open_study(folder, 1)
    every = pools(opened)
    work = [("target", s) for s in range(TARGET_SEEDS)] + [(str(r), s) for r in RATES for s in range(PROXY_SEEDS)]
    done = {(r["who"], r["seed"], r["recipe"]) for r in results(folder)}
    missing = [(who, s, n) for who, s in work for n in every if (who, s, n) not in done][share::shares]
    with (folder / f"proxy-{share}.jsonl").open("a") as log:
        for who, seed, name in missing:
            study = study_of(opened.study, who)
            rows = opened.realise(every[name], seed)
            whole = int(len(rows) * study.train.epochs)
            samples = whole if who == "target" else int(whole * SHARE)
            model = build_model(study, opened.prepared, seed, None)
            job = Job("", "", samples, seed, None, "", horizon=whole)
            train(model, study, opened.prepared, rows, job, Report(lambda *_: None))
            with torch.inference_mode():
                scores = evaluate(model, study, opened.prepared)
            log.write(json.dumps({"who": who, "seed": seed, "recipe": name, **scores}) + "\n")
            log.flush()


def flops(opened: OpenStudy, who: str) -> float:
    """FLOPs of one trained sample, forward and backward."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from engine.tasks.clip.model import build_model, contrastive_loss, image_features, text_features

    study = study_of(opened.study, who)
    model = build_model(study, opened.prepared, 0, None)
    batch = study.train.batch_size
    pixels = torch.zeros(batch, 3, TARGET.image, TARGET.image)
    ids = torch.ones(batch, TARGET.length, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        contrastive_loss(image_features(model, pixels), text_features(model, ids), model.logit_scale).backward()
    return counter.get_total_flops() / batch


def table(rows: list[dict[str, Any]], who: str, seeds: int) -> Values:
    """(recipes, seeds) changes of the likelihood in percent: it tells recipes apart with the fewest seeds."""
    value = {(r["recipe"], r["seed"]): r["likelihood"] for r in rows if r["who"] == who}
    base = np.mean([value["control", s] for s in range(seeds)])
    return np.array([[100 * (value[n, s] / base - 1) for s in range(seeds)] for n in RECIPES])


def noise(changes: Values) -> float:
    """Standard deviation of one seed's change once recipe and seed are taken out."""
    rest = changes - changes.mean(1, keepdims=True)
    rest = rest - rest.mean(0)
    return float(np.sqrt((rest**2).sum() / ((changes.shape[0] - 1) * (changes.shape[1] - 1))))


def reliability(changes: Values, seeds: int) -> float:
    """Share of the variance between means of so many seeds that is the recipes' own."""
    error = noise(changes) ** 2
    own = max(0.0, float(changes.mean(1).var(ddof=1)) - error / changes.shape[1])
    return own / (own + error / seeds)


def right(judge: Values, separate: Values, target: Values, error: float) -> tuple[float, float, float]:
    """(separable pairs right, all pairs right, both in percent, Spearman) of a judge of recipes against the target.

    Which pairs are separable is said by `separate`, means of other seeds than the target's; error: of one such mean.
    """
    i, j = np.triu_indices(len(judge), 1)
    same = (judge[i] > judge[j]) == (target[i] > target[j])
    apart = np.abs(separate[i] - separate[j]) > 2 * np.sqrt(2) * error
    return 100 * float(same[apart].mean()), 100 * float(same.mean()), float(spearmanr(judge, target)[0])


def judged(judge: Values, target: Values) -> Values:
    """`right` of a judge, averaged over all ways to split the target's seeds into those that separate and the rest."""
    seeds, half = range(target.shape[1]), target.shape[1] // 2
    error = noise(target) / np.sqrt(half)
    found = [
        right(judge, target[:, list(one)].mean(1), target[:, [s for s in seeds if s not in one]].mean(1), error)
        for one in combinations(seeds, half)
    ]
    return np.mean(found, axis=0)


def ceiling(target: Values, draws: int = 200) -> Values:
    """`right` of a judge that knows each recipe's true change: simulated, with the target's own spread and noise."""
    rng, n, error = np.random.default_rng(0), target.shape[1], noise(target)
    trust = reliability(target, n)
    mean = target.mean(1)
    shrunk = mean.mean() + trust * (mean - mean.mean())
    left = error * np.sqrt(trust / n)  # what is not known of the true changes
    found = []
    for _ in range(draws):
        true = shrunk + left * rng.standard_normal(len(mean))
        drawn = true[:, None] + error * rng.standard_normal(target.shape)
        half = n // 2
        found.append(right(true, drawn[:, :half].mean(1), drawn[:, half:].mean(1), error / np.sqrt(half)))
    return np.mean(found, axis=0)


def summary(opened: OpenStudy, rows: list[dict[str, Any]]) -> list[str]:
    """The table."""
    target = table(rows, "target", TARGET_SEEDS)
    half = TARGET_SEEDS - TARGET_SEEDS // 2
    trust = reliability(target, half)
    ratio = SHARE * flops(opened, str(RATES[0])) / flops(opened, "target")
    lines = [
        f"{len(RECIPES)} recipes of {pools(opened)['control'].size} rows, {TARGET_SEEDS} seeds of the target. Pairs "
        "are separated by one half of them (two standard errors) and judged against the other, over all splits; a mean "
        f"of {half} seeds has reliability {trust:.3f}.",
        "",
        "| judge | compute of one target trial | separable pairs right | all pairs right | Spearman | without noise |",
        "|---|---|---|---|---|---|",
    ]

    def line(name: str, compute: str, found: Values) -> str:
        pairs, every, rank = found
        return (
            f"| {name} | {compute} | {pairs:.1f} % | {every:.1f} % | {rank:.3f} | {min(1.0, rank / trust**0.5):.2f} |"
        )

    for rate in RATES:
        proxy = table(rows, str(rate), PROXY_SEEDS)
        for seeds in (1, PROXY_SEEDS):
            each = [proxy[:, s] for s in range(PROXY_SEEDS)] if seeds == 1 else [proxy.mean(1)]
            found = np.mean([judged(e, target) for e in each], axis=0)
            name = f"tiny, {100 * SHARE:g} % of the steps, learning rate {rate:g}, {seeds} seed{'s' * (seeds > 1)}"
            lines.append(line(name, f"{100 * ratio * seeds:.1f} %", found))
    lines.append(line("one who knows the true changes (the ceiling)", "–", ceiling(target)))
    return [*lines, "", "Goals, at no more than 2 % of the target's compute: 90 % of separable pairs, Spearman 0.9."]


def main() -> None:
    """Train what is missing in demo-study/proxy, then print the table and, with --write, put it into the docs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    folder = write_demo(ROOT / "demo-study" / "proxy")
    opened = open_study(folder, 2)
    _ = opened.cuts, opened.prepared
    shares = len(os.sched_getaffinity(0))
    running = [get_context("spawn").Process(target=run_share, args=(folder, i, shares)) for i in range(shares)]
    for process in running:
        process.start()
    for process in running:
        process.join()
        assert process.exitcode == 0
    lines = summary(opened, results(folder))
    print("\n".join(lines))
    if options.write:
        write_section("proxy", "Small trainings predict large ones", "\n".join(lines))


if __name__ == "__main__":
    main()
