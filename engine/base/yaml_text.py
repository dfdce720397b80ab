"""The one reader of YAML: plain values under keys that are texts, each once, and not more than a person writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import yaml

from engine.base.errors import StudyError

CHARACTERS = 1_000_000
NODES = 100_000  # values, with those that aliases stand for
DEPTH = 60  # nested lists and mappings
LARGEST = 2**63
PLAIN = ("map", "seq", "str", "int", "float", "bool", "null")  # a date is a text


class NotYaml(StudyError):
    """A text is no YAML that can be read. `str` says where and why."""


def read_utf8(file: Path) -> str:
    """The text of a file, without a byte-order mark. Raises: OSError, NotYaml when it is not UTF-8."""
    content = file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        guess = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else f"byte {error.start}"
        raise NotYaml(f"{file} is not UTF-8 ({guess}); save it as UTF-8") from None


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text. where: names it in errors. Raises: NotYaml."""
    if len(text) > CHARACTERS:
        raise NotYaml(f"{where} has {len(text)} characters, more than {CHARACTERS}; is it the right file?")
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except (yaml.YAMLError, ValueError, LookupError, RecursionError) as error:  # the last ones: `!!int x` and its like
        at = getattr(error, "problem_mark", None)
        line = f", line {at.line + 1}" if at else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())[:200]
        raise NotYaml(f"{where}{line} is not YAML: {reason}; mend it there") from None
    finally:
        if loader:
            loader.dispose()


class _Loader(yaml.SafeLoader):
    """SafeLoader of what JSON has too, that counts and reads a key once."""

    yaml_constructors: ClassVar = {
        tag: make for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.removeprefix("tag:yaml.org,2002:") in PLAIN
    }  # fmt: skip
    yaml_implicit_resolvers: ClassVar = {  # type: ignore[misc]
        first: [pair for pair in pairs if not pair[0].endswith(":timestamp")]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._weights: dict[yaml.Node, int] = {}  # node → values that it stands for

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node, unless it is too deep or stands for too much."""
        alias = self.check_event(yaml.AliasEvent)
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self._depth += 1
        if self._depth > DEPTH:
            raise yaml.MarkedYAMLError(problem=f"it is nested more than {DEPTH} deep", problem_mark=mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if alias and node not in self._weights:
            raise yaml.MarkedYAMLError(problem="it holds itself", problem_mark=mark)
        if not alias:
            inner = node.value if isinstance(node, yaml.CollectionNode) else []
            parts = (part for one in inner for part in (one if isinstance(one, tuple) else (one,)))
            self._weights[node] = 1 + sum(self._weights[part] for part in parts)
        if self._weights[node] > NODES:
            raise yaml.MarkedYAMLError(problem=f"it stands for more than {NODES} values", problem_mark=mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are texts, each once."""
        lines: dict[Any, int] = {}
        for key, _ in getattr(node, "written", node.value) or ():
            line = key.start_mark.line + 1
            merge = key.tag == "tag:yaml.org,2002:merge"
            name = "<<" if merge else self.construct_object(key) if isinstance(key, yaml.ScalarNode) else None
            if not isinstance(name, str):
                said = repr(key.value)[:40] if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                raise yaml.MarkedYAMLError(
                    problem=f"the key {said} is no text; put quotes around it", problem_mark=key.start_mark
                )
            if name in lines:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {name[:40]} stands there twice, on line {lines[name]} too",
                    problem_mark=key.start_mark,
                )
            lines[name] = line
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """A text that can be written, and no number that JSON or a database cannot hold."""
        value: Any = super().construct_scalar(node)
        if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            raise yaml.MarkedYAMLError(problem="it has half a letter (a surrogate)", problem_mark=node.start_mark)
        return value

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A number of 64 bits."""
        value: int = super().construct_yaml_int(node)
        if abs(value) >= LARGEST:
            raise yaml.MarkedYAMLError(problem="a number has more than 64 bits", problem_mark=node.start_mark)
        return value

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge what `<<` names; what was written stays known, as keys may come twice by merging."""
        if not hasattr(node, "written"):
            node.written = list(node.value)  # type: ignore[attr-defined]
        super().flatten_mapping(node)


_Loader.yaml_constructors["tag:yaml.org,2002:int"] = _Loader.construct_yaml_int
