"""Where things are: the console entry, and the names inside a study's folder."""

from pathlib import Path

ENTRY = Path(__file__).resolve().parents[1] / "djsb.py"
STUDY_FILE = "study.yaml"
STATE_FOLDER = ".djsb"
DATABASE = "study.db"
