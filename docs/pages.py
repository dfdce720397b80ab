"""Pages of the site that stand elsewhere in the repository: README, CHANGELOG, CONTRIBUTING, the notebook."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
LINKS = {"](docs/": "](", "](CONTRIBUTING.md)": "](contributing.md)", "](CHANGELOG.md)": "](changelog.md)"}


def elsewhere(name: str) -> str:
    """The text of a page, its links as they are within docs/."""
    text = (ROOT / PAGES[name]).read_text(encoding="utf-8")
    for there, here in LINKS.items():
        text = text.replace(there, here)
    return text


def notebook() -> str:
    """The notebook of the tutorial as Markdown."""
    text, _ = MarkdownExporter().from_filename(str(ROOT / "docs/tutorial/python.ipynb"))
    return str(text)


def on_page_content(html: str, **_: object) -> str:
    """Called with each page's body: names of options and fields stay whole, or break after a dot or an underscore."""

    def name(code: re.Match[str]) -> str:
        kind = ' class="whole"' if len(code[1]) <= 26 else ""
        parts = re.sub(r"([._/])(?=.)", r"\1<wbr>", code[1])
        return f"<code{kind}>{parts}</code>"

    return re.sub(r"<code>([^<\s&]{1,60})</code>", name, html)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs once it has listed docs/."""
    for name in PAGES:
        files.append(File.generated(config, name, content=elsewhere(name)))
    files.append(File.generated(config, "tutorial/python.md", content=notebook()))
    return files
