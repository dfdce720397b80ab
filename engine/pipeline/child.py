"""The process of one job: `python djsb.py job`, with what it is to do as one JSON line on standard input.

It tells what happens as JSON lines on standard output, and writes what the job gives to a file, whole.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.base.durable import replaced
from engine.base.errors import DjsbError
from engine.base.ids import json_text
from engine.base.lifetime import end_with_owner
from engine.pipeline.contract import ComponentError, Context
from engine.pipeline.registry import component_in
from engine.pipeline.values import decode, encode

BEAT = 1.0  # seconds between two signs of life
SHORT = 500  # characters of a line that is told


def main() -> None:
    """Do the job that standard input describes."""
    end_with_owner()
    order = json.loads(sys.stdin.readline())
    channel, lock = os.fdopen(os.dup(1), "w", encoding="utf-8"), threading.Lock()
    os.dup2(2, 1)  # what libraries print goes to the log

    def send(event: str, **content: Any) -> None:
        with lock:
            channel.write(json_text({"event": event, **content}) + "\n")
            channel.flush()

    threading.Thread(target=_beat, args=(send,), daemon=True).start()
    try:
        _work(order, send)
        send("done")
    except DjsbError as error:
        send("error", text=str(error))
    except Exception as error:  # a border: a component's libraries may raise anything
        traceback.print_exc()
        send("error", text=f"{type(error).__name__}: {error}")


def _beat(send: Callable[..., None]) -> None:
    while True:
        time.sleep(BEAT)
        send("beat")


def _work(order: dict[str, Any], send: Callable[..., None]) -> None:
    component = component_in(order["module"], order["hook"], order["type"])
    if component is None:
        raise ComponentError(f"{order['job']}: {order['hook']} has no component {order['type']}")
    scratch = Path(order["scratch"])
    context = Context(
        Path(order["root"]), Path(order["work"]), order["job"], scratch, order["seed"], order["workers"],
        order["allow_install"], decode(order["tracked"]),
        say=lambda text: send("line", text=" ".join(str(text).split())[:SHORT]),
        measure=lambda name, value, step: send("point", name=str(name), value=float(value), step=int(step)),
    )  # fmt: skip
    settings = component.settings.model_validate(decode(order["groups"]))
    os.chdir(context.root)
    done = component.run(settings, context)
    if len(done.outputs) != len(component.gives):
        raise ComponentError(
            f"{context.job}: {component.name} gave {len(done.outputs)} of {len(component.gives)} outputs"
        )
    result = {
        "outputs": [encode(value, context.job) for value in done.outputs],
        "tracked": encode(done.tracked, context.job),
    }
    with replaced(Path(order["answer"])) as part:
        part.write_text(json.dumps(result, allow_nan=False), encoding="utf-8")
