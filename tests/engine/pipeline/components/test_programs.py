"""Trainers that are programs of others, with stand-ins; and Data-Juicer's classifier of texts."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.pipeline.contract import ComponentError, Draft
from engine.pipeline.hooks import EVALUATE_DATA, TRAIN
from engine.pipeline.registry import component_of
from engine.pipeline.work import programs
from engine.pipeline.work.spark_text import murmur3, words
from tests.engine.pipeline.components.run import run_component

TRAINER = """
import json
from pathlib import Path
class Config:
    def merge_from_dict(self, more): self.more = more
class Trainer:
    def __init__(self, name, args):
        self.name, self.args = name, args
        self.config = args["cfg_modify_fn"](Config())
    def train(self):
        for step, loss in enumerate((2.5, 1.25), 1):
            print(f"epoch [1][{step}/2]\\tlr: 1e-4, memory: 1, loss: {loss}")
        told = {"rows": self.args["train_dataset"].rows, "trainer": self.name, "train": self.config.more["train"]}
        (Path(self.args["work_dir"]) / "told.json").write_text(json.dumps(told))
def build_trainer(name, default_args): return Trainer(name, default_args)
"""
DATA = """
import json
class Rows:
    def __init__(self, rows): self.rows, self.features = rows, list(rows[0])
    def rename_column(self, old, new):
        return Rows([{new if k == old else k: v for k, v in row.items()} for row in self.rows])
class MsDataset:
    @staticmethod
    def load(path, split):
        found = MsDataset()
        found.ds_instance = Rows([json.loads(line) for line in open(path)])
        return found
