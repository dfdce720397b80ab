"""Keys of a Data-Juicer configuration, as `dj_configs` of a job have them."""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from engine.base.durable import replaced
from engine.pipeline.contract import Group, Settings

_OTHERS = """
    adaptive_batch_size audio_key audio_special_token auto auto_num auto_op_parallelism cache_compress
    checkpoint_dir conflict_resolve_strategy data_probe_algo data_probe_ratio debug ds_cache_dir eoc_special_token
    event_log_dir executor_type export_extra_args export_in_parallel export_shard_size export_type fusion_strategy
    image_bytes_key image_special_token job_id keep_hashes_in_res_ds load_dataset_kwargs load_jsonl_lenient
    mapper_fusion min_common_dep_num_to_combine op_fusion op_list_to_mine op_list_to_trace open_insight_mining
    open_monitor open_tracer read_options resume save_stats_in_one_file skip_op_error strict_preflight suffixes
    temp_dir trace_keys trace_num turbo use_cache use_checkpoint video_special_token work_dir
"""
OTHERS = frozenset(_OTHERS.split())
CODE = {  # OPs that run what a configuration says, or call other programs
    "python_lambda_mapper", "python_file_mapper", "general_fused_op", "download_file_mapper", "s3_download_file_mapper",
    "s3_upload_file_mapper",
}  # fmt: skip


def _one(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


One = Annotated[str, BeforeValidator(_one)]


class DjConfigs(Group):
    """Those that djsb reads; others of Data-Juicer's go to Data-Juicer where it runs the job."""

    model_config = ConfigDict(extra="allow", frozen=True)
    project_name: str | None = None
    dataset_path: One = Field(min_length=1)
    export_path: str = Field(min_length=1)
    process: list[dict[str, dict[str, Any] | None]] = Field(min_length=1)
    np: int = Field(1, ge=1)
    text_keys: One = "text"
    image_key: str = "images"
    video_key: str = "videos"
    percentiles: list[float] = Field(default_factory=list)
    export_original_dataset: bool = False
    keep_stats_in_res_ds: bool = False

    @model_validator(mode="after")
    def _known(self) -> DjConfigs:
        unknown = sorted(set(self.model_extra or ()) - OTHERS)
        if unknown:
            raise ValueError(f"{unknown[0]} is no key of a Data-Juicer configuration that a job may have; remove it")
        for entry in self.process:
            if len(entry) != 1:
                raise ValueError("an entry of process is one OP with its parameters, `- name: {…}`")
            ((name, params),) = entry.items()
            if name in CODE or (params or {}).get("trust_remote_code"):
                raise ValueError(f"{name} runs code or reaches the network as a configuration says; remove it")
        return self


class DjKeys(Settings):
    """Settings of a component that takes a Data-Juicer configuration alone."""

    dj_configs: DjConfigs  # type: ignore[assignment]


def without_iteration(path: str) -> str:
    """A path without the iteration's folder, which the job that reads it gets itself."""
    parts = PurePath(path).parts
    kept = [p for i, p in enumerate(parts) if not (p.startswith("iter_") and p[5:].isdigit() and i >= len(parts) - 2)]
    return str(PurePath(*kept))


def cores(wanted: int | None, most: int) -> int:
    """Processes to use: as the command line says, else as the configuration does where the machine has so many."""
    return wanted or max(1, min(most, os.cpu_count() or 1))


def stats_file(export: Path, job: str) -> Path:
    """Where statistics alone are written: one file for each job, as several may have one export path."""
    return export.with_name(f"{export.stem}_{job.partition('.')[2] or job}_stats.jsonl")


def as_list(rows: Path, target: Path) -> None:
    """JSON lines as one list, as Data-Juicer writes a .json file."""
    with replaced(target) as part, part.open("w", encoding="utf-8") as out, rows.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            out.write(("[\n" if not number else ",\n") + line.rstrip("\n"))
        out.write("\n]\n" if rows.stat().st_size else "[]\n")
