"""What a study reads, each input with its accounting: what `djsb check` prints, and what the engine minds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from engine.data.dataset import Dataset
from engine.data.field_kinds import columns_told, kinds_of, mixtures_told
from engine.data.scan import Scan, kinds_file, quarantine_id
from engine.data.score_match import accounting_of
from engine.journal import caches
from engine.journal.store import Store
from engine.records.accounting import Accounting
from engine.study.opened import OpenStudy

KIND = re.compile(r"(duplicated id|missing file|[^:]*)")  # of a reason, without the id, file or library's words


def rows_read(name: str, data: Dataset, scan: Scan, store: Store, odd: Sequence[str] = ()) -> Accounting:
    """The rows of a dataset: those that may stand in a pool, of those that the file holds. odd: what else is told."""
    kinds: Counter[str] = Counter()
    for reason, n in caches.reasons(store, quarantine_id(data)):
        found = KIND.match(reason)
        kinds[found[0].strip() if found else reason] += n
    no_rows = data.reader.left_out
    left = [
        *no_rows,
        ("like earlier ones (dedup)", scan.duplicates),
        ("like evaluation rows", scan.overlapping),
        *kinds.most_common(),
    ]
    fields = {
        "text": data.fields.text,
        "images": data.fields.images,
        "videos": data.fields.videos,
        "id": data.fields.id,
    }
    told = ", ".join(f"{what} from {field}" for what, field in fields.items() if field)
    return Accounting(
        name, len(data) + sum(n for _, n in no_rows), int(scan.good.sum()),
        tuple((reason, n) for reason, n in left if n), "; ".join(filter(None, (data.reader.note, told, *odd))),
    )  # fmt: skip


def inputs_of(opened: OpenStudy) -> list[Accounting]:
    """Every input of the study; its data is scanned, and the task's caches are made, where they are not."""
    data = opened.data
    kinds = kinds_of(data, kinds_file(data, opened.state), opened.workers)
    found = [rows_read("training rows", data, opened.scan, opened.store, mixtures_told(data, kinds))]
    found += columns_told(data, kinds)
    found += [accounting_of(data, table, opened.workers) for table in data.scores]
    if opened.has_evaluation_rows:
        found.append(rows_read("evaluation rows", opened.evaluation, opened.evaluation_scan, opened.store))
    if opened.study.task:
        found += opened.task.inputs(opened.study, opened.folder, opened.prepared)
    return found
