"""A message to people as an HTML page, as mail shows it."""

from __future__ import annotations

from typing import Any

from ratchet.views.pages.rendering import render


def message_page(**shown: Any) -> str:
    """Return a message as HTML.

    Args:
        shown: `tone`, `title`, `lead`, `facts` (names and what is said of each), `page` and
            `runbook` (addresses or None), `was_cut_off`.
    """
    return render("message", **shown)
