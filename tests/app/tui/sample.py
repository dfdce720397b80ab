"""A study made by hand that has something for every part of every screen: the same at any time and on any machine.

`SampleApp` is the real app on it, without a reading process: snapshots of the screens, and screenshots, start here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.tui.app import DjsbApp
from app.tui.reading.snapshot import Snapshot

Row = dict[str, Any]
NAMES = ("text_len", "num_words", "char_rep_ratio", "special_char_ratio", "aspect_ratio", "image_height")
OPS = ("text_length", "words_num", "character_repetition", "special_characters", "image_aspect_ratio", "image_shape")


def _id(n: int) -> str:
    return f"{n * 0x9E3779B97F4A7C15 % (1 << 48):012x}"


def _ranked(
    n: int, label: str, change: float | None, half: float | None, seeds: int, kind: str = "single", **more: Any
) -> Row:
    """A row of the leaderboard. half: half of the interval's width, None for a single seed."""
    low, high = (None, None) if change is None or half is None else (change - half, change + half)
    verdict = "helps" if low is not None and low > 0 else "hurts" if high is not None and high < 0 else "unclear"
    name, bucket = label.rsplit(" ", 1) if kind == "single" else (None, None)
    op = f"{OPS[NAMES.index(name)]}_filter" if name else None
    bound = {"helps": low, "hurts": high}.get(verdict)
    p = None if half is None or change is None else math.exp(-3 * abs(change) / half)
    return {
        "pool": _id(n), "op": op, "statistic": name, "bucket": bucket, "label": label, "kind": kind, "size": 1200,
        "share": 1.0, "change": change, "std": None if half is None else half / 2, "ci_low": low, "ci_high": high,
        "seeds": seeds, "metrics": {"zero_shot": change, "retrieval": change}, "verdict": verdict,
        "p_best": None if half is None else max(0.0, 0.5 - 0.06 * n), "dropped": None, "skipped": [],
        "shrunk": None if p is None or change is None else 0.8 * change, "p": p, "q": p, "bound": bound,
        "values": {} if change is None else {"zero_shot": (0.4 + change / 250, 0.4)}, **more,
    }  # fmt: skip


BOARD = (
    _ranked(1, "char_rep_ratio low + num_words mid", 31.8, 15.2, 5, "combination"),
    _ranked(2, "char_rep_ratio low", 24.1, 9.7, 5),
    _ranked(3, "num_words mid", 17.4, 11.0, 5),
    _ranked(4, "text_len mid + special_char_ratio low", 12.6, 12.9, 4, "combination"),
    _ranked(5, "text_len mid", 9.3, 10.4, 4),
    _ranked(6, "special_char_ratio low", 6.2, None, 1),
    _ranked(7, "aspect_ratio mid", 1.1, 6.0, 3),
    _ranked(8, "image_height high", -0.4, 22.0, 3),
    _ranked(9, "text_len low", -8.9, 7.1, 3),
    _ranked(10, "num_words high", -12.5, 14.9, 2, share=0.44, dropped="1.2 % chance to be among the 3 best"),
    _ranked(11, "char_rep_ratio high", -43.0, 12.2, 2, share=0.44, dropped="0.1 % chance to be among the 3 best"),
    _ranked(
        12, "aspect_ratio high", None, None, 0, share=0.0, verdict="degenerate",
        skipped=["fewer than 50 distinct values"],
    ),
)  # fmt: skip


def _trial(n: int, place: int, stage: str, state: str, **more: Any) -> Row:
    entry = BOARD[place]
    ended = state in ("COMPLETE", "FAIL", "CANCELLED")
    return {
        "id": _id(100 + n), "label": entry["label"], "kind": entry["kind"], "pool": entry["pool"], "seed": n % 3,
        "stage": stage, "state": state, "samples": 4800, "horizon": 4800, "seconds": 3.1 + n / 10 if ended else None,
        "device": None if state == "WAITING" else f"cpu{n % 2}", "attempts": int(state != "WAITING"), "error": None,
        "started": None if state == "WAITING" else f"2026-01-01T10:{n:02d}:00.000+00:00",
        "finished": f"2026-01-01T10:{n:02d}:04.000+00:00" if ended else None, **more,
    }  # fmt: skip


