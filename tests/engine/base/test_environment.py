"""What other processes get of the environment: the usual variables, and no key under whatever name."""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path

import pytest

from engine.base.environment import passed
from engine.base.secrets import redact, secret_names

VALUE = "0123456789abcdef"
NAMES = [
    "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN",
    "WANDB_API_KEY", "OPENAI_KEY_FILE", "GOOGLE_APPLICATION_CREDENTIALS", "DB_PASS", "MYSQL_PWD", "PGPASSWORD",
    "REDISCLI_AUTH", "SMTP_CREDENTIALS", "SENTRY_DSN", "GITHUB_PAT", "SESSION_COOKIE", "SLURM_JWT",
    "npm_config__authToken", "APIKEY", "DJSB_SECRET", "AZURE_STORAGE_CONNECTION_STRING", "SSH_PASSPHRASE", "TOKENS",
]  # fmt: skip
VALUES = [
    "sk-proj-0123456789abcdefghij", "hf_0123456789abcdefghijABCD", "ghp_0123456789abcdefghij0123456789abcdef",
    "github_pat_0123456789abcdefghij", "glpat-0123456789abcdefghij", "AKIA0123456789ABCDEF", "xoxb-0123456789-abcdef",
    "postgres://someone:a-password@db.example/x", "AIza0123456789abcdefghijABCDEFGHIJ_-x",
]  # fmt: skip
USUAL = {
    "PATH": "/usr/bin:/bin", "HOME": "/home/someone", "PWD": "/home/someone", "LC_ALL": "C.UTF-8", "TMPDIR": "/tmp",
    "LD_LIBRARY_PATH": "/usr/lib", "PYTHONPATH": "src", "CUDA_VISIBLE_DEVICES": "0,1,2,3,4", "NCCL_DEBUG": "WARNING!",
    "OMP_NUM_THREADS": "4", "HF_HOME": "/cache/hf", "TRANSFORMERS_CACHE": "/cache/hf", "XDG_CACHE_HOME": "/cache",
    "CONDA_PREFIX": "/opt/conda", "https_proxy": "http://proxy.example:3128", "TOKENIZERS_PARALLELISM": "false...",
    "SLURM_JOB_ID": "12345678", "DJSB_OWNER": "12345678", "TORCH_HOME": "/cache/torch", "TRITON_CACHE_DIR": "/c/triton",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_key_by_its_name_is_neither_passed_nor_shown(name: str) -> None:
    environment = {name: VALUE, "PATH": "/bin"}
    assert passed(environment) == {"PATH": "/bin"}
    assert passed(environment, more=[name]) == environment
    assert redact(f"it is {VALUE}.", environment) == f"it is [{name}]."


@pytest.mark.parametrize("value", VALUES)
def test_a_key_by_its_looks_is_neither_passed_nor_shown(value: str) -> None:
    assert passed({"DJSB_EXTRA": value}) == {}
    assert secret_names({"DJSB_EXTRA": value}) == ["DJSB_EXTRA"]
    assert value not in redact(f"it is {value}.", {})


def test_the_password_of_an_address_is_blacked_out_by_itself() -> None:
    environment = {"https_proxy": "http://someone:hunter2hunter2@proxy.example:3128"}
    assert passed(environment) == {}
    assert redact("login hunter2hunter2 refused", environment) == "login [https_proxy] refused"


def test_what_is_usual_is_passed_and_shown() -> None:
    assert passed(USUAL) == USUAL
    text = " ".join(USUAL.values())
    assert redact(text, USUAL) == text
    assert passed({"SOMETHING_ELSE": "x"}) == {}


def test_where_a_key_lies_may_be_shown(tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    file.write_text("{}")
    environment = {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}
    assert passed(environment) == {}
    assert redact(f"{file}: no permission", environment) == f"{file}: no permission"
    assert redact("task-0123456789abcdefghijkl and risk-0123456789abcdefghijkl stay", {}).count("[key]") == 0


def test_another_object_in_the_place_of_the_environment_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` leaves a copy there when it maps rows in several processes."""
    monkeypatch.setattr(os, "environ", deepcopy(os.environ))
    monkeypatch.setenv("DJSB_OF_LATE", "here")
    monkeypatch.setenv("SOME_API_KEY", "a-key-of-late")
    assert passed()["DJSB_OF_LATE"] == "here" and "SOME_API_KEY" not in passed()
    assert redact("it is a-key-of-late") == "it is [SOME_API_KEY]"
