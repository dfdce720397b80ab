"""Read and check `study.yaml`."""

from __future__ import annotations

from pathlib import Path

from engine.base.errors import StudyError
from engine.base.paths import STUDY_FILE
from engine.base.yaml_text import parse_yaml, read_utf8
from engine.settings.study import Study
from engine.tasks.registry import fitting_study


def read_study(folder: Path) -> Study:
    """Read and validate `folder/study.yaml`.

    Raises: StudyError in one line that names the field and the remedy.
    """
    file = folder / STUDY_FILE
    try:
        text = read_utf8(file)
    except FileNotFoundError:
        raise StudyError(f"no {STUDY_FILE} in {folder}; make one with: djsb init {folder} --data F.jsonl") from None
    except OSError as error:
        raise StudyError(f"{file} cannot be read ({error}); check the path and its permissions") from error
    return parse_study(text, str(file))


def parse_study(text: str, where: str = STUDY_FILE) -> Study:
    """Validate the text of a study file; `where` names it in errors."""
    raw = parse_yaml(text, where)
    if not isinstance(raw, dict):
        raise StudyError(f"{where} is not a mapping of fields; make a new one with: djsb init")
    try:
        return fitting_study(raw)
    except StudyError as error:
        raise StudyError(" ".join(f"{where}: {error}".split())) from None
