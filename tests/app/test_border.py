"""The border of the program: every error is one line that says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_full_disk_that_a_library_tells_in_its_own_way_is_told_as_any_other(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from app.border import guarded\n"
        "from tokenizers import Tokenizer, models\n"
        "guarded(lambda: Tokenizer(models.BPE()).save('/dev/full'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        1,
        "djsb: No space left on device (os error 28); the disk is full: free some space and run the same command "
        "again; nothing is lost\n",
    )
