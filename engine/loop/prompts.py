"""Ask the checkpoints with the prompts that were approved."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from engine.base.amounts import format_seconds
from engine.base.ids import digest
from engine.evidence.prompts import RESULT, STAGE, asked, checkpoints
from engine.journal.store import now
from engine.proposals.kinds.prompt import lacking, seconds
from engine.study.opened import OpenStudy

if TYPE_CHECKING:
    from engine.runner.scheduler import Scheduler


def run_prompts(opened: OpenStudy, at_work: Scheduler) -> str:
    """Ask what was not asked yet; how it ended: `done`, `stopped` or `budget`."""
    prompts, store = asked(opened), opened.store
    if not prompts:
        return "done"
    at_work.enter(opened)
    columns = checkpoints(opened)
    if not columns:
        store.event("prompts", f"no prompt was asked: {lacking(opened) or 'no checkpoint is kept'}", level="warning")
    for at in columns:
        known = store.result(at["context"], RESULT) or {}
        mine = known.setdefault(at["trial"], {})
        for prompt in dict.fromkeys([opened.study.vlm.prompt, *prompts]):
            if prompt in mine:
                continue
            at_work.obey()
            if at_work.stopping:
                return "stopped"
            left = at_work.limit - at_work.accounts.spent()
            if left < (cost := seconds(at_work.accounts) or 0.0):
                at_work.note = (
                    f"the budget ends before all prompts are asked: one takes about {format_seconds(cost)} and "
                    f"{format_seconds(max(0.0, left))} are left"
                )
                return "budget"
            done = at_work.alone("ask", "asking a prompt", checkpoint=str(opened.folder / at["path"]), prompt=prompt)
            mine[prompt] = {n: v if math.isfinite(v) else None for n, v in done["scores"].items()}
            with store.transaction():
                store.put_result(at["context"], RESULT, known)
                store.put(
                    "costs",
                    {"id": f"prompt:{at['trial']}:{digest(prompt, 12)}", "kind": "prompt", "trial": at["trial"],
                     "stage": STAGE, "device": at_work.slots[0].device, "samples": None,
                     "seconds": done["seconds"], "at": now()},
                )  # fmt: skip
    return "done"
