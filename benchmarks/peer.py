"""The pool path of a Data-Juicer Sandbox configuration: djsb beside the sandbox itself.

`make bench-peer`: captions are analysed by six text filters, cut into pools, drawn to one size, the first three
combined, each repeated. The sandbox runs where its package is installed (data_juicer_sandbox, thirdparty, dj-sandbox);
else what was measured of it on two cores stands in its place. It gets no tracker. CPU seconds, memory (PSS) and bytes
written are those of the whole process tree.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.apply import DJSB, measure
from benchmarks.data import make_captions

OPS = (
    "alphanumeric_filter", "character_repetition_filter", "special_characters_filter", "text_length_filter",
    "words_num_filter", "word_repetition_filter",
)  # fmt: skip
# no caption has a word twice: of that statistic djsb makes no pools, and the sandbox cuts another one's again
POOLS = {"djsb": 15, "the sandbox": 18}
UNLIKE = "The sandbox has 18 pools where djsb has 15: of a statistic that is constant here djsb makes none."
# rows → (wall seconds, MB written) of the sandbox at commit 54ed2ce, py-data-juicer 1.6.1, np 2, two shared cores
MEASURED = {10_000: (50.8, 50.8), 100_000: (153.2, 507.0)}


def pool_job(kind: str, source: str, **extra: Any) -> dict[str, Any]:
    """A manipulation of pools."""
    return {
        "hook": "DataPoolManipulationHook", "meta_name": kind, "output": "paths",
        "input": {"extra_configs.dataset_path": source},
        "extra_configs": {"type": f"data_pool_{kind}", "dataset_path": "none", "export_path": f"out/{kind}", **extra},
    }  # fmt: skip


def configuration(rows: int, who: str) -> dict[str, Any]:
    """What both run; as many results to rank by as there are pools."""
    probe = {
        "hook": "ProbeViaAnalyzerHook", "meta_name": "probe", "output": "path",
        "dj_configs": {"dataset_path": "in.jsonl", "export_path": "out/probe/in.jsonl", "np": 2,
                       "export_original_dataset": True, "process": [{name: {}} for name in OPS]},
    }  # fmt: skip
    pools = "anonymous.construction.paths"
    rank = {
        "hook": "GeneralProbeHook", "meta_name": "ranking", "output": "paths",
        "input": {"extra_configs.dataset_path": pools},
        "extra_configs": {"type": "data_pool_ranking", "dataset_path": "none", "ranking_keys": ["score"], "top_n": 3,
                          "metrics": [{"score": -i} for i in range(POOLS[who])]},
    }  # fmt: skip
    jobs = [
        pool_job("construction", "anonymous.probe.path"), pool_job("downsampling", pools, target_num_samples=rows // 4),
        rank, pool_job("combination", "anonymous.ranking.paths"),
        pool_job("duplication", "anonymous.ranking.paths", duplicating_times=[1, 4]),
    ]  # fmt: skip
    return {"project_name": "bench", "experiment_name": "bench", "work_dir": "out/work",
            "probe_job_configs": [probe], "execution_job_configs": jobs}  # fmt: skip


def main() -> None:
    """Run, print the table, write it on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--rows", type=int, default=100_000)
    args = parser.parse_args()
    lines = ["| what | rows | CPU s | wall s | peak MB | written MB |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_captions(folder / "in.jsonl", args.rows)
        for who in POOLS:
            text = yaml.safe_dump(configuration(args.rows, who), sort_keys=False)
            (folder / f"{who}.yaml").write_text(text, encoding="utf-8")
        ours = measure([DJSB, "run", "djsb.yaml", "--workers", "2"], folder)
        lines.append(
            f"| djsb run | {args.rows:,} | {ours['cpu']:.1f} | {ours['wall']:.1f} | {ours['peak']:.0f} | "
            f"{ours['once']:.1f} |"
        )
        print(lines[-1], flush=True)
        wall = written = None
        if importlib.util.find_spec("data_juicer_sandbox"):
            os.environ["WANDB_MODE"] = "disabled"
            program = Path(sys.executable).with_name("dj-sandbox")
            shutil.rmtree(folder / "out")
            theirs = measure([program, "--config", "the sandbox.yaml"], folder)
            if not list(folder.glob("out/duplication/**/*.jsonl")):
                raise SystemExit("the sandbox, which ends with 0 whatever happens, did not come to its last job")
            wall, written = theirs["wall"], theirs["once"]
            cells = f"{theirs['cpu']:.1f} | {wall:.1f} | {theirs['peak']:.0f} | {written:.1f}"
            lines.append(f"| the sandbox | {args.rows:,} | {cells} |")
        elif args.rows in MEASURED:
            wall, written = MEASURED[args.rows]
            lines.append(f"| the sandbox, as measured before | {args.rows:,} | | {wall:.1f} | | {written:.1f} |")
    note = ""
    if wall and written:
        note = f"{wall / ours['wall']:.1f} × less time, {written / ours['once']:.1f} × fewer bytes. {UNLIKE}"
        print(lines[-1], note, sep="\n")
    if args.write:
        from benchmarks.write import write_section

        write_section("peer", "The pool path of a sandbox configuration", "\n".join([note, "", *lines]))


if __name__ == "__main__":
    main()
