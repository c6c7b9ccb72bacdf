"""What stands around every page: its headers, and the secret of the browser that asks."""

from __future__ import annotations

from http.cookies import SimpleCookie

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ratchet.web.people import COOKIE, browser_secret, new_secret

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
"""No script and no style but the files of the pages, nothing from elsewhere, in no frame."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer, browsers name no origin of a form
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
_STRICT = "max-age=31536000"
_FOR_GOOD = "public, max-age=31536000, immutable"
"""Of a file whose address names its content: pages load without asking for it again."""
_UNNAMED = ("/static/", "/health")


class Visitors:
    """Gives each answer its headers, and each browser that has no secret a new one."""

    def __init__(self, app: ASGIApp, *, encrypted: bool) -> None:
        self._app, self._encrypted = app, encrypted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its browser's secret in `request.state.secret`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        known = browser_secret(Request(scope))
        secret = known or new_secret()
        scope.setdefault("state", {})["secret"] = secret
        is_page = not scope["path"].startswith(_UNNAMED)
        named = scope["query_string"].startswith(b"v=")
        cached = "no-store" if is_page else _FOR_GOOD if named else None

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                self._dress(headers, cached if is_page or message["status"] == 200 else None)
                if is_page and not known:
                    _name(headers, cookie(secret, encrypted=self._encrypted))
            await send(message)

        await self._app(scope, receive, dressed)

    def _dress(self, headers: MutableHeaders, cached: str | None) -> None:
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        if cached is not None:
            headers["cache-control"] = cached
        if self._encrypted:
            headers["strict-transport-security"] = _STRICT


def cookie(secret: str, *, encrypted: bool, seconds: int | None = None) -> str:
    """Return the header that gives a browser its secret.

    Args:
        secret: Random; of a session where somebody signed in.
        encrypted: Whether it may be sent by HTTPS alone.
        seconds: How long it is kept; until the browser closes where None.
    """
    made: SimpleCookie = SimpleCookie()
    made[COOKIE] = secret
    morsel = made[COOKIE]
    morsel["path"], morsel["httponly"], morsel["samesite"] = "/", True, "Lax"
    morsel["secure"] = encrypted
    if seconds is not None:
        morsel["max-age"] = seconds
    return morsel.OutputString()


def _name(headers: MutableHeaders, value: str) -> None:
    given = headers.getlist("set-cookie")
    if not any(text.startswith(f"{COOKIE}=") for text in given):
        headers.append("set-cookie", value)
