"""Data work on a Ray cluster: the same results as here, whatever becomes of workers and nodes."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402

from engine.base.errors import MachineError, OpError, StudyError  # noqa: E402
from engine.base.parallel import run_chunks  # noqa: E402
from engine.data import cluster as nodes_of  # noqa: E402
from engine.data import dedup, selection, statistics  # noqa: E402
from engine.data.cluster_chunks import on_cluster  # noqa: E402
from engine.settings.running import ExecutorSection  # noqa: E402
from engine.study.opened import open_study  # noqa: E402
from tests.conftest import Tiny, make_tiny, run_djsb, the_error, write_jsonl  # noqa: E402
from tests.ray_nodes import NODE, cluster  # noqa: E402

__all__ = ["cluster"]  # a fixture
pytestmark = pytest.mark.slow
Job = tuple[int, Path]


@contextmanager
def crew(cluster: Cluster, folder: Path, told: list[str], shared: tuple[Path, ...] = ()) -> Iterator[None]:
    with on_cluster(ExecutorSection(kind="ray", address=cluster.address), None, folder, shared, told.append):
        yield


def slow_square(job: Job) -> tuple[int, str]:
    """A number's square, and the node that made it."""
    time.sleep(0.0 if (job[1] / "hurry").exists() else 0.3)
    return job[0] ** 2, ray.get_runtime_context().get_node_id()


def fatal(job: Job) -> int:
    """Its process is killed once, or every time."""
    number, marker = job
    if number == 3 and (not marker.exists() or marker.name == "always"):
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refused(job: Job) -> int:
    raise OpError(f"no {job[0]}; try another")


@pytest.mark.long
def test_a_node_that_joins_is_used_and_one_that_is_lost_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    told: list[str] = []
    squares: list[int] = []
    by: list[str] = []
    extra = None
    with crew(cluster, tmp_path, told):
        for square, node in run_chunks(slow_square, [(n, tmp_path) for n in range(600)], 1):
            squares.append(square)
            by.append(node)
            if extra is None:
                extra = cluster.add_node(**NODE)
            elif by.count(extra.node_id) == 3 and extra in cluster.worker_nodes:
                cluster.remove_node(extra, allow_graceful=False)
            elif told:
                (tmp_path / "hurry").touch()
    assert extra is not None and 3 <= by.count(extra.node_id) < 10
    assert sorted(squares) == [n**2 for n in range(600)]
    (line,) = told
    assert line.startswith(f"node-{extra.node_id[:8]} (")
    assert line.endswith(") of the Ray cluster is lost; its chunks are done again elsewhere")
    assert not list(tmp_path.glob(".djsb-token*"))


@pytest.mark.long
def test_a_worker_that_dies_is_replaced_once(cluster: Cluster, tmp_path: Path) -> None:
    with crew(cluster, tmp_path, []):
        assert sorted(run_chunks(fatal, [(n, tmp_path / "once") for n in range(6)], 1)) == [0, 1, 2, 3, 4, 5]
        with pytest.raises(MachineError, match=r"^a data worker died, .*; lower --workers"):
            list(run_chunks(fatal, [(n, tmp_path / "always") for n in range(6)], 1))
        with pytest.raises(OpError, match=r"^no 7; try another$"):
            list(run_chunks(refused, [(7, tmp_path)], 1))


def test_a_node_that_does_not_see_the_study_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text("{}")
    with nodes_of.connected(cluster.address, None):
        for content, shared, what in (("other", (), tmp_path), (None, (file,), file)):
            with nodes_of.checked_nodes(tmp_path, shared, lambda _: None) as nodes:
                if content:
                    next(tmp_path.glob(".djsb-token-*")).write_text(content)
                else:
                    file.write_text("{}\n")  # another size there than here
                with pytest.raises(
                    StudyError, match=f"^executor: node-.* does not see {what}.*; put the study and its data"
                ):
                    nodes.first()


