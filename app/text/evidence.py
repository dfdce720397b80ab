"""What is known of one pool, in words: an entry of the leaderboard, a line a finding."""

from __future__ import annotations

from collections.abc import Iterator

from app.text.numbers import chance
from engine.journal.store import Row
from engine.records.leaderboard import bound_text


def evidence_lines(r: Row) -> Iterator[str]:
    """Verdict and change, what is to be expected, chances, values as measured, notes."""
    if r["change"] is not None:
        interval = "" if r["ci_low"] is None else f", interval [{r['ci_low']:+.1f}, {r['ci_high']:+.1f}]"
        seeds = f"{r['seeds']} seed{'s' * (r['seeds'] != 1)}"
        yield f"{r['verdict']}: {r['change']:+.1f} % against the control over {seeds}{interval}"
    if r.get("bound") is not None:
        yield f"by the test that says so it is {bound_text(r['verdict'], r['bound'])}"
    if r.get("shrunk") is not None:
        yield f"fresh seeds are expected to show {r['shrunk']:+.1f} %, since luck is in the best and the worst of many"
    if r.get("p") is not None:
        yield f"p {chance(r['p'])}: that any pool goes so far where none differs"
    if r.get("q") is not None:
        yield f"q {chance(r['q'])}: share of wrong claims among pools as clear as this one"
    if r["p_best"] is not None:
        yield f"P(best) {r['p_best']:.2f}: that it is the best of its size and length"
    for name, (pool, control) in (r.get("values") or {}).items():
        own = r["metrics"].get(name)
        yield f"{name}: {pool:.4g}, of the control {control:.4g}" + ("" if own is None else f" ({own:+.1f} %)")
    yield from (f"! {line}" for line in r["skipped"])
    if r.get("dropped"):
        yield f"dropped by the race: {r['dropped']}"
