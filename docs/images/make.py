"""The pictures of README and tutorial, of a demo as djsb runs it: the report's figures, its page, screens of the UI.

make screenshots                          # needs chromium, and some minutes: it runs the demo first
python docs/images/make.py demo-study     # of a demo that has run
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from app.report.page import write_report
from app.tui.app import KEYS, DjsbApp
from app.tui.feed import spawn
from app.tui.widgets.table import KeyedTable

SIZE = (132, 38)
SCREENS = {"tui-overview": ("overview", "djsb-dark"), "tui-trials": ("trials", "djsb-light"),
           "tui-proposals": ("proposals", "djsb-dark")}  # fmt: skip
FIGURES = ("leaderboard", "confirmation")
IDEA = (
    '{experiment: {kind: bucket, slice: {statistic: text_len, low: 20, high: 60}}, reason: "neither spam nor cut off"}'
)
CELL, MARGIN = (12.2, 24.4), (24, 70)  # pixels of a character, and of the window around them
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


def djsb(*command: object) -> None:
    """Run a command; 4 is a budget that ended."""
    ran = subprocess.run([str(Path(sys.executable).with_name("djsb")), *map(str, command)], check=False)
    if ran.returncode not in (0, 4):
        sys.exit(f"djsb {command[0]}: exit code {ran.returncode}")


def demo(folder: Path) -> Path:
    """The demo, run to its end, with an idea of a person that waits."""
    djsb("auto", folder, "--demo")
    return folder


def waiting(folder: Path) -> None:
    """Let an idea of a person wait for a decision, as the tutorial does."""
    idea = folder.parent / "idea.yaml"
    idea.write_text(IDEA, encoding="utf-8")
    djsb("propose", folder, "--by", "person", "--from", idea)


async def screens(folder: Path, out: Path) -> None:
    """The UI's screens as SVG, read from the study as the UI reads it."""
    app = DjsbApp(folder, child=spawn(folder))
    async with app.run_test(size=SIZE) as pilot:
        for name, (mode, theme) in SCREENS.items():
            app.theme = theme
            await pilot.press(KEYS[mode][0])
            for _ in range(600):  # until what is read of the study is there
                await pilot.pause(0.2)
                if any(table.row_count for table in app.screen.query(KeyedTable)):
                    break
            await pilot.pause(2)
            (out / f"{name}.svg").write_text(app.export_screenshot(), encoding="utf-8")


def shot(page: str, out: Path, width: int, height: int, profile: Path) -> None:
    """A page as Chromium draws it."""
    subprocess.run(
        ["chromium", *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}", f"--screenshot={out}",
         page],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    print(out)


def main(folder: Path | None) -> None:
    """Write every picture. folder: of a demo that has run."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        os.environ["XDG_CONFIG_HOME"] = name
        study = scratch / "demo-study"
        if folder is None:
            demo(study)
        else:
            shutil.copytree(folder, study)
        report = write_report(study, scratch / "report")
        for figure in FIGURES:
            shutil.copy(report.parent / "figures" / f"{figure}.png", HERE)
        shot(report.as_uri(), HERE / "report.png", 1200, 1000, scratch / "chromium")
        waiting(study)
        asyncio.run(screens(study, scratch))
        width, height = (round(n * c + m) for n, c, m in zip(SIZE, CELL, MARGIN, strict=True))
        for screen in SCREENS:
            shot((scratch / f"{screen}.svg").as_uri(), HERE / f"{screen}.png", width, height, scratch / "chromium")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else None)
