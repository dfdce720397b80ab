"""The demo with the paper's procedure alone, with the race, and with the race and a scripted language model.

The model is a script behind a real HTTP server. It sees what any model would, the digest, and proposes by fixed rules:
combinations of leading buckets from different clusters, wider bounds around them, more seeds for the leader. Another
script decides: it approves combinations and seeds and rejects the rest. What is compared is the loop, not a model.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml
from write import write_section

from app.commands.init import write_demo
from engine.base.amounts import format_seconds
from tests.agent.server import Reply, call, serving

DJSB = Path(sys.executable).with_name("djsb")
BUDGET = "20min"
APPROVED = ("combine", "seeds")
_LINE = re.compile(
    r"^\d+\. (?P<id>[0-9a-f]{12}) (?P<label>.+?) \((?P<kind>single|combination), \d+ rows.*?: (?P<change>[+-][\d.]+) %",
    re.M,
)
_BOUNDS = re.compile(r"^(\w+) \(\w+\): \S+ \| (.+?) \| \S+$", re.M)


@dataclass(frozen=True)
class Entry:
    """A line of the digest's leaderboard."""

    id: str
    label: str
    kind: str
    change: float


def entries(digest: str) -> list[Entry]:
    """The leaderboard of a digest, best first."""
    return [Entry(m["id"], m["label"], m["kind"], float(m["change"])) for m in _LINE.finditer(digest)]


def model(body: Reply) -> Reply:
    """What the scripted model says to a request."""
    asked = [str(m["content"]) for m in body["messages"] if m["role"] == "user"]
    if "Propose at most" not in asked[0]:
        return call("Summary", {"sentences": []})
    return call("Proposals", {"proposals": list(suggestions(asked[0], "\n".join(asked)))})


def suggestions(digest: str, told: str) -> Iterator[dict[str, Any]]:
    """Three proposals from the digest, by rule. told: all that was said, refusals too."""
    good = [e for e in entries(digest) if e.kind == "single" and e.change > 0 and "…" not in e.label]
    if not good:
        return
    groups = re.search(r"Ward clusters of statistics: (.+)", digest)
    cluster = {n: i for i, g in enumerate(groups[1].split(" | ") if groups else ()) for n in g.split(", ")}
    pairs = [
        (a, b)
        for a, b in combinations(good, 2)
        if cluster.get(_statistic(a)) != cluster.get(_statistic(b)) and not _was_asked(told, a, b)
    ]
    if pairs:
        a, b = pairs[0]
        yield _suggestion(
            {"kind": "combine", "slices": [_slice(a), _slice(b)]}, [a, b],
            f"{a.label} and {b.label} both beat the control and lie in different clusters",
        )  # fmt: skip
    cuts = {m[1]: [float(x) for x in m[2].split(", ")] for m in _BOUNDS.finditer(digest) if m[2] != "–"}
    first = next((e for e in good if e.label.endswith((" low", " high")) and cuts.get(_statistic(e))), None)
    if first is not None:
        edges = cuts[_statistic(first)]
        wider = {"high": max(edges)} if first.label.endswith("low") else {"low": min(edges)}
        yield _suggestion(
            {"kind": "bucket", "slice": {"statistic": _statistic(first), **wider}}, [first],
            f"{first.label} beats the control; the rows next to it may do as well and are more",
        )  # fmt: skip
    leader = good[0]
    yield _suggestion({"kind": "seeds", "pool": leader.id, "seeds": 2}, [leader], f"{leader.label} leads on few seeds")


def _was_asked(told: str, a: Entry, b: Entry) -> bool:
    """True when a line of what was said names both buckets in one experiment."""
    parts = [json.dumps(_slice(e))[1:-1] for e in (a, b)]
    lines = told.replace('":"', '": "').replace('","', '", "').splitlines()
    return any("combine" in line and all(p in line for p in parts) for line in lines)


def _statistic(entry: Entry) -> str:
    return entry.label.rsplit(" ", 1)[0]


def _slice(entry: Entry) -> dict[str, str]:
    statistic, bucket = entry.label.rsplit(" ", 1)
    return {"statistic": statistic, "bucket": bucket}