"""


def modelscope(folder: Path) -> Path:
    """A package that stands in for ModelScope; the folder that it lies in."""
    for name, text in (("trainers", TRAINER), ("msdatasets", DATA)):
        (folder / "modelscope" / name).mkdir(parents=True)
        (folder / "modelscope" / name / "__init__.py").write_text(text, encoding="utf-8")
    (folder / "modelscope" / "__init__.py").write_text("", encoding="utf-8")
    return folder


KEYS = {"type": "modelscope", "train_dataset": "d.jsonl", "work_dir": "work", "model_name": "m", "trainer_name": "t"}


def test_modelscope_trains_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = modelscope(tmp_path / "packages")
    monkeypatch.syspath_prepend(place)
    monkeypatch.setenv("PYTHONPATH", str(place))
    (tmp_path / "d.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    points: list[Any] = []
    keys = {**KEYS, "key_remapping": {"text": "src_txt"}, "train": {"max_epochs": 2}}
    done = run_component(tmp_path, TRAIN, keys, measure=lambda *point: points.append(point))
    assert done.outputs == [str(tmp_path / "work")]
    told = json.loads((tmp_path / "work" / "told.json").read_text(encoding="utf-8"))
    assert told == {"rows": [{"src_txt": "a"}], "trainer": "t", "train": {"max_epochs": 2}}
    assert points == [("loss", 2.5, 1), ("loss", 1.25, 2)]


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    with pytest.raises(ComponentError, match="package modelscope is not installed"):
        run_component(tmp_path, TRAIN, KEYS)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ComponentError, match="conda is not on this machine"):
        run_component(tmp_path, TRAIN, {**KEYS, "env_name": "e"})
    with pytest.raises(ComponentError, match=r"env is not there; make it \(.*venv.*--allow-install"):
        run_component(tmp_path, TRAIN, {**KEYS, "env_name": "env", "env_manager": "venv"})
    trainer = component_of(TRAIN, "trinity-rft")
    assert trainer
    ((key, reason),) = trainer.check(Draft({}))
    assert (key, reason.split(";")[0]) == ("extra_configs.type", "the program trinity is not here")


def test_an_environment_is_used_and_a_failure_is_told_by_its_last_line(tmp_path: Path) -> None:
    bin_ = tmp_path / "env" / "bin"
    bin_.mkdir(parents=True)
    trinity = "#!/bin/sh\necho \"INFO monitor.py:96] Step 3: {'perf/throughput': 2.0, 'loss': 0.5}\"\n"
    for name, text in (("python", "#!/bin/sh\nexit 0\n"), ("trinity", trinity)):
        (bin_ / name).write_text(text, encoding="utf-8")
        (bin_ / name).chmod(0o755)
    (tmp_path / "t.yaml").write_text("checkpoint_root_dir: ckpt\n", encoding="utf-8")
    points: list[Any] = []
    keys = {"type": "trinity-rft", "trinity_config_path": "t.yaml", "env_name": "env", "env_manager": "uv"}
    done = run_component(tmp_path, TRAIN, keys, measure=lambda *point: points.append(point))
    assert done.outputs == [str(tmp_path / "ckpt")]
    assert points == [("perf/throughput", 2.0, 3), ("loss", 0.5, 3)]
    (bin_ / "trinity").write_text("#!/bin/sh\necho first\necho no GPU >&2\nexit 3\n", encoding="utf-8")
    with pytest.raises(ComponentError, match="trinity ended with code 3: no GPU"):
        run_component(tmp_path, TRAIN, keys)


def test_an_environment_is_made_only_where_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "env" / "bin"
    script = f"mkdir -p {made}; printf '#!/bin/sh\\n' > {made}/python; chmod +x {made}/python"
    monkeypatch.setitem(programs.MAKES, "venv", ["/bin/sh", "-c", script])
    (tmp_path / "d.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    said: list[str] = []
    keys = {**KEYS, "env_name": "env", "env_manager": "venv"}
    run_component(tmp_path, TRAIN, keys, allow_install=True, say=said.append)
    assert said[0].startswith("$ /bin/sh -c")


def classifier(folder: Path, good: str, bad: str) -> Path:
    """One of a small vocabulary, in the files of Spark: a word that speaks for a text and one against it."""
    weights = [0.0] * 64
    weights[murmur3(good.encode()) % 64], weights[murmur3(bad.encode()) % 64] = 2.0, -3.0
    stages = {"0_Tokenizer": {}, "1_HashingTF": {"paramMap": {"numFeatures": 64}}, "2_LogisticRegressionModel": {}}
    for name, more in stages.items():
        metadata = folder / "stages" / name / "metadata"
        metadata.mkdir(parents=True)
        text = json.dumps({"class": f"org.apache.spark.ml.x.{name[2:]}", **more})
        (metadata / "part-00000").write_text(text, encoding="utf-8")
    matrix = {"type": 1, "numRows": 1, "numCols": 64, "colPtrs": None, "rowIndices": None, "values": weights,
              "isTransposed": True}  # fmt: skip
    row = {"interceptVector": {"type": 1, "values": [0.5]}, "coefficientMatrix": matrix}
    data = folder / "stages" / "2_LogisticRegressionModel" / "data"
    data.mkdir()
    pq.write_table(pa.Table.from_pylist([row]), data / "part-0.parquet")
    return folder


def test_texts_are_scored_as_spark_scores_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert murmur3(b"", 0) == 0 and murmur3(b"hello", 0) == 0x248BFA47
    assert murmur3(b"aaaa", 0x9747B28C) == 0x5A97808A and murmur3(b"abc", 0) == 0xB3DD93FA - (1 << 32)
    assert (words("A  b "), words(""), words(" ")) == (["a", "", "b"], [""], [])
    (tmp_path / "d.jsonl").write_text('{"text": "Fine fine"}\n{"text": "awful"}\n', encoding="utf-8")
    keys = {"type": "dj_text_quality_classifier", "dataset_path": "d.jsonl"}
    monkeypatch.setenv("DATA_JUICER_MODELS_CACHE", str(tmp_path))
    with pytest.raises(ComponentError, match="gpt3_quality_model is not there"):
        run_component(tmp_path, EVALUATE_DATA, keys)
    classifier(tmp_path / "gpt3_quality_model", "fine", "awful")
    (mean,) = run_component(tmp_path, EVALUATE_DATA, keys).outputs
    assert mean == pytest.approx((1 / (1 + math.exp(-4.5)) + 1 / (1 + math.exp(2.5))) / 2)
    assert sys.modules.get("pyspark") is None