def caches(folder: Path) -> dict[str, str]:
    """Name → hash of what a study keeps of its data."""
    found = {}
    for file in sorted((folder / ".djsb" / "cache").rglob("*.np[yz]")):
        found[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def text_rows(n: int) -> list[dict[str, Any]]:
    return [{"id": i, "text": f"{'word ' * (i % 13)}end! {'x' * (i % 7)} {i % 90}"} for i in range(n)]


@pytest.mark.long
def test_statistics_and_duplicates_are_those_of_here(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "CHUNK", 50)
    monkeypatch.setattr(statistics, "MEDIA_CHUNK", 50)
    monkeypatch.setattr(dedup, "CHUNK", 50)
    extra = cluster.add_node(**NODE)
    made: dict[str, Tiny] = {}
    kept: dict[str, dict[str, str]] = {}
    removed: dict[str, list[Any]] = {}
    settings = {
        "ops": {"text_length_filter": {}, "words_num_filter": {}, "image_shape_filter": {}},
        "dedup": {"text": "minhash"},
    }
    try:
        for name in ("here", "there"):
            tiny = made[name] = make_tiny(tmp_path / name)
            executor = {"kind": "ray", "address": cluster.address} if name == "there" else {"kind": "local"}
            tiny.set({**settings, "executor": executor})
            with (opened := open_study(tiny.study, 2)).store:
                assert len(opened.columns) == 4
                removed[name] = opened.duplicates()
            kept[name] = caches(tiny.study)
    finally:
        cluster.remove_node(extra)
    assert kept["here"] == kept["there"] != {}
    assert removed["here"] == removed["there"] != []
    # what was made there is taken here
    made["there"].set(settings)
    with monkeypatch.context() as patch:
        patch.setattr(statistics, "run_chunks", lambda *_: pytest.fail("computed again") if _[1] else [])
        patch.setattr(dedup, "run_chunks", lambda *_: pytest.fail("computed again"))
        with (opened := open_study(made["there"].study, 2)).store:
            assert len(opened.columns) == 4 and opened.duplicates() == removed["here"]


@pytest.mark.long
def test_apply_keeps_the_rows_of_here_and_goes_on_after_a_kill(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.commands.apply import Form, apply

    monkeypatch.setattr(selection, "CHUNK", 50)
    data = write_jsonl(tmp_path / "data.jsonl", [*text_rows(400), {"id": 400, "text": 5}])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "process:\n- words_num_filter: {min_num: 3, max_num: 9}\n- special_characters_filter: {max_ratio: 0.3}\n"
    )
    there = ExecutorSection(kind="ray", address=cluster.address)

    def run(out: str, executor: ExecutorSection, notice: Any = lambda *_: None) -> dict[str, Any]:
        return apply(recipe, data, tmp_path / out, Form("jsonl", 60), None, 2, notice, executor)

    here = run("here", ExecutorSection())

    def killed(_what: str, done: int, _total: int) -> None:
        if done >= 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("there", there, killed)
    assert not ray.is_initialized()
    judged: list[int] = []
    real = selection.run_chunks
    monkeypatch.setattr(
        selection, "run_chunks", lambda work, jobs, *_: judged.extend(q.start for q in jobs) or real(work, jobs, *_)
    )
    assert {**run("there", there), "out": ""} == {**here, "out": ""}
    assert 0 < len(judged) <= 5  # of nine chunks
    files = sorted(f.name for f in (tmp_path / "here").iterdir())
    assert files == sorted(f.name for f in (tmp_path / "there").iterdir()) and len(files) > 2
    for name in files:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_the_command_says_what_is_wrong_with_an_address(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", text_rows(10))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("process:\n- words_num_filter: {min_num: 3}\n")
    done = run_djsb(
        "apply", str(recipe), "--data", str(data), "--out", str(tmp_path / "out.jsonl"),
        "--executor", "ray", "--address", "127.0.0.1:1",
    )  # fmt: skip
    assert the_error(done).startswith("djsb: executor.address: no connection to the Ray cluster 127.0.0.1:1")
