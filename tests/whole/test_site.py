"""The documentation as a site: it holds every page, needs no network, and can be read and searched from the disk."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.app.tui.driving import wait
from tests.whole.browser import MISSING, Browser, browsing

ROOT = Path(__file__).resolve().parents[2]
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video)[^>]*\ssrc="(?:https?:)?//|url\(["']?(?:https?:)?//"""
    r"""|<link[^>]*rel="(?:stylesheet|preconnect|icon|preload)"[^>]*href="(?:https?:)?//"""
)
ELSEWHERE = {"index.md", "changelog.md", "contributing.md", "tutorial/python.md"}  # docs/pages.py gives their text


def named(nav: Any) -> Iterator[str]:
    """The pages of a part of the navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from named(part)


def test_every_page_is_in_the_navigation() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = {str(f.relative_to(ROOT / "docs")) for f in (ROOT / "docs").rglob("*.md")}
    nav = list(named(settings["nav"]))
    assert set(nav) == pages | ELSEWHERE, "mkdocs.yml, nav: a page is missing or is no more"
    assert len(nav) == len(set(nav))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it: a broken link or anchor, or a page left out, ends it."""
    out = tmp_path_factory.mktemp("docs") / "site"
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr[-3000:]
    return out


def test_no_page_fetches_anything(site: Path) -> None:
    pages = {f: f.read_text(encoding="utf-8") for f in site.rglob("*") if f.suffix in (".html", ".css")}
    assert len(pages) > 40
    assert not {name: m[0] for name, text in pages.items() for m in FETCHED.finditer(text)}


def test_the_reference_holds_what_the_code_says(site: Path) -> None:
    api = (site / "reference" / "api.html").read_text(encoding="utf-8")
    assert "open_study" in api and "Raises: Error in one line" in api


def search(browser: Browser, text: str) -> str:
    """What the site's search says of a text."""
    browser.run(
        "const field = document.querySelector('[data-md-component=search-query]'); field.focus(); "
        f"field.value = {text!r}; field.dispatchEvent(new KeyboardEvent('keyup', {{bubbles: true}}))"
    )
    script = "return document.querySelector('[data-md-component=search-result]').innerText"
    wait(lambda: "matching" in browser.run(script))
    return str(browser.run(script))


@pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)}: apt-get install chromium chromium-driver")
@pytest.mark.flaky(reruns=2)  # a real browser on a busy machine
def test_it_is_read_and_searched_from_the_disk(site: Path, tmp_path: Path) -> None:
    with browsing(tmp_path / "profile") as browser:
        for page in ("index.html", "reference/commands.html"):
            browser.open((site / page).as_uri())
            assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
            assert "repetition" in search(browser, "repetition").lower()
        assert not browser.console()
