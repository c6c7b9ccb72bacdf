"""Ids of the Hugging Face Hub: `owner/name`, or `owner/name@revision` for one that stays."""

from __future__ import annotations

import re
from pathlib import Path

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)


def is_hub_id(text: str, folder: Path | None = None) -> bool:
    """Tell whether a name is an id of the Hub: it has the form of one, and no such path is there.

    Args:
        text: The name.
        folder: Where a relative path begins; the working folder without it.
    """
    return bool(_ID.fullmatch(text)) and not ((folder or Path()) / text).exists()
