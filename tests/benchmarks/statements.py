"""How large the code is: statements by room, docstrings not counted.

    python -m tests.benchmarks.statements

A statement is a node of type `stmt` in the syntax tree; how lines are broken does not change it.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Mapping

from tests.test_architecture import read_sources, unit_of


def statements(source: str) -> int:
    """Count the statements of a module; a bare text, such as a docstring, is none."""
    return sum(
        isinstance(node, ast.stmt) and not _is_text(node) for node in ast.walk(ast.parse(source))
    )


def by_room(sources: Mapping[str, str]) -> dict[str, int]:
    """Return the statements of each room, the largest first."""
    found = Counter[str]()
    for module, source in sources.items():
        found[unit_of(module)] += statements(source)
    return dict(found.most_common())


def main() -> None:
    """Print the total, and each room's."""
    rooms = by_room(read_sources())
    lines = [
        f"{count:>7,}  {room}" for room, count in {"total": sum(rooms.values()), **rooms}.items()
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


if __name__ == "__main__":
    main()