TRIALS = (
    *(_trial(n, n % 11, "probe" if n < 20 else "combine", "COMPLETE") for n in range(26)),
    _trial(26, 3, "combine", "FAIL", error="the worker on cpu0 died (signal 9)"),
    _trial(27, 9, "combine", "CANCELLED"),
    _trial(28, 0, "combine", "RUNNING"),
    _trial(29, 3, "combine", "RUNNING", samples=2112),
    *(_trial(30 + n, n, "combine", "WAITING") for n in range(4)),
)
RUNNING = tuple(
    {**t, "resumed": 0, "estimate": 4.0, "seconds": 2.0, "step": 60 + 20 * i, "progress": 0.4 + 0.2 * i,
     "usage": {"cpu": 99.0 - i, "memory": 1.25e9, "gpu": 96.0, "gpu_memory": 3e10},
     "loss": [3.0 * math.exp(-k / 9) + 0.1 * (k % 3) for k in range(24 + 8 * i)]}
    for i, t in enumerate(t for t in TRIALS if t["state"] == "RUNNING")
)  # fmt: skip


def _content(label: str) -> Row:
    """A pool's description; the bounds of a bucket are the same in every pool."""
    slices = []
    for part in label.split(" + "):
        name, bucket = part.rsplit(" ", 1)
        low, high = {"low": (None, 40.0), "mid": (40.0, 80.0), "high": (80.0, None)}[bucket]
        slices.append({"op": f"{OPS[NAMES.index(name)]}_filter", "statistic": name, "low": low, "high": high})
    return {"layers": [{"slices": slices, "weight": None}], "size": 1200, "repetition": 1, "seed": 0}


def _proposal(n: int, origin: str, kind: str, status: str, reason: str, places: tuple[int, ...], **more: Any) -> Row:
    pools = [{"label": BOARD[p]["label"], "kind": BOARD[p]["kind"], "samples": 4800,
              "pool": _content(BOARD[p]["label"])} for p in places]  # fmt: skip
    content = {
        "version": 1, "origin": origin, "kind": kind, "stage": "combine", "pools": pools, "seeds": [0, 1],
        "reason": reason, "cites": [BOARD[p]["pool"] for p in places], "expected": None, "suggestion": None,
        "parent": None, "fallback": "the stage goes on without it", "gate": "allowed: 12 s of device time", **more,
    }  # fmt: skip
    return {
        "id": _id(200 + n), "setup": "sample", "origin": origin, "kind": kind, "stage": "combine",
        "content": content, "status": status, "cost": None if status == "refused" else 12.0 + 30 * n,
        "at": f"2026-01-01T10:{20 + n}:00.000+00:00",
    }  # fmt: skip


PROPOSALS = (
    _proposal(0, "paper", "probe", "approved", "3N + 1 pools of equal size tell what each OP does", (1, 2, 4)),
    _proposal(1, "race", "combine", "approved", "the leaders of different clusters", (0,), expected=20.0),
    _proposal(2, "model", "combine", "queued", "repetition and length are in different clusters, and both help",
              (0, 3), expected=8.5),
    _proposal(3, "person", "bucket", "held", "the rows next to the bucket may do as well, and are more", (4,)),
    _proposal(4, "model", "seeds", "rejected", "the leader has too few seeds", (0,)),
    _proposal(5, "person", "combine", "edited", "three slices at once", (2, 4)),
    _proposal(6, "model", "combine", "refused", "short texts of tall images", (8,),
              gate="text_len low + image_height high keeps 351 rows, and a pool needs 375; widen it"),
)  # fmt: skip
DECISIONS = tuple(
    {"id": n, "proposal": PROPOSALS[place]["id"], "verdict": verdict, "who": who, "why": why,
     "at": f"2026-01-01T10:3{n}:00.000+00:00", "kind": PROPOSALS[place]["kind"], "stage": "combine",
     "origin": PROPOSALS[place]["origin"]}
    for n, (place, verdict, who, why) in enumerate((
        (0, "approve", "policy auto", "it passed the gate"), (1, "approve", "person ada", "cheap"),
        (3, "hold", "person ada", "after the next look"), (4, "reject", "person ada", "the interval is clear enough"),
        (5, "edit", "person ada", "two slices are enough"),
    ), 1)
)  # fmt: skip
EVENTS = tuple(
    {"id": n, "level": level, "kind": kind, "subject": subject, "text": text,
     "at": f"2026-01-01T10:{n:02d}:30.000+00:00"}
    for n, (level, kind, subject, text) in reversed(list(enumerate((
        ("info", "decision", PROPOSALS[0]["id"], "approve by policy auto: it passed the gate"),
        ("info", "drop", BOARD[9]["pool"], "num_words high: 1.2 % chance to be among the 3 best"),
        ("info", "drop", BOARD[10]["pool"], "char_rep_ratio high: 0.1 % chance to be among the 3 best"),
        ("warning", "refused", PROPOSALS[6]["id"], str(PROPOSALS[6]["content"]["gate"])),
        ("error", "crash", TRIALS[26]["id"], "the worker on cpu0 died (signal 9); its log: logs/cpu0.log"),
        ("info", "request", None, "pause by person ada: running trials finish, nothing more starts"),
        ("info", "request", None, "resume by person ada: goes on"),
        ("info", "recipe", BOARD[0]["pool"], "char_rep_ratio low + num_words mid: +31.8 % on fresh seeds"),
    ), 1)))
)  # fmt: skip


