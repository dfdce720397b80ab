"""The formats of data files, by the ends of their names."""

from __future__ import annotations

from pathlib import Path

from engine.data.readers.tar_members import PACKED as TARS

PACKED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}  # as pyarrow names them
FORMATS = {
    ".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "table", ".tsv": "table", ".parquet": "parquet",
    ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow", ".tar": "tar", ".rows": "rows",
}  # fmt: skip
# files that tools write beside data, and that are no rows
SIDE_FILES = frozenset(
    {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "config.json", "metadata.json"}
)


def format_of(file: Path) -> str | None:
    """json, table, parquet, arrow, tar or rows (of a pool); None for what is no data file."""
    name = file.name.lower()
    if name.endswith(TARS):
        return "tar"
    packed = next((end for end in PACKED if name.endswith(end)), "")
    kind = FORMATS.get(Path(name.removesuffix(packed)).suffix)
    return None if packed and kind not in ("json", "table") else kind


def packing(file: Path) -> str | None:
    """How a file is compressed, as pyarrow names it; None where it is not."""
    return PACKED.get(file.suffix.lower())
