"""TensorBoard: a folder of event files a trial, and one of the study's answer and leaderboard."""

from __future__ import annotations

from typing import Any

from tensorboard.backend.event_processing.event_accumulator import STORE_EVERYTHING_SIZE_GUIDANCE, EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo
from tensorboard.plugins.text import metadata as text
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util import tensor_util

from engine.base.confine import inside
from engine.track.contract import Target
from engine.track.records import StudyRun, TrialRun

STUDY = "study"
BEGUN = hparams.SESSION_START_INFO_TAG


class Tensorboard:
    """Event files in `track/tensorboard`. What they hold already is read of them when a trial is first written."""

    live, writer = True, EventFileWriter

    def __init__(self, target: Target) -> None:
        self.folder = inside(target.own, "tensorboard")
        self.look = f"tensorboard --logdir {self.folder}"
        self._has: dict[str, set[tuple[str, int]]] = {}

    def write(self, run: TrialRun) -> int:
        """Append what the trial's files lack."""
        has = self._known(run.id)
        new = [p for p in run.whole if (p.name, p.step) not in has]
        events = [Event(wall_time=run.at(p.step), step=p.step, summary=_scalar(p.name, p.value)) for p in new]
        if (BEGUN, 0) not in has:
            events.insert(0, Event(wall_time=run.began, summary=_begin(run)))
        if events:
            self._append(run.id, events)
        has |= {(p.name, p.step) for p in new} | {(BEGUN, 0)}
        if run.ended is not None:
            del self._has[run.id]
        return len(new)

    def summarise(self, study: StudyRun) -> None:
        """Append the answer with the leaderboard as text, and the numbers, where this step has none yet."""
        has = self._known(STUDY)
        summary = [_scalar(n, v) for n, v in study.numbers.items() if (n, study.step) not in has]
        last = self._text()
        said = tensor_util.make_tensor_proto([study.text.encode()])
        if last != study.text:
            value = Summary.Value(tag="answer", metadata=text.create_summary_metadata("answer", ""), tensor=said)
            summary.append(Summary(value=[value]))
        self._append(STUDY, [Event(wall_time=study.began, step=study.step, summary=s) for s in summary])
        has |= {(n, study.step) for n in study.numbers}

    def close(self) -> None:
        """Nothing is left open."""

    def _append(self, name: str, events: list[Event]) -> None:
        if not events:
            return
        writer = self.writer(str(inside(self.folder, name)))
        for event in events:
            writer.add_event(event)
        writer.close()

    def _known(self, name: str) -> set[tuple[str, int]]:
        """(name, step) of what the files hold."""
        if name not in self._has:
            files = self._read(name)
            tags = files.Tags() if files else {}
            self._has[name] = {(t, e.step) for t in tags.get("scalars", ()) for e in files.Scalars(t)}
            if files and BEGUN in files.summary_metadata:
                self._has[name].add((BEGUN, 0))
        return self._has[name]

    def _text(self) -> str | None:
        """The answer that was written last."""
        files = self._read(STUDY)
        if files is None or "answer" not in files.Tags()["tensors"]:
            return None
        return str(tensor_util.make_ndarray(files.Tensors("answer")[-1].tensor_proto)[0].decode())

    def _read(self, name: str) -> Any:
        folder = inside(self.folder, name)
        if not folder.is_dir():
            return None
        files = EventAccumulator(str(folder), STORE_EVERYTHING_SIZE_GUIDANCE, purge_orphaned_data=False)
        return files.Reload()


def _begin(run: TrialRun) -> Summary:
    """The parameters, for the tab HPARAMS."""
    info = SessionStartInfo(start_time_secs=run.began)
    for name, value in {**run.params, "name": run.name}.items():
        kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
        setattr(info.hparams[name], f"{kind}_value", value)
    about = hparams.create_summary_metadata(HParamsPluginData(session_start_info=info))
    return Summary(value=[Summary.Value(tag=BEGUN, metadata=about, tensor=hparams.NULL_TENSOR)])


def _scalar(name: str, value: float) -> Summary:
    return Summary(value=[Summary.Value(tag=name, simple_value=value)])
