"""Croissant 1.0 with its vocabulary for responsible AI, made and validated by mlcroissant."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from app.publish.facts import Facts
from engine.base.amounts import format_seconds
from engine.base.errors import StudyError
from engine.base.ids import json_text

RECORDS = "rows"
NAMES = {"recipe.yaml": "application/yaml", "provenance.json": "application/json", "report.html": "text/html"}


def write_croissant(facts: Facts, out: Path, data: Path, license_: str | None, url: str | None) -> list[str]:
    """Write `out/croissant.json`; what mlcroissant warns of. data: the Parquet file of rows or ids, inside `out`.

    Raises: StudyError where the result is not valid.
    """
    import mlcroissant as mlc  # start-up time: one command needs it

    files = [_file(out, data.relative_to(out).as_posix(), "application/x-parquet")]
    files += [_file(out, name, kind) for name, kind in NAMES.items()]
    metadata = mlc.Metadata(
        name=facts.name, description=described(facts), license=license_, url=url, version="1.0.0",
        date_published=facts.at, cite_as=None, keywords=["data recipe", "Data-Juicer", "djsb", facts.task],
        distribution=files, record_sets=[_records(data, files[0].id)], **_responsible(facts),
    )  # fmt: skip
    issues = metadata.ctx.issues
    if issues.errors:
        raise StudyError(f"the Croissant description is not valid: {'; '.join(sorted(issues.errors))}")
    text = json_text(metadata.to_json(), indent=2, ensure_ascii=False, default=str)
    (out / "croissant.json").write_text(text + "\n", encoding="utf-8")
    return sorted(issues.warnings)


def described(facts: Facts) -> str:
    """The data in two sentences."""
    return (
        f"{len(facts.rows):,} of {facts.of:,} rows of {facts.source}, kept by a recipe of Data-Juicer operators: "
        f"{facts.pool.label}. {facts.answer[0]}"
    )


def _file(out: Path, name: str, kind: str) -> Any:
    import mlcroissant as mlc

    content = (out / name).read_bytes()
    digest, size = hashlib.sha256(content).hexdigest(), f"{len(content)} B"
    return mlc.FileObject(
        id=name, name=name, content_url=name, content_size=size, encoding_formats=[kind], sha256=digest
    )


def _records(data: Path, file: str) -> Any:
    """The columns that Croissant can say: numbers, truth values, texts, and lists of them."""
    import mlcroissant as mlc

    fields = []
    for column in pq.read_schema(data):
        repeated = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        kind = _kind(column.type.value_type if repeated else column.type)
        if kind is not None:
            source = mlc.Source(file_object=file, extract=mlc.Extract(column=column.name))
            fields.append(
                mlc.Field(
                    id=f"{RECORDS}/{column.name}", name=column.name, description=f"the column {column.name}",
                    data_types=[kind], source=source, repeated=repeated or None,
                )
            )  # fmt: skip
    return mlc.RecordSet(
        id=RECORDS, name=RECORDS, description="what the recipe keeps, in the order of the source", fields=fields
    )


def _kind(kind: pa.DataType) -> Any:
    import mlcroissant as mlc

    if pa.types.is_boolean(kind):
        return mlc.DataType.BOOL
    if pa.types.is_integer(kind):
        return mlc.DataType.INT64
    if pa.types.is_floating(kind):
        return mlc.DataType.FLOAT64
    return mlc.DataType.TEXT if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None


def _responsible(facts: Facts) -> dict[str, Sequence[str] | str]:
    """The fields of its vocabulary for responsible AI, from what ran."""
    found = facts.contents
    spent = format_seconds(facts.spent)
    return {
        "data_collection": f"The rows are those of {facts.source}; djsb has collected none.",
        "data_preprocessing_protocol": [
            f"Statistics by {', '.join(facts.ops)} (Data-Juicer {facts.versions['py-data-juicer']}).",
            f"The recipe keeps rows by: {facts.pool.label} (recipe.yaml).",
            f"Chosen by {len(facts.trials)} trainings of reference models, {spent} of device time (provenance.json).",
        ],
        "machine_annotation_tools": [f"{name} {number}" for name, number in facts.versions.items()],
        "data_biases": found.warnings
        if found and found.warnings
        else ["No word, beginning or source has more than doubled."],
        "data_limitations": facts.limits,
        "data_use_cases": [f"Training of models of task {facts.task}, judged by {', '.join(facts.metrics)}."],
        "personal_sensitive_information": ["djsb has not looked for any; rows are as they were in the source."],
    }
