"""Task `letters`: how likely each letter follows each, counted on a pool, judged by held-out text."""

import json
import time
from pathlib import Path

import numpy as np

from djsb import Job, Metric, Report, Rows, Task, Traits, make_caches

LONGEST = 64  # letters of a text
LETTERS = 128


def table(rows: Rows) -> np.ndarray:
    """(rows, LONGEST) the letters of each text; 0 after its end."""
    found = np.zeros((len(rows.data), LONGEST), np.uint8)
    field = rows.data.fields.text
    for start in range(0, len(found), 1000):
        for row, content in zip(
            found[start:], rows.data.reader.read(start, min(start + 1000, len(found))), strict=False
        ):
            letters = str(content.get(field, "")).encode("ascii", "replace")[:LONGEST]
            row[: len(letters)] = np.frombuffer(letters, np.uint8)
    return found % LETTERS


def pairs(texts: np.ndarray) -> np.ndarray:
    """(LETTERS, LETTERS) how often each letter follows each; what comes after a text's end does not count."""
    first, second = texts[:, :-1].ravel(), texts[:, 1:].ravel()
    counts = np.bincount(first[second > 0].astype(int) * LETTERS + second[second > 0], minlength=LETTERS * LETTERS)
    return counts.reshape(LETTERS, LETTERS)


class Letters(Task):
    """Counting is all of its training; nothing can be paused."""

    traits = Traits(
        version=1, needs=("dataset.text", "evaluation.path"), reads_evaluation=frozenset({"text"}), can_pause=False
    )

    def can_shorten(self, study):
        return False

    def metrics(self, study, prepared):
        return [Metric("nats", False, 0, 5)]

    def prepare(self, study, folder, train, evaluation, workers, progress):
        def make(target: Path) -> dict:
            np.save(target / "train.npy", table(train))
            np.save(target / "eval.npy", table(evaluation))
            return {}

        # the name tells what the caches hold: other rows, or another version, are other caches
        name = f"letters-{train.data.fingerprint[:12]}-{evaluation.data.fingerprint[:12]}-1"
        return make_caches(folder, name, make)

    def run(self, study, prepared, job: Job, report: Report):
        texts, rows = np.load(prepared / "train.npy"), np.load(job.rows)
        counts = np.zeros((LETTERS, LETTERS))
        if job.init:  # a later cycle goes on from a checkpoint
            counts += np.load(Path(job.init) / "counts.npy")
        order = np.random.default_rng(job.seed)
        done = 0
        while done < job.samples:
            chosen = order.permutation(rows)[: job.samples - done]
            counts += pairs(texts[chosen])
            done += len(chosen)
            report.curve(job.trial, done, share=done / job.samples)
            if job.trial in report.dropped():
                return {}
        if job.output:
            Path(job.output).mkdir(parents=True)
            np.save(Path(job.output) / "counts.npy", counts)
            (Path(job.output) / "config.json").write_text(json.dumps({"letters": LETTERS}))
        smooth = counts + 0.1
        likely = np.log(smooth / smooth.sum(1, keepdims=True))
        held = pairs(np.load(prepared / "eval.npy"))
        return {job.trial: {"nats": float(-(held * likely).sum() / max(1, held.sum()))}}

    def calibrate(self, study, prepared):
        texts = np.load(prepared / "train.npy")
        began = time.perf_counter()
        pairs(texts)
        return (time.perf_counter() - began) / len(texts), 0.01


TASK = Letters()
