"""The peer's own configurations, run as they are but for the models that a test makes.

They lie in ../shared/data/peer-configs, which is not part of the project: without it these tests are left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.agent.server import serving, text
from tests.conftest import DJSB
from tests.engine.data.tiny_models import languages
from tests.engine.pipeline.components.test_programs import classifier, modelscope

CONFIGS = Path(__file__).resolve().parents[3] / "shared" / "data" / "peer-configs" / "configs"
MAIN = (
    "demo/sandbox.yaml", "auto_prompt_optimization/sandbox_auto_prompt_optimization.yaml",
    "internvl_coco_caption/sandbox_internvl_coco_caption.yaml", "easyanimate_text_to_video/1_single_op_pipeline.yaml",
    "easyanimate_text_to_video/2_multi_op_pipeline.yaml", "easyanimate_text_to_video/3_duplicate_pipeline.yaml",
)  # fmt: skip
pytestmark = pytest.mark.skipif(not CONFIGS.is_dir(), reason="../shared/data/peer-configs is not there")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with the peer's configurations."""
    shutil.copytree(CONFIGS, tmp_path / "configs")
    return tmp_path


def djsb(folder: Path, *words: str, code: int = 0, **variables: str) -> Any:
    """What the command prints as JSON."""
    command = [str(DJSB), "run", *words, "--json"]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, timeout=580, check=False
    )
    assert done.returncode == code, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("file", MAIN)
def test_each_is_checked_whole(here: Path, file: str) -> None:
    """What is wrong is only what this machine lacks, and files that the user is to put there."""
    from app.commands.run import dry_run

    os.chdir(here)  # pytest's own folder comes back with the fixture below
    found = dry_run(Path("configs") / file, here)
    lacks = ("is not there", "not installed", "not on this machine", "is not here")
    assert [problem for problem in found["problems"] if not any(said in problem for said in lacks)] == []
    assert found["jobs"]


@pytest.fixture(autouse=True)
def back() -> Any:
    """The folder that the tests run in."""
    before = Path.cwd()
    yield
    os.chdir(before)


@pytest.mark.long
def test_the_demo_runs_to_its_end_and_is_not_run_again(here: Path) -> None:
    languages(here, "zh", ("欢迎来到阿里巴巴！", "你好，请问你是谁", "中"))
    classifier(here / "cache" / "gpt3_quality_model", "happy", "coffee")
    place = modelscope(here / "packages")
    env = {"DATA_JUICER_EXTERNAL_MODELS_HOME": str(here), "DATA_JUICER_MODELS_CACHE": str(here / "cache")}
    env["PYTHONPATH"] = str(place)
    found = djsb(here, "configs/demo/sandbox.yaml", **env)
    assert [job["state"] for job in found["jobs"]] == ["COMPLETE"] * 6
    told = json.loads((here / "outputs" / "sandbox-train" / "told.json").read_text(encoding="utf-8"))
    kept = (here / "outputs" / "demo-process" / "iter_1" / "demo-processed.jsonl").read_text(encoding="utf-8")
    assert [row["src_txt"] for row in told["rows"]] == [json.loads(line)["text"] for line in kept.splitlines()]
    assert 0 < found["jobs"][5]["outputs"]["res_1"] < 1
    again = djsb(here, "configs/demo/sandbox.yaml", **env)
    assert [job["seconds"] for job in again["jobs"]] == [job["seconds"] for job in found["jobs"]]


@pytest.mark.long
def test_prompts_are_optimised_until_the_target_holds(here: Path) -> None:
    """The server gives better and better prompts, and grades well with a good one only."""
    asked: list[str] = []
    items = (here / "configs" / "data" / "auto-prompt-optim" / "init_infer_dataset.jsonl").read_text(encoding="utf-8")
    right = {row["answer"]: row["truth"] for row in map(json.loads, items.splitlines())}

    def script(body: Any) -> Any:
        said = "\n".join(str(message["content"]) for message in body["messages"])
        if "Question:" in said:
            truth = next(truth for answer, truth in right.items() if answer in said)
            return text(str(truth) if "good" in said else "0.1" if "fair" in said else "no number")
        asked.append(said)
        return text(f"【提示词】 {'good' if len(asked) > 6 else 'fair'} prompt {len(asked)}")

    file = "configs/auto_prompt_optimization/sandbox_auto_prompt_optimization.yaml"
    with serving(script) as server:
        found = djsb(here, file, "--workers", "1", OPENAI_BASE_URL=server.url, OPENAI_API_KEY="none-needed")
    assert 1 < found["iterations"] < 5
    jobs = {job["job"]: job["outputs"] for job in found["jobs"]}
    evaluated = next(outputs for name, outputs in jobs.items() if name.endswith("grades_evaluation"))
    assert evaluated["min_mse"] <= 0.2
    assert next(outputs for name, outputs in jobs.items() if name.endswith("merge_single_prompt_data_pools"))
