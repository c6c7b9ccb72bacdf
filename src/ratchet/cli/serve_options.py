"""The options of `ratchet serve` about who reaches it, how often and how long."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ratchet.cli.shared import finite
from ratchet.errors import InvalidInputError
from ratchet.files.text import printable

StallSeconds = Annotated[
    float, typer.Option(min=0.01, help="Longest silence in a stream.", callback=finite)
]
AnswerSeconds = Annotated[
    float, typer.Option(min=0.01, help="Longest wait for a whole answer.", callback=finite)
]
Rate = Annotated[
    float,
    typer.Option(min=0.0, help="Events a second of one caller; 0 is no limit.", callback=finite),
]
Gateways = Annotated[
    int,
    typer.Option(
        min=1, max=1_000, help="Gateways behind one address, which share the rates of callers."
    ),
]
LoadAdapters = Annotated[bool, typer.Option(help="Load into vLLM the adapters now in use.")]
MostBytes = Annotated[int, typer.Option(min=1_000, help="Largest request body, in bytes.")]
Cors = Annotated[list[str] | None, typer.Option(help="Web origin that may call; may be repeated.")]
TlsCert = Annotated[
    Path | None, typer.Option(help="Certificate (PEM, with its chain): serve HTTPS.")
]
TlsKey = Annotated[Path | None, typer.Option(help="Its key, without a passphrase.")]
Proxy = Annotated[
    list[str] | None,
    typer.Option(
        help="Address or network of a proxy whose X-Forwarded-For is believed; may be repeated."
    ),
]
KeepBlobs = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Keep pictures, sound and files that clients send; without it their digest alone.",
    ),
]
PassField = Annotated[
    list[str] | None,
    typer.Option(help="Pass on only these of the fields unknown here; may be repeated."),
]
Local = Annotated[
    bool, typer.Option("--local", help="Answer by the local model, whatever the home remembers.")
]
BackendModel = Annotated[
    str | None, typer.Option(help="Name to ask the backend for, whatever the version.")
]
Fallback = Annotated[
    str | None, typer.Option(help="URL of a second backend, asked when the first fails.")
]
Queue = Annotated[int, typer.Option(min=0, help="Requests answered at a time; 0 is no limit.")]
LastResort = Annotated[
    str | None, typer.Option(help="Text for users when nobody answers; never trained on.")
]
Connections = Annotated[int, typer.Option(min=2, help="Most connections of one process.")]
ConnectionsPerAddress = Annotated[int, typer.Option(min=1, help="Most of them from one address.")]
BodySeconds = Annotated[
    float, typer.Option(min=0.1, help="Longest time for a request's body.", callback=finite)
]
MostAnswerBytes = Annotated[
    int, typer.Option(min=1_000, help="Largest answer of a backend, unpacked.")
]
TokenDays = Annotated[
    float, typer.Option(min=0.001, help="Days in which a token gives feedback.", callback=finite)
]
Pages = Annotated[
    int | None,
    typer.Option(min=1, max=65_535, help="Serve the pages for people too, on this port."),
]


def absolute(path: Path | None) -> Path | None:
    """Return a path that means the same in every process."""
    return None if path is None else path.expanduser().resolve()


def proxies(named: list[str] | None) -> tuple[str, ...]:
    """Return the proxies that were named.

    Raises:
        InvalidInputError: One is neither an address nor a network.
    """
    from ratchet.gateway.hosts import proxy_networks

    for text in named or ():
        try:
            proxy_networks([text])
        except ValueError as error:
            raise InvalidInputError(
                f"--proxy must be an address or a network such as 10.0.0.0/24, got "
                f"{printable(text)!r}: {error}"
            ) from error
    return tuple(named or ())


def origins(named: list[str] | None) -> tuple[str, ...]:
    """Return the web origins that were named.

    Raises:
        InvalidInputError: One is no origin.
    """
    from ratchet.gateway.hosts import parse_origin

    found = tuple(text if text == "*" else text.rstrip("/").lower() for text in named or ())
    for text in found:
        try:
            known = text == "*" or parse_origin(text) is not None
        except ValueError:
            known = False
        if not known:
            raise InvalidInputError(
                f"--cors must be an origin such as https://shop.example, or *, got "
                f"{printable(text)!r}"
            )
    return found
