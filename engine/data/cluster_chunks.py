"""Chunks of data work on a Ray cluster: what `run_chunks` does with processes of this machine, with the same results.

An actor on a node is a worker: it imports djsb once and does one chunk after another. There are as many as a node has
CPUs, or GPUs for OPs with a model. A chunk of a worker that died, or of a node that was lost, is done again by another.
What is kept of the results is the caller's to say, as with workers here.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Generic

import ray.cloudpickle
from ray.exceptions import RayError, RayTaskError

from engine.base.environment import passed
from engine.base.errors import DjsbError, MachineError, StudyError
from engine.base.parallel import RETRIES, WORKER_DIED, Job, Result, done_elsewhere
from engine.base.paths import HOME
from engine.data import cluster
from engine.data.cluster import REMEDY, Node, Nodes
from engine.data.datajuicer import OFFLINE
from engine.settings.running import ExecutorSection

TURN = 1.0  # seconds between two looks at which nodes are there
PATIENCE = 60.0  # seconds that work waits for a node, or for CPUs that others hold
# what names files or how OPs work; all else of the environment is the node's own
PASSED = ("DATA_JUICER_", "DJ_", "DJSB_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "NLTK_DATA")


class _Hand:
    """The actor: a process on a node. It travels by value; the work that it does is imported from the node's djsb."""

    def __init__(self, home: str, env: dict[str, str]) -> None:
        os.environ.update(env)
        sys.path.insert(0, home)

    def begin(self, on_gpu: bool) -> None:
        """Import what work needs."""
        from engine.base.parallel import take_place
        from engine.data.datajuicer import load_op

        granted = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        take_place(",".join(granted) if on_gpu else "")
        load_op("text_length_filter", {})

    def do(self, content: bytes) -> Any:
        """Do one job."""
        work, job = pickle.loads(content)
        return work(job)


