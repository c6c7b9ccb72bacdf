"""What JSON does not know, said once: numbers that are none.

json.loads(text, parse_constant=no_number)
"""

from __future__ import annotations

from typing import NoReturn

from ratchet.errors import InvalidInputError


def no_number(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python reads and JSON does not have.

    Raises:
        InvalidInputError: Always; it is a `ValueError`, as of any other text that is no JSON.
    """
    raise InvalidInputError(f"numbers must be finite, got {name}; leave the field out")
