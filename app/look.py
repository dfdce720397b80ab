"""What the looking commands print: each question is answered once, as JSON, and shown as text from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.beyond import show_mappers, show_prompts
from app.lineage import show_lineage, show_scaling
from app.printable import say, say_table
from engine.budget import format_seconds, parse_budget
from engine.errors import DjsbError, StudyError
from engine.open_study import EngineLock, Notice, OpenStudy, engine_pid, open_study, view_study
from engine.store import Row
from engine.study import STAGES, STATE_FOLDER
from engine.tasks import Remarks

VERDICTS = {"helps": "▲", "hurts": "▼", "unclear": "·", "degenerate": "×"}


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}"


# -- check -------------------------------------------------------------------------------------


def check(folder: Path, workers: int | None, notice: Notice) -> Row:
    """Problems and findings of a study; problems stop a run, findings do not."""
    from engine.slots import gpus

    found: Row = {"problems": [], "findings": [], "bad_rows": [], "ops": [], "left_out": []}
    opened = open_study(folder, workers, notice)
    with opened.store, EngineLock(opened.state):
        _check_rows(opened, found, "data")
        if opened.has_evaluation_rows:
            _check_rows(opened, found, "evaluation")
        if not found["problems"]:
            _check_ops_and_task(opened, found)
    devices = gpus()
    found["findings"].append(f"devices: {len(devices)} GPU(s)" if devices else "devices: no GPU; CPU cores are used")
    return found


def _check_rows(opened: OpenStudy, found: Row, name: str) -> None:
    from engine.scan import quarantine_id

    try:
        data = opened.data if name == "data" else opened.evaluation
        result = opened.scan if name == "data" else opened.evaluation_scan
    except DjsbError as error:
        found["problems"].append(str(error))
        return
    found["findings"].append(f"{name}: {len(result.good)} rows, {result.bad} of them bad")
    bad = opened.store.query(
        "SELECT row, id, reason FROM quarantine WHERE dataset = ? ORDER BY row LIMIT 100", (quarantine_id(data),)
    )
    found["bad_rows"] += [{"file": name, **row} for row in bad]


def _check_ops_and_task(opened: OpenStudy, found: Row) -> None:
    try:
        runs, left = opened.op_plan
        found["ops"] = [r.name for r in runs]
        found["left_out"] = [{"op": x.op, "reason": x.reason} for x in left]
        if not runs:
            found["problems"].append("no OP of the study can run here; see left_out for what they need")
        found["findings"].append(f"pools: {opened.pool_size} rows each")
        if opened.study.task:
            names = ", ".join(m.name for m in opened.metrics)
            main = ", ".join(m.name for m in opened.main_metrics)
            found["findings"].append(f"metrics: {names}; the ranking counts {main}")
            if isinstance(opened.task, Remarks):
                found["findings"] += opened.task.remarks(opened.study, opened.prepared)
        else:
            found["findings"].append("task: none, so statistics and pools work and nothing is trained")
    except DjsbError as error:
        found["problems"].append(str(error))


def show_check(found: Row) -> None:
    """As people read it."""
    for text in found["findings"]:
        say(f"ok       {text}")
    for op in found["ops"]:
        say(f"ok       {op}")
    for left in found["left_out"]:
        say(f"left out {left['op']}: {left['reason']}")
    for row in found["bad_rows"][:20]:
        identity = f" id {row['id']}" if row["id"] else ""
        say(" ".join(f"bad row  {row['file']} {row['row']}{identity}: {row['reason']}".split(None)))
    if len(found["bad_rows"]) > 20:
        say(f"         … and more; all of them with --json or in the quarantine table ({len(found['bad_rows'])} shown)")
    for text in found["problems"]:
        say(f"PROBLEM  {text}")


# -- plan and pools ----------------------------------------------------------------------------


def plan(folder: Path, workers: int | None, notice: Notice) -> Row:
    """Trials and device time of every stage."""
    from engine.planning import make_plan

    opened = open_study(folder, workers, notice)
    with opened.store, EngineLock(opened.state):
        return make_plan(opened, workers)


def show_plan(found: Row) -> None:
    """As people read it."""
    rows = [
        [s["stage"], str(s["trials"]), s["what"], "–" if s["seconds"] is None else format_seconds(s["seconds"])]
        for s in found["stages"]
    ]
    say_table(rows, ["stage", "trials", "what", "device time"])
    if found["seconds"] is None:
        say(f"\n{found.get('note', 'no task, so no device time: statistics and pools only')}")
        return
    say(
        f"\nin all at most {format_seconds(found['seconds'])} of device time, about "
        f"{format_seconds(found['wall_seconds'])} on {found['devices']} device(s); budget {found['budget']}"
        + ("" if found["fits"] else ": it will end early, with whole rounds of seeds")
    )
    say(
        f"one training on the full data takes T = {format_seconds(found['t_full'])}; m = {found['m']} trials of "
        f"r = {found['r']:.3g}: (1 + m·r)·T = {format_seconds(found['with_sandbox'])}, against M·T: "
        f"it pays from M = {found['break_even']} full trainings on (Section 3.2.4)"
    )


def pools(folder: Path, workers: int | None, notice: Notice) -> Row:
    """Sizes, overlaps and degenerate statistics of the single-OP pools."""
    from engine.pools import overlap
    from engine.proposal_queue import record_cuts

    opened = open_study(folder, workers, notice)
    with opened.store, EngineLock(opened.state):
        cuts = opened.cuts
        if opened.store.one("SELECT 1 FROM studies WHERE context = ?", (opened.context,)) is None:
            opened.record(measured=False)
        record_cuts(opened)
        good = opened.scan.good
        sound = [c for c in cuts if c.reason is None]
        table = overlap([c.slice.keeps(opened.columns[c.slice.statistic]) & good for c in sound])
        errors = opened.store.query("SELECT op, statistic, unreadable, seconds FROM statistics WHERE unreadable > 0")
        return {
            "rows": int(good.sum()),
            "pool_size": opened.pool_size,
            "pools": [
                {"pool": c.pool.id, "op": c.slice.op, "statistic": c.slice.statistic, "bucket": c.bucket,
                 "slice": str(c.slice), "kept": c.kept, "degenerate": c.reason}
                for c in cuts
            ],
            "overlap": {
                "labels": [c.label for c in sound],
                "jaccard": [[round(float(x), 4) for x in row] for row in table],
            },
            "left_out": [{"op": x.op, "reason": x.reason} for x in opened.op_plan[1]],
            "unreadable": errors,
        }  # fmt: skip


def show_pools(found: Row) -> None:
    """As people read it."""
    say(f"{found['rows']} good rows; every pool has {found['pool_size']}\n")
    say_table(
        [
            [p["pool"], f"{p['statistic']} {p['bucket']}", p["slice"], str(p["kept"]), p["degenerate"] or ""]
            for p in found["pools"]
        ],
        ["pool", "bucket", "slice", "keeps", "degenerate"],
    )
    labels, table = found["overlap"]["labels"], found["overlap"]["jaccard"]
    pairs = sorted(((table[i][j], labels[i], labels[j]) for i in range(len(labels)) for j in range(i)), reverse=True)
    shared = [p for p in pairs if p[0] >= 0.5][:10]
    if shared:
        say("\nlargest overlaps (intersection over union)")
        say_table([[f"{x:.2f}", a, b] for x, a, b in shared], ["overlap", "bucket", "bucket"])
    for left in found["left_out"]:
        say(f"left out {left['op']}: {left['reason']}")
    for row in found["unreadable"]:
        say(f"{row['op']} could not read {row['unreadable']} rows; they are in no bucket")


# -- status, rank, log -------------------------------------------------------------------------


def status(folder: Path) -> Row:
    """Where the study stands; reads the database only."""
    from engine.cycles import last_recipe, lineage
    from engine.outcome import insights

    opened = view_study(folder)
    store, context = opened.store, opened.context
    stages = []
    for stage in STAGES:
        states = store.query(
            "SELECT state, COUNT(*) AS n FROM trials WHERE context = ? AND stage = ? GROUP BY state", (context, stage)
        )
        stages.append({"stage": stage, "trials": {r["state"]: r["n"] for r in states}})
    spent = store.one("SELECT coalesce(SUM(seconds), 0) AS s FROM costs")
    limit = store.result(context, "budget") or parse_budget(opened.study.budget)
    waiting = store.query(
        "SELECT id, kind, stage FROM proposals WHERE context = ? AND status IN ('queued', 'held')", (context,)
    )
    running = store.query(
        "SELECT t.id, t.device, t.seed, p.label, t.started, t.estimate, "
        "(SELECT max(step) FROM curve_points c WHERE c.trial = t.id) AS step "
        "FROM trials t JOIN pools p ON p.id = t.pool WHERE t.context = ? AND t.state = 'RUNNING'",
        (context,),
    )
    return {
        "name": opened.study.name, "engine": engine_pid(folder.resolve() / STATE_FOLDER), "stages": stages,
        "running": running, "spent": spent["s"] if spent else 0.0, "limit": limit, "awaiting": waiting,
        "recipe": last_recipe(opened), "insights": insights(opened),
        "cycle": opened.cycle, "cycles": opened.study.cycles.max, "lineage": lineage(opened),
        "last": store.one("SELECT at, kind, text FROM events ORDER BY id DESC LIMIT 1"),
    }  # fmt: skip


def show_status(found: Row) -> None:
    """As people read it."""
    engine = f"engine runs (process {found['engine']})" if found["engine"] else "no engine runs"
    cycle = f"; cycle {found['cycle']}" if found["cycle"] > 1 or found["cycles"] > 1 else ""
    say(f"{found['name']}: {engine}{cycle}; {format_seconds(found['spent'])} of {format_seconds(found['limit'])} spent")
    say_table(
        [
            [s["stage"], *(str(s["trials"].get(state, 0)) for state in ("COMPLETE", "RUNNING", "WAITING", "FAIL"))]
            for s in found["stages"]
        ],
        ["stage", "complete", "running", "waiting", "failed"],
    )
    for r in found["running"]:
        say(f"running  {r['device']}  {r['label']}  seed {r['seed']}  step {r['step'] or 0}")
    if found["awaiting"]:
        say(f"{len(found['awaiting'])} proposal(s) await a decision: djsb review")
    for stage, told in found["insights"].items():
        for sentence in told:
            say(f"{stage:8} {sentence['text']} [{', '.join(sentence['evidence'][:3])}]")
    if found["recipe"]:
        say(f"recipe   {_recipe_line(found['recipe'])}")
    if len(found["lineage"]) > 1:
        show_lineage(found["lineage"])
    if found["last"]:
        say(f"last     {found['last']['at']}  {found['last']['text']}")


def _recipe_line(best: Row) -> str:
    return (
        f"{best['label']}: {best['change']:+.1f} % [{best['ci_low']:+.1f}, {best['ci_high']:+.1f}] against the control "
        f"on {best['seeds']} fresh seeds; keeps {best['kept']} of {best['rows']} rows"
        + (f"; repeated ×{best['repetition']} it did as well as with more rows" if best["repetition"] > 1 else "")
    )


def rank(folder: Path, cycle: int | None = None) -> list[Row]:
    """The leaderboard of a cycle; None: of the one that the engine was in last."""
    from engine.cycles import view_cycle
    from engine.ranking import leaderboard

    opened = view_cycle(folder, cycle)
    found = leaderboard(opened)
    if not found:
        raise StudyError(f"no pool was cut yet in {folder}; start with: djsb auto {folder}")
    return found


def show_rank(found: list[Row]) -> None:
    """As people read it."""
    rows = [
        [
            str(i) if r["change"] is not None else "–", VERDICTS[r["verdict"]] + " " + r["verdict"],
            r.get("label", r["pool"]), str(r.get("size", "–")), f"{100 * r.get('share', 1):.0f}", _percent(r["change"]),
            "–" if r["std"] is None else f"{r['std']:.1f}",
            "–" if r["ci_low"] is None else f"[{r['ci_low']:+.1f}, {r['ci_high']:+.1f}]",
            "–" if r["p_best"] is None else f"{r['p_best']:.2f}", str(r["seeds"]), r["pool"],
            "; ".join([*r["skipped"], *([f"dropped: {r['dropped']}"] if r.get("dropped") else [])]),
        ]
        for i, r in enumerate(found, 1)
    ]  # fmt: skip
    say_table(
        rows,
        ["rank", "verdict", "pool", "rows", "steps %", "change %", "std", "interval", "P(best)", "seeds", "id", "note"],
    )


def log(folder: Path, last: int) -> list[Row]:
    """The last events and decisions, oldest first."""
    store = view_study(folder).store
    rows = store.query("SELECT at, level, kind, subject, text FROM events ORDER BY id DESC LIMIT ?", (last,))
    return rows[::-1]


def show_log(found: list[Row]) -> None:
    """As people read it."""
    for r in found:
        say(f"{r['at']}  {r['level']:7}  {r['kind']:10}  {r['subject'] or '':16}  {r['text']}")


# -- show, ending ------------------------------------------------------------------------------


def show(folder: Path, wanted: str) -> Row:
    """One pool, trial or proposal by the beginning of its id, or recipe, lineage, scaling, mappers, prompts."""
    from engine import prompting, rewritten
    from engine.cycles import last_recipe, lineage
    from engine.scaling import scaling_law

    opened = view_study(folder)
    store = opened.store
    if wanted == "scaling":
        return {"what": "scaling", **(scaling_law(opened) or {"points": [], "lines": {}})}
    if wanted == "mappers":
        return {"what": "mappers", "mappers": rewritten.judged(opened)}
    if wanted == "prompts":
        return {"what": "prompts", "prompts": prompting.table(opened)}
    if wanted == "lineage":
        return {"what": "lineage", "lineage": lineage(opened)}
    if wanted == "recipe":
        best = last_recipe(opened)
        if best is None:
            raise StudyError("no recipe is confirmed yet; run djsb auto to its last stage")
        return {"what": "recipe", **best}
    found = [
        (table, row)
        for table in ("pools", "trials", "proposals")
        for row in store.query(f"SELECT * FROM {table} WHERE id LIKE ? ESCAPE '!' LIMIT 3", (like(wanted),))
    ]
    if not found:
        raise StudyError(f"no pool, trial or proposal begins with {wanted!r}; djsb rank and djsb log name them")
    if len(found) > 1:
        raise StudyError(
            f"{wanted!r} is the beginning of several: {', '.join(r['id'] for _, r in found)}; give more of it"
        )
    table, row = found[0]
    return {"what": table[:-1], **_details(store, table, row)}


def like(text: str) -> str:
    for special in "!%_":
        text = text.replace(special, "!" + special)
    return text + "%"


def _details(store: Any, table: str, row: Row) -> Row:
    if "content" in row:
        row = {**row, "content": json.loads(row["content"])}
    if table == "pools":
        row["trials"] = store.query(
            "SELECT id, seed, samples, stage, state, seconds FROM trials WHERE pool = ?", (row["id"],)
        )
        row["cut"] = store.one("SELECT kept, entropy, verdict, reason FROM pool_cuts WHERE pool = ?", (row["id"],))
    elif table == "trials":
        row["metrics"] = {
            m["name"]: m["value"] for m in store.query("SELECT name, value FROM metrics WHERE trial = ?", (row["id"],))
        }
        row["curve"] = store.query(
            "SELECT name, step, value FROM curve_points WHERE trial = ? ORDER BY name, step", (row["id"],)
        )
        row["costs"] = store.query("SELECT id, device, seconds, at FROM costs WHERE trial = ?", (row["id"],))
        row["checkpoint"] = store.one("SELECT path, bytes, kept FROM checkpoints WHERE trial = ?", (row["id"],))
    else:
        row["decisions"] = store.query("SELECT verdict, who, why, at FROM decisions WHERE proposal = ?", (row["id"],))
        row["trials"] = store.query(
            "SELECT t.id, t.state, t.seed, p.label FROM proposal_trials x JOIN trials t ON t.id = x.trial "
            "JOIN pools p ON p.id = t.pool WHERE x.proposal = ?",
            (row["id"],),
        )
    return row


def show_one(found: Row) -> None:
    """As people read it: a field a line, nested ones as YAML."""
    import yaml

    if found["what"] == "lineage":
        show_lineage(found["lineage"])
        return
    if found["what"] == "scaling":
        show_scaling(found)
        return
    if found["what"] == "mappers":
        show_mappers(found["mappers"])
        return
    if found["what"] == "prompts":
        show_prompts(found["prompts"])
        return

    say(yaml.safe_dump(json.loads(json.dumps(found)), sort_keys=False, allow_unicode=True).rstrip())


def ending(folder: Path, ended: Any) -> Row:
    """What a run came to."""
    from engine.cycles import last_recipe, lineage
    from engine.ranking import leaderboard

    opened = view_study(folder)
    return {
        "ended": ended.how, "stage": ended.stage, "note": ended.note, "awaiting": ended.awaiting,
        "recipe": last_recipe(opened), "leaderboard": leaderboard(opened), "lineage": lineage(opened),
        "unconfirmed": opened.store.result(opened.context, "unconfirmed"),
        "folder": str(folder.resolve()),
    }  # fmt: skip


def show_ending(found: Row) -> None:
    """As people read it."""
    show_rank([r for r in found["leaderboard"] if r["verdict"] != "degenerate"])
    say("")
    if len(found["lineage"]) > 1:
        show_lineage(found["lineage"])
        say("")
    recipe = f"{found['folder']}/recipe.yaml"
    if found["recipe"]:
        say(f"recipe: {_recipe_line(found['recipe'])}")
        say(f"written to {recipe}; use it with: djsb apply {recipe} --data F --out G")
    elif found["unconfirmed"]:
        say(found["unconfirmed"])
    elif found["stage"] == "confirm":
        say("no recipe beat the control on fresh seeds, so none is called best")
    if found["note"] and found["ended"] != "failed":
        say(f"ended at stage {found['stage']}: {found['note']}")
    if found["awaiting"]:
        say(f"{found['awaiting']} proposal(s) await a decision: djsb review --dir {found['folder']}")
    say(f"report: {found['folder']}/report/report.html")
