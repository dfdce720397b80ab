"""Three filters applied to captions: djsb, a hand-written pyarrow filter on the same statistics, and Data-Juicer.

`make bench-apply`. Each run is a process of its own; CPU seconds, memory (PSS) and bytes written are those of its
whole process tree. `--write` puts the table into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.data import make_captions

DJSB, DJ_PROCESS = (Path(sys.executable).with_name(name) for name in ("djsb", "dj-process"))
# statistic → (OP, its parameters for the bounds, low, high)
FILTERS = {
    "text_len": ("text_length_filter", ("min_len", "max_len"), 20, 200),
    "alnum_ratio": ("alphanumeric_filter", ("min_ratio", "max_ratio"), 0.7, 0.95),
    "num_words": ("words_num_filter", ("min_num", "max_num"), 4, 30),
}
BY_HAND = """
import json, sys
import numpy as np, pyarrow as pa, pyarrow.json as pj, pyarrow.parquet as pq
data, out, columns = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
keep = None
for file, low, high in columns:
    values = np.load(file)[0]
    here = (values >= low) & (values <= high)
    keep = here if keep is None else keep & here
if data.endswith(".parquet"):
    pq.write_table(pq.read_table(data).filter(pa.array(keep)), out)
else:
    with open(out, "w", encoding="utf-8") as file:
        for batch in pj.read_json(data).filter(pa.array(keep)).to_batches():
            file.writelines(json.dumps(row, ensure_ascii=False) + "\\n" for row in batch.to_pylist())
"""


def measure(command: list[object], folder: Path) -> dict[str, float]:
    """CPU and wall seconds, peak PSS in MB and MB written of a command and all that it starts."""
    env = {**os.environ, "HF_HOME": f"{folder}/hf", "HF_DATASETS_CACHE": f"{folder}/hf/d", "TQDM_DISABLE": "1"}
    began = time.perf_counter()
    with (folder / "errors.txt").open("wb") as errors:
        process = subprocess.Popen(
            [str(part) for part in command], env=env, cwd=folder, stdout=subprocess.DEVNULL, stderr=errors
        )
    cpu, written, peak = dict[int, float](), dict[int, int](), 0
    parent = psutil.Process(process.pid)
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        total = 0
        try:
            for p in (parent, *parent.children(recursive=True)):
                times = p.cpu_times()
                cpu[p.pid], written[p.pid] = times.user + times.system, p.io_counters().write_bytes
                total += p.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        peak = max(peak, total)
        time.sleep(0.1)
    seconds = time.perf_counter() - began
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command[0]} failed: {(folder / 'errors.txt').read_text()[-2000:]}")
    return {
        "cpu": max(sum(cpu.values()), used.ru_utime + used.ru_stime), "wall": seconds, "peak": peak / 1e6,
        "written": max(sum(written.values()), used.ru_oublock * 512) / 1e6,
        "once": used.ru_oublock * 512 / 1e6,  # a process counts what children wrote that it has waited for
    }  # fmt: skip


def study(folder: Path, data: Path) -> list[tuple[str, float, float]]:
    """A study of these OPs with its statistics; (file of a column, low, high)."""
    from engine.data import stat_files
    from engine.study.opened import open_study

    folder.mkdir()
    ops = "".join(f"  {op}: {{}}\n" for op, *_ in FILTERS.values())
    (folder / "study.yaml").write_text(f"name: bench\ndataset: {{path: {data}, id: id}}\nops:\n{ops}")
    opened = open_study(folder, 2)
    with opened.store:
        _ = opened.op_columns
        runs, _ = opened.op_plan
        files = {run.statistics[0]: str(stat_files.column_file(opened.state, run.key)) for run in runs}
    return [(files[name], low, high) for name, (_, _, low, high) in FILTERS.items()]


def main() -> None:
    """Run everything, print the table, write it on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without-data-juicer", action="store_true")
    args = parser.parse_args()
    lines = ["| what | from, to | CPU s | wall s | peak MB | written MB | rows kept |", "|---|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        recipe = folder / "recipe.yaml"
        process = [{op: dict(zip(names, (low, high), strict=True))} for op, names, low, high in FILTERS.values()]
        recipe.write_text(json.dumps({"np": 2, "use_cache": False, "process": process}))
        make_captions(folder / "in.jsonl", args.rows)
        import pyarrow.json as pj
        import pyarrow.parquet as pq

        pq.write_table(pj.read_json(folder / "in.jsonl"), folder / "in.parquet")
        ratios = {}
        for form in ("jsonl", "parquet"):
            data, out = folder / f"in.{form}", folder / f"out.{form}"
            columns = study(folder / f"study-{form}", data)
            apply = [DJSB, "apply", recipe, "--data", data, "--out", out, "--force"]
            runs: dict[str, list[object]] = {
                "djsb apply, statistics cached": [*apply, "--dir", folder / f"study-{form}"],
                "hand-written pyarrow filter, the same statistics": [
                    sys.executable, "-c", BY_HAND, data, out, json.dumps(columns),
                ],
                "djsb apply, nothing cached": apply,
            }  # fmt: skip
            if form == "jsonl" and not args.without_data_juicer:
                runs["Data-Juicer (dj-process, np 2)"] = [
                    DJ_PROCESS, "--config", recipe, "--dataset_path", data, "--export_path", folder / "dj" / out.name,
                ]  # fmt: skip
            best: dict[str, float] = {}
            for what, command in runs.items():
                repeats = args.repeats if ("cached" in what and "nothing" not in what) or "hand" in what else 1
                found = min((measure(command, folder) for _ in range(repeats)), key=lambda run: run["cpu"])
                best[what] = found["cpu"]
                file = folder / "dj" / out.name if "Juicer" in what else out
                kept = pq.read_metadata(file).num_rows if form == "parquet" else sum(1 for _ in file.open("rb"))
                cells = f"{found['cpu']:.1f} | {found['wall']:.1f} | {found['peak']:.0f} | {found['written']:.0f}"
                lines.append(f"| {what} | {form} | {cells} | {kept:,} |")
                print(lines[-1], flush=True)
            ours, by_hand, *_ = best.values()
            ratios[form] = ours / by_hand
    told = ", ".join(f"{form} {ratio:.2f}" for form, ratio in ratios.items())
    print(f"djsb / hand-written: {told}")
    if args.write:
        from benchmarks.write import write_section

        note = (
            f"{args.rows:,} captions, three filters; the best of {args.repeats} runs by CPU time. djsb / hand-written: "
        )
        write_section(
            "apply", "Applying a recipe (`make bench-apply`)", "\n".join(lines) + f"\n\n{note}{told}; goal: 1.5."
        )


if __name__ == "__main__":
    main()
