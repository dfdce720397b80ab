"""The README's pictures of the terminal UI: the screens on the tests' sample study, drawn by headless Chromium.

make screenshots        # needs chromium
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from app.tui.app import KEYS
from tests.app.tui.sample import SampleApp

SHOTS = {"tui-overview": ("overview", (132, 38), "djsb-dark"), "tui-trials": ("trials", (132, 38), "djsb-light")}
CELL, MARGIN = (12.2, 24.4), (24, 70)  # pixels of a character, and of the window around them
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


async def picture(mode: str, size: tuple[int, int], theme: str) -> str:
    """A screen as SVG."""
    app = SampleApp()
    async with app.run_test(size=size) as pilot:
        app.theme = theme
        await pilot.press(KEYS[mode][0])
        await pilot.pause()
        await app.workers.wait_for_complete()
        await pilot.pause()
        return app.export_screenshot()


def main() -> None:
    """Write every picture."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CONFIG_HOME"] = scratch
        for name, (mode, size, theme) in SHOTS.items():
            drawn = Path(scratch) / f"{name}.svg"
            drawn.write_text(asyncio.run(picture(mode, size, theme)), encoding="utf-8")
            width, height = (round(n * c + m) for n, c, m in zip(size, CELL, MARGIN, strict=True))
            out = HERE / f"{name}.png"
            subprocess.run(
                ["chromium", *FLAGS, f"--user-data-dir={scratch}/chromium", f"--window-size={width},{height}",
                 f"--screenshot={out}", drawn.as_uri()],
                check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            print(out)


if __name__ == "__main__":
    main()
