"""YAML as recipes use it: the values of JSON, without the surprises that YAML 1.1 adds to them.

Dates and `1:30` are text, `1e-3` is a number and `010` is not; a key that is given twice, an alias,
a tag of another type and a number that no setting can mean are mistakes.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from leanseg.errors import RecipeError

_TAG = "tag:yaml.org,2002:"
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_NUMBER = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
_DEEPEST = 20


class _Reader(yaml.SafeLoader):
    """Composes and constructs no more than the values of JSON."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        problem = ""
        if isinstance(event, yaml.AliasEvent):
            problem = "an alias (*) is not allowed, write the value again"
        if self._depth > _DEEPEST:
            problem = f"it is nested more than {_DEEPEST} deep"
        if problem:
            mark: Any = event.start_mark
            raise ComposerError(None, None, problem, mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        found = super().construct_mapping(node, deep=deep)
        if len(found) < len(node.value):
            keys = [key.value for key, _ in node.value]
            # Two spellings of one key, as null and ~, end at the last of all.
            place = next((n for n, key in enumerate(keys) if key in keys[:n]), -1)
            msg = f"the key {keys[place]!r} is given twice"
            raise ConstructorError(None, None, msg, node.value[place][0].start_mark)
        return found

    def _number(self, node: Any) -> int | float:
        text = str(self.construct_scalar(node))
        number, whole = float(text), bool(_WHOLE.match(text))
        if not math.isfinite(number) or (whole and abs(number) >= 2**63):
            msg = "the number is too large, or none"
            raise ConstructorError(None, None, msg, node.start_mark)
        return int(text) if whole else number

    def _text(self, node: Any) -> str:
        text = str(self.construct_scalar(node))
        text.encode()  # half a character, as JSON can write it, cannot be stored
        return text


class _Writer(yaml.SafeDumper):
    """Quotes the texts that `_Reader` would take for numbers."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_KEPT = {f"{_TAG}{kind}" for kind in ("null", "bool", "map", "seq")}
_Reader.yaml_constructors = {
    tag: make for tag, make in yaml.SafeLoader.yaml_constructors.items() if tag in {*_KEPT, None}
}
_Reader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag in _KEPT]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, _pattern in (("int", _WHOLE), ("float", _NUMBER)):
    _Reader.add_constructor(_TAG + _kind, _Reader._number)
    for _each in (_Reader, _Writer):
        _each.add_implicit_resolver(_TAG + _kind, _pattern, list("-+.0123456789"))
_Reader.add_constructor(f"{_TAG}str", _Reader._text)


def read_yaml(text: str, source: object) -> Any:
    """The data that a YAML text holds.

    Args:
        text: The text.
        source: Where it is from, for the error.

    Raises:
        RecipeError: With the place and what is wrong there.
    """
    try:
        return yaml.load(text, Loader=_Reader)
    except (yaml.YAMLError, ValueError, LookupError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reasons = (getattr(error, name, None) for name in ("problem", "reason"))
        problem = next(filter(None, reasons), "a value cannot be parsed")
        msg = f"{source}: is not valid YAML{where} ({problem}); correct that line"
        raise RecipeError(msg) from error


def write_yaml(data: Any) -> str:
    """Data as YAML that `read_yaml` reads back."""
    return yaml.dump(data, Dumper=_Writer, sort_keys=False, allow_unicode=True)
