"""What is taken of JSON that others wrote, said once: numbers that are some, and no depths.

json.loads(text, parse_constant=no_number)
is_shallow(value)
loads(text)
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from pydantic_core import from_json

from ratchet.errors import InvalidInputError

DEEPEST = 64
"""So many levels of lists and objects are taken. What walks through values calls itself at each."""


def no_number(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python reads and JSON does not have.

    Raises:
        InvalidInputError: Always; it is a `ValueError`, as of any other text that is no JSON.
    """
    raise InvalidInputError(f"numbers must be finite, got {name}; leave the field out")


def loads(text: str) -> Any:
    """Return what `json.loads` returns, in a third of its time.

    What the faster reader refuses (half of a surrogate pair, hundreds of levels) `json.loads` reads
    or refuses.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It nests too deep.
    """
    try:
        return from_json(text)
    except (ValueError, TypeError):  # the latter of half of a pair that stands in the text itself
        return json.loads(text)


def is_shallow(value: Any) -> bool:
    """Tell whether a value of JSON has at most `DEEPEST` levels.

    Example:
        >>> deep = [[]]
        >>> for _ in range(DEEPEST - 1):
        ...     deep = [deep]
        >>> is_shallow(deep[0]), is_shallow(deep)
        (True, False)
    """
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [one for one in level if isinstance(one, dict | list)]
        if not level:
            return True
        level = [
            inner for one in level for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return False