def _correlation(names: tuple[str, ...], clusters: int) -> Row:
    size = math.ceil(len(names) / clusters)
    r = [[1.0 if i == j else round(0.9 - 0.17 * abs(i - j) if i // size == j // size else 0.3 - 0.2 * abs(i - j) / 2, 6)
          for j in range(len(names))] for i in range(len(names))]  # fmt: skip
    return {"names": list(names), "r": r, "order": list(names), "linkage": [],
            "clusters": {n: i // size + 1 for i, n in enumerate(names)}}  # fmt: skip


def _job(variant: int, place: int, label: str, component: str, state: str, **more: Any) -> Row:
    return {
        "variant": variant, "iteration": 1, "seed": 0, "pipeline": "refine", "place": place, "label": label,
        "phase": "execution_job_configs", "component": component, "state": state, "reused": 0,
        "seconds": 12.5 * place + 3 if state == "COMPLETE" else None,
        "started": None if state == "WAITING" else f"2026-01-01T11:0{place}:00.000+00:00", "error": None, **more,
    }  # fmt: skip


def _trial_of(variant: int, state: str, objective: float | None) -> Row:
    return {
        "run": "demo", "variant": variant, "params": f'{{"min_num": {5 * variant}}}', "state": state,
        "objective": objective, "steps": "[]", "note": None, "at": "2026-01-01T11:00:00.000+00:00",
    }  # fmt: skip


PIPELINES = (
    {
        "run": "demo", "source": "demo.yaml", "project": "demo", "experiment": "words", "config": "{}",
        "state": "running", "note": None, "at": "2026-01-01T11:00:00.000+00:00", "ended": None, "folder": "sample",
        "jobs": [
            _job(1, 0, "slice", "process_data", "COMPLETE", reused=1), _job(1, 1, "train", "train_model", "COMPLETE"),
            _job(1, 2, "score", "evaluate_mse", "COMPLETE"), _job(2, 0, "slice", "process_data", "COMPLETE"),
            _job(2, 1, "train", "train_model", "FAIL", error="refine.train: no rows are left"),
            _job(2, 2, "score", "evaluate_mse", "WAITING"), _job(3, 0, "slice", "process_data", "RUNNING"),
            _job(3, 1, "train", "train_model", "WAITING"), _job(3, 2, "score", "evaluate_mse", "WAITING"),
        ],
        "sweep": [_trial_of(1, "COMPLETE", 0.25), _trial_of(2, "FAIL", None), _trial_of(3, "RUNNING", None)],
    },
    {
        "run": "old", "source": "old.yaml", "project": "demo", "experiment": "lengths", "config": "{}",
        "state": "failed", "note": "refine.slice failed", "at": "2026-01-01T09:00:00.000+00:00",
        "ended": "2026-01-01T09:01:00.000+00:00", "folder": "sample",
        "jobs": [_job(0, 0, "slice", "process_data", "FAIL", error="refine.slice: no such file")], "sweep": [],
    },
)  # fmt: skip

SNAPSHOT = Snapshot(
    folder=Path("sample"),
    name="sample",
    setup="sample",
    engine=4711,
    state="running",
    stage="combine",
    stages=(
        {"stage": "probe", "COMPLETE": 20},
        {"stage": "combine", "COMPLETE": 6, "RUNNING": 2, "WAITING": 4, "FAIL": 1, "CANCELLED": 1},
        {"stage": "scale"},
        {"stage": "confirm"},
    ),
    spent=1260.0,
    limit=3600.0,
    rate=1.9,
    burn=tuple((12.0 * k, 1260.0 * k / 60) for k in range(1, 61)),
    running=RUNNING,
    waiting=4,
    trials=TRIALS,
    proposals=PROPOSALS,
    decisions=DECISIONS,
    events=EVENTS,
    insights={
        "probe": [{"text": "Little repetition of characters helps most: +24.1 %.", "cites": [_id(2)]}],
        "combine": [{"text": "Repetition and words together beat each alone.", "cites": [_id(1)]}],
    },
    results={
        "recipe": {**BOARD[0], "samples": 4800, "repetition": 2, "kept": 2310, "rows": 12000},
        "unconfirmed": None,
        "lineage": [
            {"cycle": 1, "unconfirmed": None, "against_first": None,
             "recipe": {**BOARD[0], "samples": 4800, "repetition": 2, "kept": 2310, "rows": 12000}},
            {"cycle": 2, "recipe": None, "unconfirmed": None, "against_first": None},
        ],
        "statistics": _correlation(NAMES, 3),
        "metrics": _correlation(("zero_shot", "image_retrieval", "text_retrieval"), 2),
        "scale": [
            {**_ranked(20 + i, label, change, 6.0, 3, kind), "samples": 4800 * rate, "repetition": rate}
            for i, (label, kind, change, rate) in enumerate((
                ("char_rep_ratio low + num_words mid × 2", "repetition", 33.0, 2),
                ("char_rep_ratio low + num_words mid, then num_words mid", "layers", 29.5, 2),
                ("char_rep_ratio low + num_words mid × 4", "repetition", 21.0, 4),
                ("char_rep_ratio low + num_words mid, then all", "layers", 27.5, 4),
            ))
        ],
    },
    answer=(
        "Recipe: char_rep_ratio low + num_words mid. Against a random sample of the same size: +31.8 %, at least "
        "+16.6 %; against all your data: +4.1 % [-3.0, +11.2].",
        "It is not shown to beat all your data at as many trained samples: the interval includes zero.",
        "Measured on 5 fresh seeds, which took no part in choosing it. It keeps 2,310 of 12,000 rows.",
        "“At least” is a one-sided bound at 95 %, by the test that says that it helps.",
    ),
    board=BOARD,
    buckets=("low", "mid", "high"),
    pipelines=PIPELINES,
)  # fmt: skip

YAML = """\
dataset_path: data/train.jsonl
process:
  - character_repetition_filter:
      rep_len: 10
      max_ratio: 0.1278
  - words_num_filter:
      min_num: 7
      max_num: 14
"""


def _example(bucket: str, value: float, row: int) -> Row:
    return {"row": row, "value": value + row, "text": f"a small {bucket} picture, row {row}", "picture": None}


def answer(what: str, *asked: Any) -> Any:
    """Details as the reading process would send them."""
    if what == "trial":
        trial = next(t for t in TRIALS if t["id"] == asked[0])
        return {**trial, "metrics": {"retrieval": 0.2718, "zero_shot": 0.4142}, "curves": ["loss"], "fresh": False,
                "content": {"layers": [{"slices": [{"statistic": "char_rep_ratio", "low": None, "high": 0.1278}]}],
                            "size": 1200, "repetition": 1, "seed": 0}}  # fmt: skip
    if what == "curves":
        return {t: [(s, 3 * math.exp(-s / 40) + 0.2) for s in range(0, 150, 2)] for t in asked[0]}
    if what == "statistic":
        counts = [round(900 * math.exp(-(((k - 14) / 8) ** 2))) for k in range(48)]
        rows = {b: [_example(b, v, i) for i in range(3)] for b, v in (("low", 12.0), ("mid", 48.0), ("high", 96.0))}
        return {"name": asked[0], "counts": counts, "edges": [4.0 * k for k in range(49)], "bounds": [40.0, 80.0],
                "examples": rows}  # fmt: skip
    if what == "pool":
        entry = next(r for r in BOARD if r["pool"] == asked[0])
        return {"id": entry["pool"], "label": entry["label"], "content": _content(entry["label"])}
    if what == "contents":
        return {
            "pool": asked[0],
            "label": "x",
            "rows": 9000,
            "kept": 2310,
            "looked": 9000,
            "sources": [{"name": "web", "rows": 9000, "kept": 2310}],
            "statistics": [{"name": "num_words", "kept": 3.1, "all": 9.4, "shift": -1.2}],
            "words": [{"name": "hashtag", "kept": 0.31, "all": 0.1, "shift": 0.7}],
            "templates": [{"name": "a photo of", "kept": 0.02, "all": 0.2, "shift": -0.45}],
            "warnings": ["Concentrated in what it keeps: the word 'hashtag' (31.0 % of the kept rows, 10.0 % of all)."],
            "stays": [{"row": 7, "text": "#sky #hashtag", "picture": [[(200, 30, 30)] * 4] * 4}],
            "goes": [{"row": 8, "text": "a photo of a tall tree", "picture": None}],
        }
    if what == "system":
        kept = {t["id"]: {"cpu": {"peak": 101.0, "mean": 98.2 - n, "latest": 99.0},
                          "memory": {"peak": 1.31e9, "mean": 1.2e9, "latest": 1.25e9},
                          "written": {"peak": 2.5e6, "mean": 1e6, "latest": 2.5e6},
                          "gpu": {"peak": 97.0, "mean": 71.0 + n, "latest": 96.0},
                          "gpu_memory": {"peak": 3.1e10, "mean": 2.9e10, "latest": 3e10},
                          "gpu_power": {"peak": 412.0, "mean": 380.0, "latest": 401.0},
                          "gpu_temperature": {"peak": 63.0, "mean": 58.0, "latest": 60.0}}
                for n, t in enumerate(TRIALS[24:30])}  # fmt: skip
        gpu = {"model": "NVIDIA H200", "memory": 3.1e10, "total": 1.5e11, "power": 402.0, "temperature": 61.0}
        return {
            "node": "here", "cpu": 52.0, "cores": 16, "load": 8.3, "memory": 4.1e10, "memory_total": 1.28e11,
            "disk": 4e11, "disk_total": 1e12, "disk_free": 6e11, "no_gpu": "", "trials": kept,
            "parts": {"cache": 4.2e9, "checkpoints": 1.3e9, "database": 2.1e7, "logs": 0},
            "gpus": [{"name": "0", "use": 93.0, **gpu}, {"name": "1", "use": None, **gpu, "power": None}],
        }  # fmt: skip
    if what == "log":
        return {"names": ["engine.log", "worker-cpu0.log"], "name": "engine.log", "text": "probe: 20/20\n"}
    if what == "job":
        run, *which = asked
        jobs = next(r for r in PIPELINES if r["run"] == run)["jobs"]
        job = next(j for j in jobs if [j[name] for name in ("variant", "iteration", "place", "seed")] == which)
        return {**job, "hook": "TrainModelHook", "after": ["refine.slice"] if job["place"] else [], "attempts": 1,
                "finished": None, "outputs": [("loss", "0.25")], "settings": '{"min_num": 5}',
                "lines": ["epoch 1: 0.5", "epoch 2: 0.25"]}  # fmt: skip
    return YAML


class SampleFeed:
    """Shows one snapshot and answers from this file."""

    def __init__(self, snapshot: Snapshot, show: Callable[[Snapshot], None], say: Callable[[int, Any], None]) -> None:
        self._say = say
        self._asked = 0
        show(snapshot)

    def ask(self, what: str, *asked: Any) -> int:
        """Answer at once."""
        self._asked += 1
        self._say(self._asked, answer(what, *asked))
        return self._asked

    def close(self) -> None:
        """Nothing to end."""


class SampleApp(DjsbApp):
    """The app on the sample, or another snapshot."""

    def __init__(self, folder: Path = Path("sample"), snapshot: Snapshot = SNAPSHOT) -> None:
        super().__init__(folder)
        self.sample = snapshot
        self._made = True  # other screens are made when they are asked for, if at all

    def has_study(self) -> bool:
        """The sample is all there is."""
        return True

    def open_feed(self, show: Callable[[Snapshot], None], answer: Callable[[int, Any], None]) -> Any:
        """No process."""
        return SampleFeed(self.sample, show, answer)
