"""A study as its design has it."""

from __future__ import annotations

from engine.journal import results
from engine.records.design import StudyDesign
from engine.settings.study import with_fields
from engine.study.opened import OpenStudy


def design_of(opened: OpenStudy) -> StudyDesign | None:
    """The stored design of the cycle or, where it has none yet, of the first; None for a study of fixed sizes."""
    if opened.study.design != "auto":
        return None
    return results.DESIGN.get(opened.store, opened.setup) or results.DESIGN.get(opened.store, opened.root)


def adopt(opened: OpenStudy, design: StudyDesign) -> None:
    """Give the study the sizes of a design; what study.yaml sets itself stays."""
    fields = dict(design.fields)
    if design.fitted:
        fields["confirm.candidates"], fields["confirm.seeds"] = design.fitted
    left = {name: value for name, value in fields.items() if name not in opened.own}
    opened.adopt(with_fields(opened.study, left))


def as_designed(opened: OpenStudy) -> OpenStudy:
    """The study with the sizes of its stored design, where it has one."""
    if design := design_of(opened):
        adopt(opened, design)
    return opened
