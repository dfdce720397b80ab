"""`djsb check`: what the study holds, and what is missing, before anything is spent."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from app.text.printable import say
from engine.base.errors import DjsbError
from engine.data.addressed import picture_addresses
from engine.journal import caches
from engine.journal.store import Row
from engine.review.guard import check_guard
from engine.study.opened import OpenStudy, held, open_study
from engine.study.plugged import plugins_of
from engine.study.rows import Notice
from engine.study.sample import Seen
from engine.tasks.contract import Remarks
from engine.track.targets import lacking

LOOKED_AT = 1_000  # rows whose media's headers are told of
EXAMPLES = 5  # pairs of rows that are alike, that are shown
LOOK = 200  # rows that tell whether there are addresses of images


def check(folder: Path, workers: int | None, notice: Notice, deep: bool = False) -> Row:
    """Problems and findings of a study; problems stop a run, findings do not.

    All rows and headers are read, and a sample is decoded. deep: decode all that is decoded before training, and
    compare all bytes of caches, checkpoints and training states with their sums, however many they are.
    """
    from engine.base.gpus import gpus
    from engine.study.forecast import refuse_if_full
    from engine.study.sample import all_rows, look_at

    found: Row = {"problems": [], "findings": [], "bad_rows": [], "duplicates": [], "ops": [], "left_out": []}
    found["inputs"], found["warnings"], found["overlap"] = [], [], None
    found["plugins"], found["overlaps"] = [], []
    opened = open_study(folder, workers, notice)
    with opened.store, held(opened, deep) as verified:
        found["verified"] = asdict(verified)
        found["plugins"] = [asdict(used) for used in plugins_of(opened)]
        try:
            check_guard(opened.study)
        except DjsbError as error:
            found["problems"].append(str(error))
        _check_rows(opened, found, "data", deep)
        if opened.has_evaluation_rows:
            _check_rows(opened, found, "evaluation", deep)
        if not found["problems"]:
            _check_overlap(opened, found, deep)
            _check_held_back(opened, found)
            _check_media(opened, found)
            try:
                refuse_if_full(opened)
                seen = (
                    None if opened.study.task is None else all_rows(opened) if deep else look_at(opened, decode=False)
                )
                _check_disk(opened, seen, found)
            except DjsbError as error:
                found["problems"].append(str(error))
        if not found["problems"]:
            _check_ops_and_task(seen.study if seen else opened, seen, found)
        if not found["problems"]:
            _check_inputs(seen.study if seen else opened, found)
        found["warnings"] += [t for kind in opened.study.track.kinds if (t := lacking(kind))]
    if opened.study.executor.kind == "slurm":
        _check_slurm(opened, workers, found)
        return found
    devices = gpus()
    found["findings"].append(f"devices: {len(devices)} GPU(s)" if devices else "devices: no GPU; CPU cores are used")
    return found


def _check_slurm(opened: OpenStudy, workers: int | None, found: Row) -> None:
    """What Slurm would be asked for; nothing is submitted."""
    from engine.runner.slurm_jobs import asked_for, lacking

    try:
        found["findings"] += asked_for(opened.study.executor.slurm, workers, opened.study.devices_per_trial)
    except DjsbError as error:
        found["problems"].append(str(error))
    if missing := lacking():
        found["problems"].append(missing)


def _check_rows(opened: OpenStudy, found: Row, name: str, deep: bool) -> None:
    from engine.data.scan import quarantine_id
    from engine.study.sample import skip_search

    try:
        if name == "data" and not deep and (note := skip_search(opened)):
            found["findings"].append(note)
        data = opened.data if name == "data" else opened.evaluation
        result = opened.scan if name == "data" else opened.evaluation_scan
    except DjsbError as error:
        found["problems"].append(str(error))
        return
    found["findings"].append(f"{name}: {len(result.good)} rows, {result.bad} of them bad")
    if name == "data" and data.modalities == {"text"} and (url := picture_addresses(data.reader.read(0, LOOK))):
        found["findings"].append(f"data: {url} has addresses of images that are not here; texts alone are studied")
    if name == "data" and result.duplicates:
        found["duplicates"] = [asdict(row) for row in opened.duplicates()]
        found["findings"].append(f"data: {result.duplicates} rows are like earlier ones and left out (dedup)")
    bad = caches.bad_rows(opened.store, quarantine_id(data), 100)
    found["bad_rows"] += [{"file": name, **asdict(row)} for row in bad]


def _check_overlap(opened: OpenStudy, found: Row, deep: bool) -> None:
    """What the models are judged by and the training rows have in common; of large data by a sample, unless all were
    compared.
    """
    try:
        every = opened.comparison.overlaps(quick=not deep)
    except DjsbError as error:
        found["problems"].append(str(error))
        return
    found["overlap"] = next((told.to_json() for told in every if not told.name), None)
    for told in every:
        pairs = [{**asdict(pair), "like": told.like(pair)} for pair in told.first]
        found["overlaps"].append({**told.to_json(), "first": pairs})
        found["warnings" if told.warns else "findings"].append(f"evaluation: {told.text}")


def _check_held_back(opened: OpenStudy, found: Row) -> None:
    """How much of the evaluation the search never sees."""
    share = opened.study.evaluation.held_back
    if share and opened.study.task and not opened.held_back:
        told = f"evaluation.held_back: task {opened.study.task} judges by itself, so nothing is held back"
        found["warnings"].append(told)
    elif share and opened.has_evaluation_rows:
        good = opened.evaluation_scan.good
        back = int((good & opened.rows_held_back).sum())
        if back in (0, int(good.sum())):
            text = f"evaluation.held_back: {share:g} of {good.sum()} rows leaves one side without any"
            found["problems"].append(f"{text}; give more rows, or write 0")
        else:
            found["findings"].append(f"evaluation: {back} of {good.sum()} rows are held back for the confirmation")


def _check_media(opened: OpenStudy, found: Row) -> None:
    from engine.data.look import told
    from engine.data.tars import media_root

    data = opened.data
    if data.fields.images or data.fields.videos:
        lines = told(data, opened.scanned.good, media_root(data.path, opened.state), LOOKED_AT)
        found["findings"] += [f"data: {line}" for line in lines]


def _check_disk(opened: OpenStudy, seen: Seen | None, found: Row) -> None:
    from engine.base.amounts import format_bytes
    from engine.study.forecast import disk_of

    disk = disk_of(opened, seen)
    if disk.problem:
        found["problems"].append(disk.problem)
    parts = ", ".join(f"{t.what} {format_bytes(t.size)}" for t in disk.things)
    there, free = format_bytes(disk.size - disk.needed), format_bytes(disk.free)
    found["findings"].append(
        f"disk: about {format_bytes(disk.size)} of caches ({parts}), {there} of it there; {free} are free"
    )


def _check_ops_and_task(opened: OpenStudy, seen: Seen | None, found: Row) -> None:
    from engine.data import asked
    from engine.data.catalogue import get_op

    try:
        runs, left = opened.op_plan
        found["ops"] = [r.name for r in runs]
        found["left_out"] = [{"op": x.op, "reason": x.reason} for x in left]
        for run in runs:
            if get_op(run.name).asks:
                found["findings"].append(asked.told(run, opened.data, opened.scan.good, opened.study.scores))
        if not runs and opened.needs_ops:
            found["problems"].append("no OP of the study can run here; see left_out for what they need")
        found["findings"].append(f"pools: {opened.pool_size} rows each")
        if opened.study.task:
            names = ", ".join(m.direction for m in opened.metrics)
            main = ", ".join(m.name for m in opened.main_metrics)
            guards = "".join(f"; {m.name} may not fall below {worst:g} % of change" for m, worst in opened.guards)
            found["findings"].append(f"metrics: {names}; the ranking counts {main}{guards}")
            if isinstance(opened.task, Remarks):
                of = "" if seen is None or seen.whole else f"of a sample of {seen.rows} rows: "
                found["findings"] += [of + remark for remark in opened.task.remarks(opened.study, opened.prepared)]
        else:
            found["findings"].append("task: none, so statistics and pools work and nothing is trained")
    except DjsbError as error:
        found["problems"].append(str(error))


def _check_inputs(opened: OpenStudy, found: Row) -> None:
    from engine.study.inputs import inputs_of

    try:
        inputs = inputs_of(opened)
    except DjsbError as error:
        found["problems"].append(str(error))
        return
    found["inputs"] = [{**i.to_json(), "line": i.line} for i in inputs]
    found["problems"] += [i.problem for i in inputs if i.problem]


def show_check(found: Row) -> None:
    """As people read it."""
    seen = found["verified"]
    if seen["deep"] or seen["damaged"]:
        parts = f"{seen['files']} files of {seen['bytes'] / 1e6:.3g} MB are as they were written"
        say(f"ok       disk: {parts}, {len(seen['damaged'])} damaged")
    for text in seen["damaged"]:
        say(f"damaged  {text}")
    for row in found["plugins"]:
        counts = f"; version {row['counts']} of what it does is part of results' ids" if row["counts"] else ""
        say(f"plug-in  {row['what']} {row['name']} of {row['package']} {row['version']}{counts}")
    for row in found["inputs"]:
        say(f"input    {row['line']}")
    for text in found["findings"]:
        say(f"ok       {text}")
    for text in found["warnings"]:
        say(f"WARNING  {text}")
    for pair in [pair for told in found["overlaps"] for pair in told["first"][:EXAMPLES]]:
        text = ": " + " ".join(pair["text"].split()) if pair["text"] else ""
        say(f"overlap  data {pair['row']} is like {pair['like']} ({pair['alike']:.0%}){text}")
    for op in found["ops"]:
        say(f"ok       {op}")
    for left in found["left_out"]:
        say(f"left out {left['op']}: {left['reason']}")
    for row in found["bad_rows"][:20]:
        identity = f" id {row['id']}" if row["id"] else ""
        say(" ".join(f"bad row  {row['file']} {row['row']}{identity}: {row['reason']}".split(None)))
    for row in found["duplicates"][:20]:
        say(f"left out data {row['row']}: like row {row['original']} ({row['op']})")
    if len(found["duplicates"]) > 20:
        say("         … and more; all of them with --json or in the duplicates table")
    if len(found["bad_rows"]) > 20:
        say(f"         … and more; all of them with --json or in the quarantine table ({len(found['bad_rows'])} shown)")
    for text in found["problems"]:
        say(f"PROBLEM  {text}")
