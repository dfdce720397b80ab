"""`djsb pools`: the single-OP pools of the study."""

from __future__ import annotations

from pathlib import Path

from app.text.printable import say, say_table
from engine.base.ids import some
from engine.data.cuts import keeps
from engine.journal import caches, setups
from engine.journal.store import Row
from engine.study.designed import as_designed
from engine.study.opened import held, open_study
from engine.study.rows import Notice


def pools(folder: Path, workers: int | None, notice: Notice) -> Row:
    """Sizes, overlaps and degenerate statistics of the single-OP pools."""
    from engine.data.cuts import overlap
    from engine.proposals.queue import record_cuts

    opened = as_designed(open_study(folder, workers, notice))
    with opened.store, held(opened):
        cuts = opened.cuts
        if setups.get(opened.store, opened.setup) is None:
            opened.record(measured=False)
        record_cuts(opened)
        good = opened.scan.good
        sound = [c for c in cuts if c.reason is None]
        table = overlap([keeps(c.slice, opened.columns[c.slice.statistic]) & good for c in sound])
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
            "unreadable": [
                some(s, "op", "statistic", "unreadable", "seconds") for s in caches.unreadable_statistics(opened.store)
            ],
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
