"""`djsb publish`: its Croissant validates, its provenance reads back, its card forms no markup of the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from app.publish import folder as publishing
from engine.evidence.ranking import leaderboard
from engine.study.opened import open_study
from engine.study.view import view_study
from tests.conftest import Tiny, run_djsb

mlcroissant = pytest.importorskip("mlcroissant")


@pytest.fixture(scope="module")
def published(probed_template: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tiny, str, Path]:
    """The probed study, the id of its best pool, and the folder of its rows."""
    out = tmp_path_factory.mktemp("out") / "data set"
    best = leaderboard(view_study(probed_template.study))[0].pool
    ran = run_djsb("publish", probed_template.study, "--pool", best, "--rows", "--license", "cc-by-4.0", "--out", out)
    assert ran.returncode == 0, ran.stderr
    return probed_template, best, out


def test_mlcroissant_validates_it_and_reads_the_rows_back(published: tuple[Tiny, str, Path]) -> None:
    tiny, best, out = published
    data = mlcroissant.Dataset(out / "croissant.json")
    assert not data.metadata.ctx.issues.errors
    rows = [record["rows/text"].decode() for record in data.records("rows")]
    with (opened := open_study(tiny.study)).store:
        from engine.evidence.recipe_file import find_pool

        kept = opened.kept_rows(find_pool(opened, best).pool)
    lines = tiny.train_file.read_text().splitlines()
    assert rows == [json.loads(lines[n])["text"] for n in kept]
    told = json.loads((out / "croissant.json").read_text())
    assert told["rai:dataBiases"] and told["rai:dataLimitations"] and "cc-by-4.0" in json.dumps(told["license"])


def test_provenance_leads_from_the_data_to_the_recipe_and_names_nobody(published: tuple[Tiny, str, Path]) -> None:
    from prov.model import ProvDocument

    tiny, best, out = published
    text = (out / "provenance.json").read_text()
    found = json.loads(text)
    ProvDocument.deserialize(content=text, format="json")
    trials = view_study(tiny.study).store.query("SELECT id FROM trials WHERE state = 'COMPLETE'")
    assert {f"djsb:trial-{t['id']}" for t in trials} <= set(found["activity"])
    derived = {(d["prov:generatedEntity"], d["prov:usedEntity"]) for d in found["wasDerivedFrom"].values()}
    assert {("djsb:statistics", "djsb:data"), ("djsb:recipe", "djsb:statistics")} <= derived
    assert any(d["prov:influencee"] == "djsb:recipe" for d in found["wasInfluencedBy"].values())
    import getpass

    assert f"person {getpass.getuser()}" not in text and str(tiny.study) not in text and best


def test_the_card_has_a_heading_that_the_hub_reads(published: tuple[Tiny, str, Path]) -> None:
    _, _, out = published
    _, heading, body = (out / "README.md").read_text().split("---\n", 2)
    told = yaml.safe_load(heading)
    assert told["license"] == "cc-by-4.0" and told["size_categories"] == ["n<1K"]
    assert (out / told["configs"][0]["data_files"]).is_file()
    assert "No fresh seeds have confirmed this pool" in body and "## Limits" in body
    assert {p.name for p in out.iterdir()} == {
        "README.md", "croissant.json", "data", "provenance.json", "recipe.yaml", "report.html",
    }  # fmt: skip


def test_ids_are_published_where_rows_may_not_be(probed: Tiny, tmp_path: Path) -> None:
    best = leaderboard(view_study(probed.study))[0].pool
    ran = run_djsb("publish", probed.study, "--pool", best, "--out", tmp_path / "ids", "--json")
    made = json.loads(ran.stdout)
    table = pq.read_table(made["data"]).to_pydict()
    assert len(table["row"]) == made["rows"] and table["id"] == [str(n) for n in table["row"]]
    assert "no license is named" in made["warnings"][0]
    again = run_djsb("publish", probed.study, "--pool", best, "--out", tmp_path / "ids")
    assert again.returncode == 1 and "is not empty" in again.stderr


def test_nothing_is_published_without_a_recipe_or_a_pool(probed: Tiny, tmp_path: Path) -> None:
    ran = run_djsb("publish", probed.study, "--out", tmp_path / "none")
    assert ran.returncode == 1 and "no recipe is confirmed yet" in ran.stderr and not (tmp_path / "none").exists()


def test_texts_of_the_data_form_no_markup() -> None:
    assert publishing._plain("a | <b>\n# [x](javascript:1)") == r"a \| \<b\> \# \[x\](javascript:1)"


def test_an_upload_goes_by_the_users_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalTokenNotFoundError

    sent: list[Any] = []

    class Api:
        def create_repo(self, name: str, **how: Any) -> None:
            sent.append((name, how["private"]))

        def upload_folder(self, **how: Any) -> None:
            sent.append(how["folder_path"])

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert publishing.push(tmp_path, "me/it") == "https://huggingface.co/datasets/me/it"
    assert sent == [("me/it", True), tmp_path]

    def refuse(self: Any, **how: Any) -> None:
        raise LocalTokenNotFoundError("no token")

    monkeypatch.setattr(Api, "upload_folder", refuse)
    with pytest.raises(Exception, match="hf auth login"):
        publishing.push(tmp_path, "me/it")
