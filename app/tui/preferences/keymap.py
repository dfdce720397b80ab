"""A person's keys: which binding ids there are, and what of a keymap can be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textual.binding import Binding, BindingType

Bindings = Mapping[str, Sequence[BindingType]]


def known(bindings: Bindings) -> dict[str, Binding]:
    """Binding id → binding, of the app (under "") and of every screen (under its name)."""
    return {b.id: b for found in bindings.values() for b in found if isinstance(b, Binding) and b.id}


def usable(keys: Mapping[str, str], bindings: Bindings) -> tuple[dict[str, str], list[str]]:
    """The keys that can be used, and in words those that cannot: ids that do not exist, and keys used twice.

    A key may do different things on different screens, but only one on each, and none of the app's own.
    """
    ids = known(bindings)
    said = [f"keys: no binding {i!r}; docs/guides/tui.md lists them" for i in keys if i not in ids]
    wanted = {i: k for i, k in keys.items() if i in ids}
    while clash := _clash(wanted, bindings):
        key, one, other = clash
        mine = one if one in wanted else other
        said.append(f"keys: {key} is both {one} and {other}; {mine} keeps its default")
        del wanted[mine]
    return wanted, said


def _clash(wanted: Mapping[str, str], bindings: Bindings) -> tuple[str, str, str] | None:
    """A key that two bindings share on some screen, of which at least one is a person's."""
    for screen in bindings:
        taken: dict[str, str] = {}
        for part in dict.fromkeys(("", screen)):
            for b in bindings.get(part, ()):
                if not isinstance(b, Binding) or not b.id:
                    continue
                for key in (k.strip() for k in wanted.get(b.id, b.key).split(",")):
                    other = taken.setdefault(key, b.id)
                    if other != b.id and (b.id in wanted or other in wanted):
                        return key, b.id, other
    return None
