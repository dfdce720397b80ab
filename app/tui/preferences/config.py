"""What a person sets for the terminal UI, in the platform's config folder; and what was last seen of each study.

A file that cannot be used costs a toast and leaves the defaults; nothing else is ever written here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_config_path
from pydantic import BaseModel, ConfigDict, ValidationError

from engine.base.yaml_text import NotYaml, parse_yaml, read_utf8

THEME = "djsb-dark"
LOOKS = 50  # studies of which the last look is kept
Row = dict[str, Any]


class Config(BaseModel):
    """`tui.yaml`. Every field may be left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    theme: str = THEME
    """Name of a theme: djsb-dark, djsb-light, djsb-contrast, or one of Textual's. The palette's choice is kept here."""

    bell: bool = False
    """Ring the terminal's bell with each notice."""

    density: Literal["comfortable", "compact"] = "comfortable"
    """compact: no frames around inputs, fewer lines for charts and news, more for the tables."""

    keys: dict[str, str] = {}
    """Binding id → key or keys, e.g. `engine.pause: f5` or `app.quit: "q,ctrl+d"`."""


def config_file() -> Path:
    """`~/.config/djsb/tui.yaml` on Linux; XDG_CONFIG_HOME counts."""
    return user_config_path("djsb", appauthor=False) / "tui.yaml"


def read_config() -> tuple[Config, str | None]:
    """The settings, and in one line what is wrong with the file; then the settings are the defaults."""
    file = config_file()
    try:
        content = parse_yaml(read_utf8(file), str(file))
        return Config.model_validate({} if content is None else content), None
    except FileNotFoundError:
        return Config(), None
    except OSError as error:
        return Config(), f"{file}: {error.strerror}; the defaults are used"
    except NotYaml as error:
        return Config(), f"{error}; the defaults are used"
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        return Config(), f"{file}: {place}: {first['msg']}; the defaults are used"


def remember_theme(name: str) -> str | None:
    """Write the theme into the file and leave its other lines as they are; what went wrong, or None."""
    file = config_file()
    try:
        text = read_utf8(file) if file.exists() else ""
        line = f"theme: {name}"
        text, found = re.subn(r"(?m)^theme:.*$", line, text, count=1)
        if not found:
            text = f"{text.rstrip()}\n{line}\n".lstrip()
        # never make a file that cannot be read again
        if Config.model_validate(parse_yaml(text, str(file))).theme != name:
            return f"{file} is left as it is: the theme cannot be written into it"
        _replace(file, text)
    except (OSError, ValueError, NotYaml) as error:
        return f"{file}: the theme is not kept: {' '.join(str(error).split())[:100]}"
    return None


def last_look(study: Path) -> Row:
    """What was there when this study was last looked at: event (id), board ({pool: [rank, verdict]}); {} at first."""
    found = _looks().get(str(study))
    if not (isinstance(found, dict) and isinstance(found.get("event"), int) and isinstance(found.get("board"), dict)):
        return {}
    sound = all(isinstance(v, list) and len(v) == 2 and isinstance(v[0], int) for v in found["board"].values())
    return found if sound else {}


def remember_look(study: Path, look: Row) -> None:
    """Keep it for the next time; a folder that cannot be written costs only that."""
    looks = _looks()
    looks.pop(str(study), None)
    looks[str(study)] = look
    with contextlib.suppress(OSError):
        _replace(config_file().with_name("looks.json"), json.dumps(dict(list(looks.items())[-LOOKS:]), allow_nan=False))


def _looks() -> Row:
    try:
        found = json.loads(config_file().with_name("looks.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _replace(file: Path, text: str) -> None:
    """Write all of it or nothing; a link (dotfiles are often linked) stays one."""
    file = file.resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
        Path(scratch).replace(file)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
