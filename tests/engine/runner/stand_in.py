"""A worker that trains nothing: a step of a trial is a while of sleep. `python stand_in.py STEPS SECONDS LOG`.

It says what a worker says, breaks trials off as one does, and notes each training from where to where it went.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))
from engine.base.durable import written_whole

STEPS, SECONDS, LOG = int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
STUBBORN = LOG.with_name("stubborn")  # while it is there steps do not end
LOCK, LEAVING = threading.Lock(), threading.Event()


def say(event: str, **content: Any) -> None:
    with LOCK:
        sys.stdout.write(json.dumps({"event": event, **content}) + "\n")
        sys.stdout.flush()


def note(**content: Any) -> None:
    with LOG.open("a") as log:
        log.write(json.dumps({**content, "pid": os.getpid()}) + "\n")


def trial(job: dict[str, Any]) -> int | None:
    """Train on; the samples where it was broken off, or None."""
    begin = int(Path(job["resume"]).read_text()) if job["resume"] else 0
    for step in range(begin + 1, STEPS + 1):
        time.sleep(SECONDS)
        while STUBBORN.exists():
            time.sleep(0.05)
        say("curve", trial=job["trial"], step=step, values={"loss": 1.0})
        if LEAVING.is_set() and job["park"] and step < STEPS:
            samples = job["samples"] * step // STEPS
            with written_whole(Path(f"{job['park']}-{samples}-{job['samples']}.safetensors")) as scratch:
                scratch.write_text(str(step))
            note(trial=job["trial"], begin=begin, end=step)
            return samples
    note(trial=job["trial"], begin=begin, end=STEPS)
    return None


def beat() -> None:
    while True:
        time.sleep(1)
        say("beat")


def main() -> None:
    jobs: list[dict[str, Any]] = []
    arrived = threading.Condition()

    def listen() -> None:
        for line in sys.stdin:
            message = json.loads(line)
            if message["do"] == "leave":
                LEAVING.set()
                continue
            with arrived:
                jobs.append(message)
                arrived.notify()
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    threading.Thread(target=beat, daemon=True).start()
    say("ready")
    while True:
        with arrived:
            arrived.wait_for(lambda: bool(jobs))
            message = jobs.pop(0)
        if message["do"] == "exit":
            os._exit(message["code"])
        if message["do"] == "environment":
            say("note", text=" ".join(os.environ.get(name, "-") for name in message["names"]))
            say("done")
            continue
        results, parked = {}, {}
        for job in message["jobs"]:
            if (samples := trial(job)) is None:
                results[job["trial"]] = {"accuracy": 0.5, "likelihood": 0.4}
            else:
                parked[job["trial"]] = samples
        say("done", results=results, parked=parked)


main()
