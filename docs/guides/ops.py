"""Write the table of docs/guides/ops.md from the catalogue: `python docs/guides/ops.py`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from engine.data.ops.contract import Op
from engine.data.ops.table import OPS

HEAD = "| OP | modality | statistics | bounds | parameters | needs | rate |"


def row(op: Op) -> str:
    """An OP's line of the table."""
    keys = ", ".join(f"`{key}`" if key else "the field's name" for key in op.statistics) or "–"
    ends = [", ".join(end for end in (b.low, b.high) if end) for b in op.statistics.values()]
    params = ", ".join(f"`{name}`" + "*" * (name in op.required) for name in op.params) or "–"
    model = f"`{op.model}`" + (f" ({op.hub})" if op.hub else " (a local folder)") if op.model else ""
    files = ", ".join(file.replace("{lang}", "en") for file in op.files)
    needs = op.barred or ", ".join(x for x in (model, files, *op.packages, "a server" * op.asks) if x) or "–"
    rate = "–" if op.rate is None else f"{op.rate:,.0f}"
    cells = (f"`{op.name}`", op.modality, keys, "; ".join(filter(None, ends)) or "–", params, needs, rate)
    return f"| {' | '.join(cells)} |"


def table() -> str:
    """The whole table."""
    return "\n".join([HEAD, "|---" * 7 + "|", *map(row, OPS.values())])


if __name__ == "__main__":
    file = Path(__file__).with_name("ops.md")
    before, _, rest = file.read_text(encoding="utf-8").partition(HEAD)
    after = rest.partition("\n\n")[2]
    file.write_text(f"{before}{table()}\n\n{after}", encoding="utf-8")
