"""The folder that `djsb publish` makes, and its way to the hub."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.publish.croissant import described, write_croissant
from app.publish.facts import Facts, gather, standing
from app.publish.provenance import write_provenance
from app.report.page import write_report
from app.text.printable import one_line
from engine.base.amounts import format_seconds
from engine.base.errors import StudyError
from engine.data.output import planned
from engine.data.tars import media_root
from engine.data.writing import export_rows
from engine.journal.store import Row
from engine.study.opened import OpenStudy, held, open_study
from engine.study.rows import Notice

SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
BLOCK = 10_000  # rows whose ids are read at once


@dataclass(frozen=True)
class Wish:
    """What is to be published. pool: None: the confirmed recipe. rows: the rows themselves, not their numbers and ids.

    license: an SPDX identifier of the rows. url: where the folder will be.
    """

    pool: str | None = None
    rows: bool = False
    with_media: bool = False
    license: str | None = None
    url: str | None = None
    force: bool = False


def publish(folder: Path, out: Path, wish: Wish, workers: int | None, notice: Notice) -> Row:
    """Make a folder that is ready for the hub. Nothing is sent. Raises: StudyError, DataError, and others."""
    if missing := [name for name in ("mlcroissant", "prov") if importlib.util.find_spec(name) is None]:
        raise StudyError(f"djsb publish needs {' and '.join(missing)}: pip install 'djsb[publish]'")
    if out.exists() and any(out.iterdir()) and not wish.force:
        raise StudyError(f"{out} is not empty; name another folder, or add --force to write into it")
    opened = open_study(folder, workers, notice)
    said = standing(opened)
    with opened.store, held(opened):
        facts = gather(opened, wish.pool, said)
        out.mkdir(parents=True, exist_ok=True)
        data = _rows(opened, facts, out, wish) if wish.rows else _ids(opened, facts, out)
    (out / "recipe.yaml").write_text(facts.recipe, encoding="utf-8")
    write_provenance(facts, out / "provenance.json")
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copyfile(write_report(folder, Path(scratch)), out / "report.html")
    warnings = write_croissant(facts, out, data, wish.license, wish.url)
    (out / "README.md").write_text(card(facts, data.relative_to(out).as_posix(), wish), encoding="utf-8")
    if wish.license is None:
        warnings.insert(0, "no license is named: add --license, as the rows' source has it")
    return {"out": str(out), "rows": len(facts.rows), "data": str(data), "warnings": warnings}


def _rows(opened: OpenStudy, facts: Facts, out: Path, wish: Wish) -> Path:
    """The rows that the recipe keeps, as Parquet."""
    file = out / "data" / "rows.parquet"
    file.parent.mkdir(exist_ok=True)
    output = planned(file, "parquet", None, wish.force, wish.with_media)
    export_rows(opened.data.joined, facts.rows, media_root(opened.data.path, opened.state), output, wish.with_media)
    return file


def _ids(opened: OpenStudy, facts: Facts, out: Path) -> Path:
    """The numbers of the rows that the recipe keeps, and their ids where the data have them, as Parquet."""
    file = out / "data" / "ids.parquet"
    file.parent.mkdir(exist_ok=True)
    field = opened.data.fields.id
    table = {"row": pa.array(facts.rows)}
    if field:
        blocks = np.array_split(facts.rows, max(1, len(facts.rows) // BLOCK))
        ids = [row.get(field) for block in blocks for row in opened.data.take(block)]
        table["id"] = pa.array([None if i is None else str(i) for i in ids], pa.string())
    pq.write_table(pa.table(table), file)
    return file


def card(facts: Facts, data: str, wish: Wish) -> str:
    """The data card: Markdown with the heading that the hub reads. Texts of the data can form no markup."""
    import jinja2

    environment = jinja2.Environment(  # Markdown, no HTML: `plain` takes the place of escaping
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(plain=_plain, fenced=lambda text: text.replace("```", "'''").rstrip())
    size = next((name for most, name in SIZES if len(facts.rows) < most), "n>10M")
    return environment.get_template("card.md.j2").render(
        facts=facts, described=described(facts), data=data, license=wish.license, rows=wish.rows, size=size,
        spent=format_seconds(facts.spent),
    )  # fmt: skip


def _plain(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", one_line(text))


def push(out: Path, name: str) -> str:
    """Upload a folder to the hub's data set `owner/name`, by the user's own login; its address. Raises: StudyError."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        api = HfApi()
        api.create_repo(name, repo_type="dataset", exist_ok=True, private=True)
        api.upload_folder(repo_id=name, repo_type="dataset", folder_path=out)
    except LocalTokenNotFoundError:
        raise StudyError("nobody is logged in to the hub: run hf auth login, then the same command again") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise StudyError(f"{out} was made, and not uploaded to {name}: {first}; try again with --force") from error
    return f"https://huggingface.co/datasets/{name}"
