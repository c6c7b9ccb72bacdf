"""Real servers on loopback that messages are sent to: SMTP with TLS, Slack's, any webhook."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from ratchet.notify.messages import Links, Message, alert_message
from ratchet.notify.policy import MailChannel
from ratchet.records import AlertEvent
from ratchet.store import EventStore

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
PAGES = Links("https://ratchet.example")
PASSWORD = "T0SECRETWORD"


def alert(**changes: Any) -> AlertEvent:
    """The opening of a critical alert of a board, two hours after it began."""
    values = {
        "id": "event-1", "alert_id": "alert-1", "created_at": NOW, "change": "opened",
        "kind": "board", "severity": "critical", "model_version": "support-router/2",
        "signal": "thumbs_down", "since": NOW - timedelta(hours=2), "value": 0.31, "lower": 0.27,
        "upper": 0.35, "expected": 0.12, "observations": 1481,
        "certainty": "the board as a whole raises a false alarm at most once in 30 days",
        "message": "support-router/2: thumbs down 31.0% where 12.0% is normal, "
        "since about 2026-11-24 07:30 UTC, 1481 observations",
        "action": "roll back to support-router/1: it began with this release",
    }  # fmt: skip
    return AlertEvent.model_validate(values | changes)


def message(key: str = "m-1", **changes: Any) -> Message:
    """The message about that alert, or about one that differs."""
    return alert_message(alert(**changes), key=key, links=PAGES, now=NOW)


class Clock:
    """A time that a test moves on."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **span: float) -> None:
        self.now += timedelta(**span)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[EventStore]:
    opened = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}", clock=clock)
    yield opened
    opened.close()


# The web ------------------------------------------------------------------------------------------


@dataclass
class Inbox:
    """A web server that keeps what it is sent.

    Attributes:
        answers: Status, headers and text of the answers that come first; afterwards 200 `ok`.
        received: Path, headers and body of what came.
    """

    port: int = 0
    answers: list[tuple[int, dict[str, str], str]] = field(default_factory=list)
    received: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def url(self, path: str = "hook") -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, _, body in self.received]


@contextmanager
def listening(check: Callable[[bytes], tuple[int, str]] = lambda _: (200, "ok")) -> Iterator[Inbox]:
    """A web server on a free port that answers as `check` says of a body."""
    kept = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            kept.received.append((self.path, headers, body))
            status, more, text = kept.answers.pop(0) if kept.answers else (0, {}, "")
            if not status:
                status, text = check(body)
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.port = int(server.server_address[1])
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with listening() as kept:
        yield kept


def as_slack(body: bytes) -> tuple[int, str]:
    """Answer as Slack's incoming webhooks do, by https://docs.slack.dev/messaging: the limits of
    https://docs.slack.dev/reference/block-kit/blocks are those of its blocks."""
    try:
        sent = json.loads(body)
    except ValueError:
        return 400, "invalid_payload"
    if not isinstance(sent, dict) or not isinstance(sent.get("text"), str):
        return 400, "no_text"
    blocks = sent.get("blocks", [])
    if len(blocks) > 50:
        return 400, "invalid_blocks"
    for block in blocks:
        text = block.get("text", {}).get("text", "")
        most = {"header": 150, "section": 3000}.get(block["type"], 3000)
        if block["type"] not in ("header", "section", "context") or len(text) > most:
            return 400, "invalid_blocks"
        if block["type"] == "header" and block["text"]["type"] != "plain_text":
            return 400, "invalid_blocks"
        if block["type"] != "context" and not text:
            return 400, "invalid_blocks"
    return 200, "ok"


@pytest.fixture
def slack() -> Iterator[Inbox]:
    with listening(as_slack) as kept:
        yield kept


# Mail ---------------------------------------------------------------------------------------------


@dataclass
class Post:
    """An SMTP server that keeps mails.

    Attributes:
        replies: What it says to the first mails; afterwards it takes them.
        refused: Recipients that it does not know.
    """

    port: int = 0
    ca: Path = Path()
    mails: list[EmailMessage] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    to: list[list[str]] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    encrypted: list[bool] = field(default_factory=list)
    signed_in: list[bool] = field(default_factory=list)

    def config(self, **changes: Any) -> MailChannel:
        """The channel that reaches it."""
        values = {
            "type": "mail", "host": "localhost", "port": self.port, "user": "ratchet",
            "password": "RATCHET_SMTP_PASSWORD", "from": "ratchet@example.org",
            "to": ["ada@example.org"], "ca": self.ca,
        }  # fmt: skip
        return MailChannel.model_validate(values | changes)

    # what aiosmtpd calls
    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, to: str, _: Any) -> str:  # noqa: N802
        if to in self.refused:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(to)
        return "250 ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.replies:
            return self.replies.pop(0)
        self.raw.append(envelope.content)
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[arg-type]
        self.to.append(list(envelope.rcpt_tos))
        self.encrypted.append(server.transport.get_extra_info("sslcontext") is not None)
        self.signed_in.append(bool(session.authenticated))
        return "250 ok"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of localhost that signs itself, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    folder, now = tmp_path_factory.mktemp("tls"), datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name)
        .public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


@contextmanager
def post_office(certificate: tuple[Path, Path], *, implicit: bool = False) -> Iterator[Post]:
    """An SMTP server that asks for TLS (from the first byte on, or by STARTTLS) and a password."""
    kept = Post(ca=certificate[0])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)

    def sign_in(_server: Any, _session: Any, _envelope: Any, _how: str, data: Any) -> AuthResult:
        known = (data.login, data.password) == (b"ratchet", PASSWORD.encode())
        return AuthResult(success=known, handled=known)

    options: dict[str, Any] = {"authenticator": sign_in, "auth_required": True}
    if implicit:
        options |= {"ssl_context": context, "auth_require_tls": False}
    else:
        options |= {"tls_context": context, "require_starttls": True}
    controller = Controller(kept, hostname="localhost", port=_free_port(), **options)
    controller.start()
    kept.port = controller.port
    try:
        yield kept
    finally:
        controller.stop()


def _free_port() -> int:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def post(certificate: tuple[Path, Path]) -> Iterator[Post]:
    with post_office(certificate) as kept:
        yield kept
