"""Prices of tokens, read from YAML.

models:
  support-router: {input: 0.15, output: 0.60}            # a million tokens
  support-router/7: {input: 0.30, output: 1.20, cached_input: 0.03}

The name is that of a version, or of all versions of a name.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from ratchet.errors import InvalidInputError
from ratchet.files.text import finding
from ratchet.files.yaml import read_yaml
from ratchet.records.prices import NO_PRICES, Prices


def load_prices(path: Path | None) -> Prices:
    """Read a file of prices; none are known without one.

    Raises:
        InvalidInputError: It is not there, no YAML, or breaks a rule.
    """
    if path is None:
        return NO_PRICES
    content = read_yaml(path, what="prices", holds="models")
    try:
        return Prices.model_validate(content)
    except ValidationError as error:
        raise InvalidInputError(
            f"{path.name}: {finding(error, 60, whole='the file')}; write `models:` and a line such "
            "as `support-router: {input: 0.15, output: 0.60}` for each"
        ) from error
