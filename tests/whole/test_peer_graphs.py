"""The configurations of Data-Juicer Sandbox itself are read, checked and shown, unmodified but for paths.

They lie beside the repository, in ../shared/data/peer-configs; without them these tests are skipped, and say so.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.pipeline.configuration import PHASES, load_mapping
from engine.pipeline.start import Checked, checked
from tests.conftest import run_djsb

CONFIGS = Path(__file__).parents[3] / "shared/data/peer-configs/configs"
pytestmark = pytest.mark.skipif(not CONFIGS.is_dir(), reason=f"{CONFIGS} is not there: the peer's files are not read")
PIPELINES = {  # file → its jobs
    "demo/sandbox.yaml": 6, "auto_prompt_optimization/sandbox_auto_prompt_optimization.yaml": 7,
    "easyanimate_text_to_video/1_single_op_pipeline.yaml": 7, "easyanimate_text_to_video/2_multi_op_pipeline.yaml": 6,
    "easyanimate_text_to_video/3_duplicate_pipeline.yaml": 4,
    "internvl_coco_caption/sandbox_internvl_coco_caption.yaml": 21,
}  # fmt: skip
# what a person brings: InternVL's and EasyAnimate's checkpoints, programs and data, VBench's prompts
BROUGHT = ("internvl_home/", "thirdparty/", "EASYANIMATE_MODEL", "outputs/demo-bench/", "pretrained/", "PixArt")

LACKS = ("is not installed", "is not on this machine", "is not there; put")  # what a component says of this machine


@pytest.fixture
def peer(tmp_path: Path) -> Path:
    """A copy of the files, with a home of InternVL in place of its placeholder."""
    shutil.copytree(CONFIGS, tmp_path / "configs", ignore=shutil.ignore_patterns("*.lock"))
    for file in (tmp_path / "configs").rglob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        text = text.replace("<internvl_home>", "internvl_home").replace("/PATH/TO/", "internvl_home/")
        file.write_text(text, encoding="utf-8")
    return tmp_path


def brought(peer: Path, file: Path) -> Checked:
    """The file checked, once what a person brings is there; whatever else is wrong stays."""
    for _ in range(9):
        found = checked(file, peer)
        absent = [p.text.split(" is not there", 1)[0] for p in found.problems if " is not there; check" in p.text]
        new = [peer / path for path in absent if any(part in path for part in BROUGHT)]
        if not new:
            return found
        for path in new:
            path.mkdir(parents=True, exist_ok=True) if not path.suffix else _touch(path)
    return found


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize("name, count", PIPELINES.items())
def test_a_pipeline_is_checked_and_shown(peer: Path, name: str, count: int) -> None:
    found = brought(peer, peer / "configs" / name)
    assert [p for problem in found.problems if not any(part in (p := str(problem)) for part in LACKS)] == []
    assert len(found.nodes) == count
    keys = [node.job.key for node in found.nodes]
    assert all(set(node.after) <= set(keys[:place]) for place, node in enumerate(found.nodes))


def test_the_graph_is_printed(peer: Path) -> None:
    name = "auto_prompt_optimization/sandbox_auto_prompt_optimization.yaml"
    done = run_djsb("run", f"configs/{name}", "--dry-run", cwd=peer)
    assert done.returncode == 0, done.stdout + done.stderr
    for part in (
        "iterations: at most 5 until grader_model_prompt_optimization.grades_evaluation.min_mse <= 0.2",
        "generate_new_prompts: ProcessDataHook", "rank_single_prompt_data_pools: GeneralProbeHook, data_pool_ranking",
        "input: extra_configs.metrics ← grader_model_prompt_optimization.grades_evaluation.single_prompt_eval_results",
        "gives: single_prompt_eval_results, min_mse",
    ):  # fmt: skip
        assert part in done.stdout, part
    assert not (peer / "outputs").exists()  # nothing was run or written


def test_every_other_file_is_one_that_a_job_may_name() -> None:
    for file in sorted([*CONFIGS.rglob("*.yaml"), *CONFIGS.rglob("*.json")]):
        content = load_mapping(file)
        whole = "pipelines" in content or any(phase in content for phase in PHASES)
        assert whole == (str(file.relative_to(CONFIGS)) in PIPELINES), file
