"""Devices of a Ray cluster and the worker on each: an actor on the device's node starts it and relays its events.

The engine stays the only writer of the database; a node runs `djsb.py worker` and no more. What must hold:

- the engine runs on a node of the cluster, which it reaches at `address`, RAY_ADDRESS, or starts for itself;
- the study's folder and its data lie on a file system that all nodes see under the same path;
- djsb and its Python are installed under the same path on all nodes.

A node that joins later is used from then on. A lost node's trials go to the others. When the cluster's head is lost,
the engine ends; the same command goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray.cloudpickle
from ray.exceptions import ActorUnavailableError, RayError

from engine.base.errors import StudyError, TrialError
from engine.base.paths import ENTRY
from engine.data import cluster
from engine.data.cluster import ANSWER, Node, Nodes
from engine.runner.device import Events, Listener, Slot, Slots, grouped, joint, left_over, worker_env
from engine.tasks.contract import BARE

POLL = 5.0  # seconds that a question for events waits on the node
JOINING = 5.0  # seconds between two looks for nodes that have joined


class _Relay:
    """The actor: a worker on its node, and the worker's events for the engine.

    It travels by value and uses the standard library and Ray only. When it dies, the worker's standard input closes,
    and the worker ends.
    """

    HELD = 256  # pieces of output that wait for the engine

    def __init__(self, command: list[str], env: dict[str, str], log: str) -> None:
        self._output: list[bytes] = []
        self._dropped = 0
        self._end: str | None = None
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        if granted := ray.get_runtime_context().get_accelerator_ids().get("GPU"):
            env = {**env, "CUDA_VISIBLE_DEVICES": ",".join(granted)}
        seen = Path(log).parent.is_dir()  # if not, the first job says so
        with Path(log if seen else os.devnull).open("ab") as stderr:
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
                    env={**os.environ, **env}, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                self._end = f"no start of {command[0]}: {error.strerror}; install djsb at this path on all nodes"
                return
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        while data := os.read(process.stdout.fileno(), 2**16):
            with self._changed:
                self._changed.wait_for(lambda: len(self._output) < self.HELD)  # the worker waits for the engine
                self._output.append(data)
                self._changed.notify_all()
        code = process.wait()
        with self._changed:
            self._end = f"exit code {code}"
            self._changed.notify_all()

    def next_output(self, seen: int, wait: float) -> tuple[list[bytes], str | None]:
        """The worker's output after the first `seen` pieces, waiting for one a while; and how it ended, once it did."""
        with self._changed:
            del self._output[: max(0, seen - self._dropped)]
            self._dropped = max(seen, self._dropped)
            self._changed.notify_all()
            self._changed.wait_for(lambda: bool(self._output) or self._end is not None, wait)
            return list(self._output), self._end

    def send(self, line: str, folder: str | None) -> bool:
        """Give the worker a job; False when the folder that it needs is not there."""
        if folder is not None and not Path(folder).is_dir():
            return False
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its end arrives as an event
        return True

    def stop(self) -> None:
        """End the worker and wait for it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class RaySlot(Slot):
    """A device of a Ray cluster's node, or several, and the worker on it."""

    def __init__(self, node: str, names: Sequence[str], logs: Path, events: Events, bare: bool = False) -> None:
        """node: Ray's id of the node. names: of the devices there, `gpu0` or `cpu1`. bare: another program trains."""
        name = joint(names)
        super().__init__(f"node-{node[:8]}/{name}", logs / f"worker-node-{node[:8]}-{name}.log", events, names)
        self._node, self._env = node, worker_env(names) | ({BARE: "1"} if bare else {})
        self._actor: Any = None
        self._listener: threading.Thread | None = None
        self._end: str | None = None

    @property
    def started(self) -> bool:
        """See Slot."""
        return self._actor is not None

    def start(self) -> None:
        """See Slot."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        on_gpu = self.devices[0].startswith("gpu")
        share = {"num_cpus": 0, "num_gpus": self.width} if on_gpu else {"num_cpus": self.width}
        relay: Any = ray.remote(_Relay)
        if not on_gpu:
            cluster.claims.add(self)
        self._actor = relay.options(
            **share, max_restarts=0, max_concurrency=4, scheduling_strategy=cluster.on_node(self._node)
        ).remote([sys.executable, str(ENTRY), "worker"], self._env, str(self.log))  # fmt: skip
        self._end = None
        self._listener = threading.Thread(target=self._listen, args=(self._actor, self.reborn()), daemon=True)
        self._listener.start()

    def _listen(self, actor: Any, listener: Listener) -> None:
        """Pass the worker's output on until its end, or until it is killed."""
        seen, end = 0, None
        while end is None and self._actor is actor:
            output: list[bytes] = []
            try:
                output, end = ray.get(actor.next_output.remote(seen, POLL))
                if end is not None:  # does the actor go too? A node that breaks down ends both, the worker first
                    time.sleep(1)
                    ray.get(actor.next_output.remote(seen, 0.0))
            except ActorUnavailableError:  # the network, perhaps: nothing is lost, as `seen` says what has arrived
                end = None
                time.sleep(1)
                continue
            except RayError as error:
                end = self._fate(actor, error)
            seen += len(output)
            for data in output:
                listener.feed(data)
        if self._actor is actor:
            self._end = end
            listener.end()

    def _fate(self, actor: Any, error: RayError) -> str:
        """Why the actor died; finds whether its node is lost."""
        if cluster.is_lost(self._node, lambda: self._actor is actor):
            self.lost = True
            return "its node is lost"
        detail = " ".join(str(error).split()).split("exit detail: ")[-1].split(". ")[0]
        return f"its Ray actor ended: {detail[-200:]}"

    def send(self, message: dict[str, Any]) -> None:
        """See Slot. Raises: TrialError when the node does not see the study."""
        folder = message.get("prepared")
        try:
            seen = ray.get(self._actor.send.remote(json.dumps(message, allow_nan=False), folder), timeout=ANSWER)
        except RayError:
            seen = True  # its end arrives as an event
        if not seen:
            raise TrialError(
                f"{self.device.split('/')[0]} does not see {folder}; put the study on a file system "
                "that all nodes of the Ray cluster see under the same path"
            )
        self.heard = time.monotonic()

    def kill(self) -> None:
        """See Slot."""
        actor, self._actor = self._actor, None
        cluster.claims.discard(self)
        if actor is None:
            return
        with suppress(RayError):  # it is gone, or not there yet: the worker ends with its actor
            ray.get(actor.stop.remote(), timeout=ANSWER if self.ready else 1.0)
        ray.kill(actor, no_restart=True)
        self.reborn()
        if self._listener is not None:
            self._listener.join(ANSWER)

    def died(self) -> str | None:
        """See Slot."""
        return None if self._actor is None or self._end is None else f"the worker died ({self._end})"