class _Worker:
    """An actor. answer: to what it was asked, or None. job: the number of the one that it does, or None."""

    def __init__(self, node: Node, on_gpu: bool) -> None:
        self.node = node
        self.job: int | None = None
        # the CPUs that this engine's own trial workers hold stand idle meanwhile
        share = {"num_cpus": 0, "num_gpus": 1} if on_gpu else {"num_cpus": 0 if cluster.claims else 1}
        env = {k: v for k, v in passed().items() if k.startswith(PASSED)} | OFFLINE
        hand: Any = ray.remote(_Hand)
        options = {**share, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": cluster.on_node(node.id)}
        self._actor = hand.options(**options).remote(str(HOME), env)
        self.answer: Any = self._actor.begin.remote(on_gpu)

    def give(self, number: int, content: bytes) -> None:
        """Have it do a job."""
        self.job, self.answer = number, self._actor.do.remote(content)

    def end(self) -> None:
        """End it at once. With the connection it has ended already."""
        if ray.is_initialized():
            ray.kill(self._actor, no_restart=True)


class _Work(Generic[Job, Result]):
    """Jobs on their way through the workers of a cluster."""

    def __init__(
        self, work: Callable[[Job], Result], jobs: Sequence[Job], on_gpus: bool, nodes: Nodes, most: int | None,
        tell: Callable[[str], None], workers: list[_Worker],
    ) -> None:  # fmt: skip
        """workers: that are there already; this list holds the idle ones again at the end."""
        self._work, self._jobs, self._on_gpus, self._most, self._tell = work, jobs, on_gpus, most, tell
        self._nodes, self._looked = nodes, 0.0
        self._queue = deque(range(len(jobs)))
        self._workers = workers
        self._room: dict[str, int] = {}  # node → workers that it bears, once one of them died
        self._lost: set[str] = set()
        self._deaths: Counter[int | None] = Counter()  # job → workers that died of it; None: at their start
        self._since = time.monotonic()  # when something was done last
        self._waits = False

    def results(self) -> Iterator[Result]:
        """Of all jobs, as they come."""
        try:
            while self._queue or any(w.job is not None for w in self._workers):
                self._hire()
                for worker in self._workers:
                    if worker.answer is None and self._queue:
                        number = self._queue.popleft()
                        worker.give(number, pickle.dumps((self._work, self._jobs[number])))
                yield from self._answers()
        finally:
            for worker in self._workers:
                if worker.answer is not None:
                    worker.end()
            self._workers[:] = [w for w in self._workers if w.answer is None]

    def _hire(self) -> None:
        """Start workers where there is room for them, also on nodes that have joined since."""
        if time.monotonic() - self._looked < TURN:
            return
        for node in self._nodes.now():
            has = node.gpus if self._on_gpus else node.cpus
            room = min(has, self._room.get(node.id, has)) - sum(w.node.id == node.id for w in self._workers)
            free = sum(w.job is None for w in self._workers)
            allowed = room if self._most is None else min(room, self._most - len(self._workers))
            for _ in range(min(allowed, len(self._queue) - free)):
                self._workers.append(_Worker(node, self._on_gpus))
        self._looked = time.monotonic()

    def _answers(self) -> Iterator[Result]:
        asked = {w.answer: w for w in self._workers if w.answer is not None}
        if not asked:
            self._wait()
            time.sleep(TURN)
            return
        done, _ = ray.wait(list(asked), timeout=TURN)
        if not done and all(w.job is None for w in self._workers):
            self._wait()
        for answer in done:
            worker, self._since, self._waits = asked[answer], time.monotonic(), False
            try:
                result = ray.get(answer)
            except RayTaskError as error:
                self._workers.remove(worker)
                worker.end()
                cause = error.cause or error
                if worker.job is None and not isinstance(cause, DjsbError):
                    why = f"cannot start a data worker ({cause})"
                    raise StudyError(f"executor: {worker.node.name} ({worker.node.host}) {why}; {REMEDY}") from None
                raise cause from None
            except RayError:
                self._replace(worker)
                continue
            job, worker.job, worker.answer = worker.job, None, None
            if job is not None:
                yield result

    def _wait(self) -> None:
        """Nothing is being done. Raises: MachineError when no node has come for a while."""
        if self._waits or time.monotonic() - self._since < PATIENCE:
            return
        what = "GPUs" if self._on_gpus else "CPUs"
        if not self._workers:
            raise MachineError(
                f"no node of the Ray cluster has had {what} for {PATIENCE:.0f} s; see ray status, bring a node back, "
                "then run the same command again"
            )
        self._waits = True
        self._tell(
            f"nothing has begun for {PATIENCE:.0f} s: the nodes are slow, or others hold the Ray cluster's {what} "
            "(ray status); it waits for them"
        )

    def _replace(self, worker: _Worker) -> None:
        """A worker is gone: its job is done again. Raises: MachineError when workers die of it on sound nodes."""
        self._workers.remove(worker)
        worker.end()
        job, node = worker.job, worker.node
        if job is not None:
            self._queue.appendleft(job)
        if node.id in self._lost or cluster.is_lost(node.id):
            if node.id not in self._lost:
                self._tell(f"{node.name} ({node.host}) of the Ray cluster is lost; its chunks are done again elsewhere")
            self._lost.add(node.id)
            return
        self._deaths[job] += 1
        if self._deaths[job] > RETRIES:
            raise MachineError(WORKER_DIED)
        self._room[node.id] = max(1, sum(w.node.id == node.id for w in self._workers) // 2)


class RayWorkers:
    """The workers of a cluster, which is connected to when there is something to do."""

    def __init__(
        self, stack: ExitStack, executor: ExecutorSection, most: int | None, folder: Path, shared: Sequence[Path],
        tell: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._stack, self._executor, self._most, self._tell = stack, executor, most, tell
        self._folder, self._shared = folder, shared
        self._nodes: Nodes | None = None
        self._workers: dict[bool, list[_Worker]] = {False: [], True: []}  # on GPUs or not → those that stay

    def gpus(self) -> tuple[str, ...]:
        """See Elsewhere."""
        self._connect()
        return tuple(f"{node.name}/gpu{i}" for node in cluster.alive() for i in range(node.gpus))

    def run(self, work: Callable[[Job], Result], jobs: Sequence[Job], on_gpus: bool) -> Iterator[Result]:
        """See Elsewhere. Raises: MachineError, StudyError, and what the work raises."""
        if jobs:
            nodes = self._connect()
            workers = self._workers[on_gpus]
            yield from _Work(work, jobs, on_gpus, nodes, self._most, self._tell, workers).results()

    def _connect(self) -> Nodes:
        if self._nodes is None:
            self._stack.enter_context(cluster.connected(self._executor.address, self._most))
            ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
            nodes = cluster.checked_nodes(self._folder, self._shared, self._tell)
            self._nodes = self._stack.enter_context(nodes)
            self._stack.callback(self._end)
            self._nodes.first()
        return self._nodes

    def _end(self) -> None:
        for worker in (*self._workers[False], *self._workers[True]):
            worker.end()


@contextmanager
def on_cluster(
    executor: ExecutorSection, most: int | None, folder: Path, shared: Sequence[Path], tell: Callable[[str], None]
) -> Iterator[None]:
    """Have a Ray cluster do what `run_chunks` is given within the block.

    most: workers at once. folder, shared: what all nodes must see. tell: takes what a person should know of nodes.
    """
    with ExitStack() as stack, done_elsewhere(RayWorkers(stack, executor, most, folder, shared, tell)):
        yield
