"""Pages from templates. All data is hostile: it is escaped, and control characters are shown.

    return page(request, person, "alerts.html", alerts=found)

A page runs no script and no style of its own, so its policy allows the files of `static/` alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment
from markdown_it import MarkdownIt
from markupsafe import Markup, escape
from starlette.exceptions import HTTPException

from ratchet.records.accounts import PageRole
from ratchet.views.pages.rendering import templates_of, visible
from ratchet.views.words import duration, figure, moment, share
from ratchet.web.people import Person, form_token


@dataclass(frozen=True, slots=True)
class Place:
    """A page that the navigation leads to.

    Attributes:
        path: Its path.
        title: Its name.
        key: The key that, after `g`, leads there.
        role: The least role that sees it.
    """

    path: str
    title: str
    key: str
    role: PageRole = "viewer"


def page(
    request: Request,
    person: Person | None,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **data: Any,
) -> HTMLResponse:
    """Return a page.

    Args:
        request: That it answers.
        person: Who sees it; None for whoever has not signed in.
        template: Name of a file in `templates/`.
        status: Of the answer.
        headers: Further headers.
        data: What the template shows.
    """
    places: tuple[Place, ...] = request.app.state.pages.places
    shown = tuple(place for place in places if person is not None and person.may(place.role))
    text = (
        environment()
        .get_template(template)
        .render(
            person=person,
            places=shown,
            here=request.url.path,
            token=form_token(request.state.secret),
            assistant=request.app.state.pages.settings.model_name,
            **data,
        )
    )
    return HTMLResponse(text, status, dict(headers or {}))


def missing(what: str, key: str) -> HTTPException:
    """Return the refusal of a page about something that is not stored."""
    return HTTPException(404, f"There is no {what} {key[:80]!r} here, or it was erased.")


@cache
def environment() -> Environment:
    """Return what reads the templates."""
    made = templates_of("ratchet.web")
    made.globals["static"] = static
    made.filters["moment"] = moment
    made.filters["ago"] = ago
    made.filters["share"] = share
    made.filters["figure"] = figure
    made.filters["points"] = points
    made.filters["coded"] = coded
    made.filters["markdown"] = markdown
    return made


@cache
def static(name: str) -> str:
    """Return the path of a file of `static/`, another one once its content changes."""
    content = (files("ratchet.web") / "static" / name).read_bytes()
    return f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"


@lru_cache(maxsize=32)
def markdown(text: str, below: int = 2) -> Markup:
    r"""Return Markdown that people wrote as HTML: raw HTML is shown as text, a picture is a link.

    Args:
        text: The Markdown, with tables.
        below: The level of the heading that it stands under; its own headings are below that.

    Example:
        >>> print(markdown("# Tone\n\n[how](https://a.example) <b>not</b>").splitlines()[0])
        <h3>Tone</h3>
    """
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = reader.parse(visible(text))
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1:]) + below)}"
        for child in token.children or ():
            if child.type == "link_open":
                child.attrSet("rel", "noopener noreferrer")
    return Markup(reader.renderer.render(tokens, reader.options, {}))


def ago(at: datetime, now: datetime) -> str:
    """Return how long ago a time is, in its largest unit."""
    passed = now - at
    return "just now" if passed < timedelta(minutes=1) else f"{duration(passed)} ago"


def coded(text: str) -> Markup:
    """Return a text in which what stands between backticks is shown as code."""
    parts = enumerate(visible(text).split("`"))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in parts
    )


def points(value: float | None) -> str:
    """Return a difference of shares in percentage points, with its sign."""
    return "unknown" if value is None else f"{100.0 * value:+.3g} points".replace("-", "−")