class RaySlots(Slots):
    """The devices of a cluster's nodes: GPUs, or CPUs where no node had a GPU at the start."""

    def __init__(
        self, nodes: Nodes, workers: int | None, logs: Path, events: Events, tell: Callable[[str], None], each: int,
        bare: bool,
    ) -> None:  # fmt: skip
        """Those of the nodes that are there, `each` of one node to a slot. Raises: StudyError when there are none."""
        super().__init__()
        self._nodes, self._workers, self._logs, self._events = nodes, workers, logs, events
        self._tell, self._each, self._bare, self._seen = tell, each, bare, set[str]()
        self._on_gpus, self._looked = any(n.gpus for n in cluster.alive()), time.monotonic()
        self._add(cluster.alive())
        if not self:
            if each > 1 and (most := max(map(self._count, cluster.alive()), default=0)):
                offered = min(most, workers or most)
                raise StudyError(
                    f"devices_per_trial is {each}, and no node of the Ray cluster offers more than {offered}; lower it"
                )
            raise StudyError("the Ray cluster has neither GPUs nor CPUs; start its nodes with ray start --num-cpus=…")

    def joined(self) -> list[Slot]:
        """See Slots. A node that does not see the study is told of, and left aside."""
        if time.monotonic() - self._looked < JOINING:
            return []
        self._looked = time.monotonic()
        return self._add(self._nodes.now())

    def _add(self, nodes: list[Node]) -> list[Slot]:
        have = {slot.device for slot in self}
        new: list[Slot] = []
        for node in nodes:
            names = [f"{'gpu' if self._on_gpus else 'cpu'}{i}" for i in range(self._count(node))]
            slots = [
                RaySlot(node.id, some, self._logs, self._events, self._bare) for some in grouped(names, self._each)
            ]
            new += [slot for slot in slots if slot.device not in have]
            if node.id not in self._seen and (idle := left_over(names, self._each)):
                self._tell(f"node-{node.id[:8]}: {idle}")
            self._seen.add(node.id)
        if self._workers is not None:
            new = new[: max(0, self._workers // self._each - sum(not slot.lost for slot in self))]
        self.extend(new)
        return new

    def _count(self, node: Node) -> int:
        return node.gpus if self._on_gpus else node.cpus


@contextmanager
def ray_slots(
    address: str | None, workers: int | None, logs: Path, events: Events, tell: Callable[[str], None] = lambda _: None,
    each: int = 1, bare: bool = False,
) -> Iterator[RaySlots]:  # fmt: skip
    """One slot per GPU of the cluster, or per CPU if it has none; the workers end with the block.

    address: of a running cluster; None: RAY_ADDRESS, or a Ray of this machine's own. workers: most devices. tell: takes
    what a person should know of nodes that join, and of devices that stay idle. each: devices of a slot, all of one
    node. bare: the workers start another program, which trains.
    Raises: StudyError when there is no such cluster, or no node of it has devices for a slot.
    """
    with cluster.connected(address, workers), cluster.checked_nodes(logs.parent, (), tell) as nodes:
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
        slots = RaySlots(nodes, workers, logs, events, tell, each, bare)
        try:
            yield slots
        finally:
            slots.close()
