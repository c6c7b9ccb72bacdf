"""One strict reader of YAML files: plain mappings, lists and values, nothing that surprises.

A key that is there twice, a tag, an anchor, an alias, a merge key and deep nesting are refused with
their line. YAML allows them; in a file of rules they are mistakes, or an attack.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ratchet.errors import InvalidInputError
from ratchet.files.text import printable, unreadable

LARGEST = 1_000_000
MOST_LEVELS = 20
_MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: Path, *, what: str, holds: str, largest: int = LARGEST) -> Mapping[Any, Any]:
    """Return the mapping that a YAML file holds.

    Args:
        path: The file, in UTF-8.
        what: What it is a file of, for messages, e.g. "a policy".
        holds: The names that it must hold, for messages, e.g. "primary".
        largest: Characters that it may have.

    Raises:
        InvalidInputError: It is not there, cannot be read, is too large, no UTF-8, no YAML, empty,
            no mapping, or uses what is not allowed here; the message names the line.
    """
    name = printable(path.name)
    text = _text(path, what, largest)
    try:
        content = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or ""
        if isinstance(error, _Refused):
            raise InvalidInputError(f"{name}, line {_line(mark)}: {problem}") from error
        raise InvalidInputError(
            f"{name} must be YAML, got in line {_line(mark)}: {printable(problem, 200)}; "
            "correct the line"
        ) from error
    except yaml.YAMLError as error:  # characters that YAML does not allow
        raise InvalidInputError(
            f"{name} must be YAML, got: {printable(str(error), 200)}; remove it"
        ) from error
    if not isinstance(content, dict):
        got = "nothing" if content is None else f"a {type(content).__name__}"
        raise InvalidInputError(
            f"{name} must hold a mapping with {holds}, got {got}; write `name: value` lines"
        )
    return content


def _text(path: Path, what: str, largest: int) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(4 * largest + 4)
    except FileNotFoundError as error:
        raise InvalidInputError(
            f"{what} must be in a file, got no {printable(path.name)}; check the path"
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidInputError(
            f"{what} must be YAML in UTF-8, got the byte 0x{content[error.start]:02X} in line "
            f"{line} of {printable(path.name)}; save the file as UTF-8"
        ) from error
    if len(text) > largest:
        raise InvalidInputError(
            f"{what} must have at most {largest:,} characters, got more in "
            f"{printable(path.name)}; shorten it"
        )
    return text


def _line(mark: yaml.Mark | None) -> int:
    return 1 if mark is None else mark.line + 1


class _Refused(yaml.MarkedYAMLError):
    """YAML that is not allowed here."""

    def __init__(self, problem: str, mark: yaml.Mark | None) -> None:
        super().__init__(None, None, problem, mark)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses what is not allowed while it composes."""

    level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        name = getattr(event, "anchor", None)
        if name is not None:
            kind = "alias *" if isinstance(event, yaml.events.AliasEvent) else "anchor &"
            raise _Refused(
                f"a file must not use aliases, got the {kind}{printable(name, 40)}; write the "
                "value out where it is meant",
                event.start_mark,
            )
        if getattr(event, "tag", None) is not None:
            raise _Refused(
                f"a value must have no tag, got {printable(event.tag, 60)!r}; write the plain "
                "value, in quotes where it is text",
                event.start_mark,
            )
        self.level += 1
        if self.level > MOST_LEVELS:
            raise _Refused(
                f"a file must not nest deeper than {MOST_LEVELS} levels, got too many levels; "
                "write it flatter",
                event.start_mark,
            )
        node = super().compose_node(parent, index)
        self.level -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                got = f"{key.value!r}" if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                raise _Refused(f"a key must be text, got {got}; write the keys out", key.start_mark)
            line, known = _line(key.start_mark), (key.tag, key.value)
            if known in lines:
                raise _Refused(
                    f"a key must be there once, got {printable(key.value)!r} twice, first in line "
                    f"{lines[known]}; keep one of the two",
                    key.start_mark,
                )
            lines[known] = line
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError, OverflowError) as error:
            # a date such as 2024-13-45 and a number of 5,000 digits
            raise _Refused(
                f"a value must be readable, got {printable(str(node.value))!r} "
                f"({printable(str(error))}); correct it, or put it in quotes if it is text",
                node.start_mark,
            ) from error
