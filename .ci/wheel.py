"""The wheel's layout: one package `djsb` holds everything, so that no `app`, `agent` or `engine` of a user can collide.

The setting `sources` puts the repository's folders below `djsb/`. This hook adds the console entry as the package's
`__init__.py` and `__main__.py`. An editable install needs neither: it uses the clone as it stands.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Entry(BuildHookInterface[Any]):
    """Adds djsb.py to the wheel under its two names there."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """version: `standard` or `editable`."""
        if version == "standard":
            copy = Path(tempfile.mkdtemp()) / "djsb.py"  # the map is from file to name: a second name needs a copy
            shutil.copy(Path(self.root) / "djsb.py", copy)
            build_data["force_include"].update({f"{self.root}/djsb.py": "__init__.py", str(copy): "__main__.py"})
