"""One self-contained HTML file from a template, a style sheet, a script and data.

All data is hostile: the template escapes it, the page's own policy runs and loads nothing but the
one script and the one style sheet that are part of it, and control characters are made visible.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_KEPT = "\n\t"
_PICTURES = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in _KEPT}
# Control pictures for C0 and DEL; C1 and what UTF-8 cannot hold have none.
_VISIBLE = (
    _PICTURES
    | {0x7F: "\u2421"}
    | dict.fromkeys(range(0x80, 0xA0), "\ufffd")
    | dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
    | dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd")  # turn text around
)


def render(name: str, **data: Any) -> str:
    """Render `NAME.html` with `NAME.css` inside, and `NAME.js` where there is one.

    Args:
        name: Of the template.
        data: What the template shows; it escapes all of it.
    """
    style, script = _asset(f"{name}.css"), _asset(f"{name}.js", missing="")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'" if script else "script-src 'none'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    template = _environment().get_template(f"{name}.html")
    return template.render(style=Markup(style), script=Markup(script), policy=policy, **data)


def visible(text: str) -> str:
    """Return the text with control characters as pictures, so that HTML and UTF-8 can hold it."""
    return text.replace("\r\n", "\n").translate(_VISIBLE)


def _hash(text: str) -> str:
    content = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(content).decode('ascii')}"


@cache
def _asset(name: str, missing: str | None = None) -> str:
    file = files("ratchet.views.pages") / "templates" / name
    if missing is not None and not file.is_file():
        return missing
    return file.read_text("utf-8")


@cache
def _environment() -> Environment:
    return templates_of("ratchet.views.pages", keep_trailing_newline=True)


def templates_of(package: str, *, keep_trailing_newline: bool = False) -> Environment:
    """Return a reader of a package's templates that escapes each value and refuses missing ones.

    What two rooms draw alike stands with the pages of this one.
    """
    shared = PackageLoader("ratchet.views.pages")
    return Environment(
        loader=ChoiceLoader([PackageLoader(package), shared]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=keep_trailing_newline,
    )


def _finalized(value: object) -> object:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
