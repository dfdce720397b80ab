"""Readers of plug-ins. A path that ends in `.NAME` names the reader NAME; a folder names none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.base import plugins
from engine.base.errors import DjsbError
from engine.base.remote import is_remote
from engine.data.readers.contract import BrokenFile, FileReader, Options, Reader, first_line
from engine.data.readers.formats import format_of


def reader_plugin(path: Path) -> plugins.Plugin | None:
    """The plug-in that a path names; None where djsb reads it, or nobody does."""
    if format_of(path) is not None or len(path.suffix) < 2 or is_remote(path) or path.is_dir():
        return None
    return plugins.plugin(plugins.READERS, path.suffix[1:].lower())


def reader_identity(path: Path) -> str | None:
    """What the rows of a path hang on beside its bytes; None where djsb reads it. Raises: PluginError."""
    given = reader_plugin(path)
    return f"{given.package} {version_of(given)}" if given else None


def version_of(given: plugins.Plugin) -> int:
    """Of what a plug-in reads. Raises: PluginError."""
    return _load(given).version


def opener_for(files: Sequence[Path]) -> Callable[[Path, Options], Reader] | None:
    """What opens files of one name's end; None where no plug-in does. Raises: PluginError."""
    given = reader_plugin(files[0])
    if given is None or len({file.suffix.lower() for file in files}) > 1:
        return None
    made = _load(given)

    def opened(file: Path, options: Options) -> Reader:
        try:
            reader = made.open(file, options)
            len(reader)
        except DjsbError:
            raise
        except (OSError, ValueError) as error:
            raise BrokenFile(f"{file} cannot be read as .{given.name}: {first_line(error)}") from error
        except Exception as error:  # a border: its code may raise anything
            raise plugins.failed(given, f"cannot open {file}", error) from error
        return reader

    return opened


def fault(given: Any) -> str | None:
    """Why what a plug-in gives is no reader, or None."""
    return None if isinstance(given, FileReader) and callable(given.open) else "is no FileReader"


def _load(given: plugins.Plugin) -> FileReader:
    made: FileReader = plugins.loaded(given, fault)
    return made
