"""Where a recipe comes from, as W3C PROV: data → statistics → pools → trials → decisions → recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from app.publish.facts import Facts

SPACE = "https://djsb.invalid/study/"


def write_provenance(facts: Facts, file: Path) -> None:
    """Write PROV-JSON. Persons stand as `person`: names on this machine are nobody's business elsewhere."""
    file.write_text(document(facts).serialize(format="json", indent=1) + "\n", encoding="utf-8")


def document(facts: Facts) -> Any:
    """The document of the package prov."""
    from prov.model import ProvDocument

    found = ProvDocument()
    found.add_namespace("djsb", f"{SPACE}{quote(facts.setup.setup)}/")
    software = found.agent("djsb:djsb", {"prov:type": "prov:SoftwareAgent", "djsb:version": facts.versions["djsb"]})
    data = found.entity("djsb:data", {"djsb:hash": facts.setup.dataset, "djsb:rows": facts.of})
    statistics = found.entity("djsb:statistics", {"djsb:ops": ", ".join(facts.ops)})
    found.wasDerivedFrom(statistics, data)
    if facts.setup.evaluation:
        found.entity("djsb:evaluation", {"djsb:hash": facts.setup.evaluation})
    _decisions(facts, found)
    for key, label in {t.pool: t.label for t in facts.trials}.items():
        found.wasDerivedFrom(found.entity(f"djsb:pool-{key}", {"prov:label": label}), statistics)
    for trial in facts.trials:
        run = found.activity(
            f"djsb:trial-{trial.id}", trial.started, trial.finished,
            {"djsb:stage": trial.stage, "djsb:seed": trial.seed, "djsb:samples": trial.samples},
        )  # fmt: skip
        found.used(run, f"djsb:pool-{trial.pool}")
        found.wasAssociatedWith(run, software)
        found.wasInformedBy(run, f"djsb:decision-{trial.proposal}")
        if facts.setup.evaluation:
            found.used(run, "djsb:evaluation")
    recipe = found.entity("djsb:recipe", {"prov:label": facts.pool.label, "djsb:rows": len(facts.rows)})
    found.wasDerivedFrom(recipe, statistics)
    for trial in facts.trials:
        if trial.pool == facts.pool.id or trial.kind == "control":
            found.wasInfluencedBy(recipe, f"djsb:trial-{trial.id}")
    return found


def _decisions(facts: Facts, found: Any) -> None:
    for one in facts.decisions:
        who = one.who.split()[0]
        found.agent(f"djsb:{quote(who)}", {"prov:type": "prov:Person"} if who == "person" else {})
        key = f"djsb:decision-{one.proposal}"
        found.activity(key, None, one.at, {"djsb:verdict": one.verdict, "djsb:why": one.why})
        found.wasAssociatedWith(key, f"djsb:{quote(who)}")