def _suggestion(experiment: dict[str, Any], rests_on: list[Entry], reason: str) -> dict[str, Any]:
    return {"experiment": experiment, "reason": reason, "cites": [e.id for e in rests_on]}


def djsb(*args: object, url: str | None = None, ends: tuple[int, ...] = (0,)) -> str:
    """Run the command line; what it printed."""
    env = {**os.environ, **({"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "scripted"} if url else {})}
    done = subprocess.run([str(DJSB), *map(str, args)], env=env, capture_output=True, text=True, check=False)
    if done.returncode not in ends:
        raise SystemExit(f"djsb {' '.join(map(str, args))}: {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def settings(study: Path, **change: Any) -> None:
    """Change sections of study.yaml."""
    file = study / "study.yaml"
    content = yaml.safe_load(file.read_text())
    for key, section in change.items():
        content[key] = {**content[key], **section}
    file.write_text(yaml.safe_dump(content, sort_keys=False))


def decide(study: Path) -> None:
    """Approve combinations and more seeds, reject the rest."""
    for p in json.loads(djsb("proposals", study, "--status", "queued", "--json")):
        good = p["kind"] in APPROVED
        why = "cheap, and follows from the ranking" if good else "the buckets are fine enough here"
        djsb("review", p["id"], "--dir", study, "--approve" if good else "--reject", "--why", why)


def run(name: str, scratch: Path) -> tuple[list[str], Path]:
    """One row of the table, and the study."""
    study = scratch / name.replace(" ", "-")
    write_demo(study)
    settings(study, search={"strategy": "grid" if name == "grid" else "race"})
    if name != "race with the model":
        djsb("auto", study, "--budget", BUDGET)
    else:
        settings(study, agent={"model": "scripted", "tokens": 10_000_000})
        with serving(model) as server:
            for stage in ("probe", "combine", "scale", "confirm"):
                djsb("auto", study, "--budget", BUDGET, "--until", stage, url=server.url, ends=(0, 3))
                decide(study)
            djsb("auto", study, "--budget", BUDGET, url=server.url)
    return row(name, study), study


def row(name: str, study: Path) -> list[str]:
    """What a run came to."""
    from engine.study.view import view_study

    status = json.loads(djsb("status", study, "--json"))
    best = status["recipe"]
    with (view := view_study(study)).store:
        trials = view.store.query("SELECT count(*) AS n FROM trials WHERE state = 'COMPLETE'")[0]["n"]
        rows = view.store.query(
            "SELECT status, count(*) AS n FROM proposals WHERE origin = 'model' GROUP BY status ORDER BY status"
        )
        tokens = view.store.query("SELECT coalesce(sum(read + written), 0) AS n FROM model_calls")[0]["n"]
    told = ", ".join(f"{r['n']} {r['status']}" for r in rows) or "–"
    change = "none" if best is None else f"{best['change']:+.1f} % [{best['ci_low']:+.1f}, {best['ci_high']:+.1f}]"
    return [
        name, "none" if best is None else best["label"], change, format_seconds(status["spent"]), str(trials), told,
        f"{tokens:,}",
    ]  # fmt: skip


def main() -> None:
    """Print, and with --write put into the docs, the table and the log of the model's run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        runs = [run(name, Path(scratch)) for name in ("grid", "race", "race with the model")]
        log = djsb("log", runs[-1][1], "--last", 1000)
    head = ["run", "recipe", "on fresh seeds", "device time", "trials", "the model's proposals", "its tokens"]
    lines = [f"| {' | '.join(r)} |" for r in (head, ["---"] * len(head), *(r for r, _ in runs))]
    told = re.compile(r"decision .*(by person)|refused|  recipe ")
    story = [" ".join(x.split()) for x in log.splitlines() if told.search(x)]
    lines += [
        "",
        f"Budget {BUDGET} of device time each. Who decided what, and what came of it (`djsb log`):",
        "",
        "```",
    ]
    lines += [*story, "```"]
    print("\n".join(lines))
    if options.write:
        write_section("agent", "Paper, race and a scripted model on the demo (`make bench-agent`)", "\n".join(lines))


if __name__ == "__main__":
    main()
