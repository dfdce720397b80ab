"""A Ray cluster: the connection, and which of its nodes can work for this command.

A node can when it sees the same files under the same paths (it is given a token to read) and has the same djsb and
Data-Juicer. Nodes are looked at when they join. What is sent to a node travels by value or is found in its own djsb:
Ray is asked for no packages, no working directory and no dashboard.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.cloudpickle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from engine.base.errors import StudyError
from engine.base.paths import HOME
from engine.data.datajuicer import OFFLINE, version

os.environ.update(OFFLINE)  # Ray reads its settings when it starts

ANSWER = 10.0  # seconds that a node may take to answer
LOOK = 120.0  # seconds that a node may take to start a process and look at the files
FATE = 3.0  # seconds after an actor's death within which Ray knows whether its node is lost
REMEDY = (
    "put the study and its data on a file system that all nodes of the Ray cluster see under the same path, and "
    "install the same djsb there"
)
claims: set[object] = set()  # devices whose CPUs this process holds for trials


@dataclass(frozen=True)
class Node:
    """A node that is alive. host: as Ray names it."""

    id: str
    host: str
    cpus: int
    gpus: int

    @property
    def name(self) -> str:
        """As messages name it."""
        return f"node-{self.id[:8]}"


def alive() -> list[Node]:
    """The nodes of the cluster that are there, in a fixed order."""
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    nodes = sorted((n for n in found if n["Alive"]), key=lambda n: (n["NodeName"], n["NodeID"]))
    return [
        Node(n["NodeID"], str(n["NodeName"]), int(n["Resources"].get("CPU", 0)), int(n["Resources"].get("GPU", 0)))
        for n in nodes
    ]


def is_lost(node: str, waits: Callable[[], bool] = lambda: True) -> bool:
    """Whether a node is gone, which Ray may need a moment to know. waits: asked whether to go on."""
    deadline = time.monotonic() + FATE
    while waits() and time.monotonic() < deadline:
        if not any(n.id == node for n in alive()):
            return True
        time.sleep(0.2)
    return False


def on_node(node: str) -> NodeAffinitySchedulingStrategy:
    """That a process runs on this node, or not at all."""
    return NodeAffinitySchedulingStrategy(node, soft=False)


def _look(token: str, content: str, files: list[tuple[str, int]], home: str, needed: str) -> str | None:
    """Why a node cannot work for this command, or None; on the node, with the standard library only."""
    try:
        same = Path(token).read_text(encoding="utf-8") == content
    except OSError:
        same = False
    if not same:
        return f"does not see {Path(token).parent}"
    for name, size in files:
        if not Path(name).exists() or (size >= 0 and Path(name).stat().st_size != size):
            return f"does not see {name} as it is here"
    if not Path(home).is_dir():
        return f"has no djsb at {home}"
    have = importlib.metadata.version("py-data-juicer")
    return None if have == needed else f"has Data-Juicer {have}, and {needed} is here"


class Nodes:
    """The nodes that can work for this command. Make it with `checked_nodes`."""

    def __init__(self, token: Path, content: str, shared: Sequence[Path], tell: Callable[[str], None]) -> None:
        files = [(str(f), f.stat().st_size if f.is_file() else -1) for f in shared if f.exists()]
        self._question = (str(token), content, files, str(HOME), version())
        self._tell = tell
        self._looks: dict[str, Any] = {}  # node → its answer to come
        self._answers: dict[str, str | None] = {}

    def first(self) -> list[Node]:
        """Those that are there now, after all have answered. Raises: StudyError when one of them cannot work for us."""
        deadline = time.monotonic() + LOOK
        there = self._asked()
        while self._looks and time.monotonic() < deadline:
            ray.wait(list(self._looks.values()), timeout=1.0)
            self._hear()
        for node in there:
            if why := self._answers.get(node.id):
                raise StudyError(f"executor: {node.name} ({node.host}) {why}; {REMEDY}")
        return self._fit(there)

    def now(self) -> list[Node]:
        """Those that can work for us by now; one that has joined and cannot is told of, and left aside."""
        there = self._asked()
        for node, why in self._hear().items():
            if why:
                self._tell(f"node-{node[:8]} has joined the Ray cluster and is not used, as it {why}; {REMEDY}")
        return self._fit(there)

    def _fit(self, there: list[Node]) -> list[Node]:
        return [n for n in there if n.id in self._answers and self._answers[n.id] is None]

    def _asked(self) -> list[Node]:
        there = alive()
        for node in there:
            if node.id not in self._looks and node.id not in self._answers:
                look: Any = ray.remote(_look)
                self._looks[node.id] = look.options(
                    num_cpus=0, max_retries=0, scheduling_strategy=on_node(node.id)
                ).remote(*self._question)
        return there

    def _hear(self) -> dict[str, str | None]:
        """The answers that have come since. A node that went before it has answered has none."""
        new: dict[str, str | None] = {}
        done = ray.wait(list(self._looks.values()), num_returns=len(self._looks), timeout=0)[0] if self._looks else []
        for node, answer in list(self._looks.items()):
            if answer in done:
                del self._looks[node]
                try:
                    new[node] = ray.get(answer)
                except RayError as error:
                    new[node] = f"did not answer ({type(error).__name__})"
        self._answers |= new
        return new


@contextmanager
def checked_nodes(folder: Path, shared: Sequence[Path], tell: Callable[[str], None]) -> Iterator[Nodes]:
    """The nodes that see `folder`, where a token lies during the block, and the files and folders `shared`."""
    token, content = folder / f".djsb-token-{os.getpid()}-{secrets.token_hex(4)}", secrets.token_hex(16)
    token.write_text(content, encoding="utf-8")
    try:
        yield Nodes(token, content, shared, tell)
    finally:
        token.unlink(missing_ok=True)


@contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[None]:
    """A connection to the cluster; one within another is the same.

    address: of a running cluster; None: RAY_ADDRESS, or a Ray of this machine's own, of `workers` CPUs, which ends with
    the block. Raises: StudyError.
    """
    if ray.is_initialized():
        yield
        return
    _connect(address or os.environ.get("RAY_ADDRESS") or "local", workers)
    try:
        yield
    finally:
        ray.shutdown()  # disconnects; ends only a Ray that was started here


def _connect(address: str, workers: int | None) -> None:
    """Connect to the cluster, quietly; `local` starts one on this machine. Ray's handler of SIGTERM is taken back."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
    own: dict[str, Any] = {}
    host, _, port = address.rpartition(":")
    if address not in ("local", "auto") and ("://" in address or not port.isdigit()):
        raise StudyError(f"executor.address: {address} is not the host:port of a Ray cluster's head, as 10.0.0.1:6379")
    if address == "local":
        cores = len(os.sched_getaffinity(0))
        own = {"num_cpus": workers or cores, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    ray._private.worker.print_to_stdstream = lambda *_, **__: None  # it reports lost nodes on standard output
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if host:  # Ray itself would wait for minutes
            socket.create_connection((host.strip("[]"), int(port)), ANSWER).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StudyError(
            f"executor.address: no connection to the Ray cluster {address} ({reason}); start it (ray start --head), "
            "run djsb on one of its nodes, and set RAY_AUTH_MODE=token if it asks for a token"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
