"""Several ranks of one training, forked from a test; they talk over gloo on loopback."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from engine.tasks.shared.sharded import together


def on_ranks(count: int, run: Callable[[int], Any], folder: Path) -> list[Any]:
    """What `run(rank)` returns on each of `count` ranks."""
    children = []
    for rank in range(count):
        if (pid := os.fork()) == 0:
            _be(rank, count, run, folder)
        children.append(pid)
    ends = []
    for pid in children:
        ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        if ends[-1]:
            for other in children[len(ends) :]:
                os.kill(other, signal.SIGKILL)
    assert not any(ends), ends
    return [pickle.loads((folder / f"rank-{rank}").read_bytes()) for rank in range(count)]


def _be(rank: int, count: int, run: Callable[[int], Any], folder: Path) -> NoReturn:
    import torch
    from torch import distributed

    code = 1
    try:
        torch.set_num_threads(1)
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        store = distributed.FileStore(str(folder / "store"), count)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=timedelta(seconds=120))
        with together(rank, count):
            (folder / f"rank-{rank}").write_bytes(pickle.dumps(run(rank)))
        code = 0
    except BaseException:
        traceback.print_exc()
    os._exit(code)
