"""`ratchet serve` and `ratchet keys`: the gateway, and who may use it."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ratchet import __version__
from ratchet.cli import serve_options as options
from ratchet.cli.saying import say, say_json
from ratchet.cli.shared import (
    AsJson,
    By,
    Note,
    check_address,
    created_store,
    current_settings,
    existing_store,
    finite,
    key_of,
    one_line_name,
    open_tracker,
    person,
    show_progress,
)
from ratchet.errors import InvalidInputError
from ratchet.files.text import printable
from ratchet.settings import Settings

if TYPE_CHECKING:
    from ratchet.gateway.options import GatewayOptions
    from ratchet.store import EventStore

keys = typer.Typer(help="Keys of applications for the gateway.", no_args_is_help=True)
ROLES = ("ingest", "read", "review", "admin")
Backend = Annotated[
    list[str] | None,
    typer.Option(
        help="URL of an OpenAI-compatible server, such as vLLM, which the home remembers; "
        "repeat it for replicas."
    ),
]
AdapterRoot = Annotated[
    Path | None, typer.Option(help="Folder of adapters that the backend reads, seen from here.")
]
BackendAdapterRoot = Annotated[
    str | None, typer.Option(help="The same folder as the backend sees it.")
]


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Its port; 0 picks one.")] = 8000,
    backend: Backend = None,
    local: options.Local = False,
    backend_model: options.BackendModel = None,
    fallback: options.Fallback = None,
    fallback_model: Annotated[str | None, typer.Option(help="Name of its model.")] = None,
    load_adapters: options.LoadAdapters = False,
    adapter_root: AdapterRoot = None,
    backend_adapter_root: BackendAdapterRoot = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes.")] = 1,
    gateways: options.Gateways = 1,
    stall_seconds: options.StallSeconds = 30.0,
    answer_seconds: options.AnswerSeconds = 600.0,
    rate: options.Rate = 100.0,
    most_bytes: options.MostBytes = 4_000_000,
    queue: options.Queue = 2_000,
    last_resort: options.LastResort = None,
    cors: options.Cors = None,
    open_to_all: Annotated[
        bool, typer.Option("--open", help="Serve beyond this machine without keys.")
    ] = False,
    sync: Annotated[bool, typer.Option(help="Answer only when the record is on the disk.")] = False,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    proxy: options.Proxy = None,
    pass_field: options.PassField = None,
    keep_blobs: options.KeepBlobs = None,
    connections: options.Connections = 4_000,
    connections_per_address: options.ConnectionsPerAddress = 1_000,
    body_seconds: options.BodySeconds = 60.0,
    most_answer_bytes: options.MostAnswerBytes = 64_000_000,
    token_days: options.TokenDays = 30.0,
    pages: options.Pages = None,
) -> None:
    """Answer like OpenAI's API, record, and take feedback. Ctrl-C stops it."""
    from ratchet.gateway.options import GatewayOptions

    _check_names(host=host, backend_model=backend_model, fallback_model=fallback_model)
    check_address("--fallback", fallback)
    settings, servers = _behind(backend or [], local=local)
    settings = _with_adapter_root(settings, adapter_root, backend_adapter_root)
    told = GatewayOptions(
        settings=settings,
        host=host,
        port=port,
        backend=servers[0] if servers else None,
        replicas=tuple(servers[1:]),
        backend_model=backend_model,
        backend_key=key_of("RATCHET_BACKEND_KEY"),
        fallback=fallback,
        fallback_model=fallback_model,
        fallback_key=key_of("RATCHET_FALLBACK_KEY"),
        load_adapters=load_adapters,
        workers=workers,
        gateways=gateways,
        stall_seconds=stall_seconds,
        answer_seconds=answer_seconds,
        rate_per_second=rate,
        most_bytes=most_bytes,
        most_waiting=queue,
        last_resort=last_resort,
        most_answer_bytes=most_answer_bytes,
        body_seconds=body_seconds,
        connections=connections,
        connections_per_address=connections_per_address,
        proxies=options.proxies(proxy),
        tls_cert=options.absolute(tls_cert),
        tls_key=options.absolute(tls_key),
        passed_fields=None if pass_field is None else tuple(pass_field),
        blobs=options.absolute(keep_blobs),
        token_days=token_days,
        origins=options.origins(cors),
        open=open_to_all,
        sync=sync,
        version=__version__,
    )
    raise SystemExit(_run(told) if pages is None else _run_with_pages(told, pages))


def _run_with_pages(told: GatewayOptions, port: int) -> int:
    """Serve the pages for people beside the gateway, on a port of their own."""
    from ratchet.cli.start import pages_lines
    from ratchet.servers import Servers

    servers = Servers(settings=told.settings, say=say)
    try:
        for line in pages_lines(servers.start_pages(port=port, environ=os.environ)):
            say(line)
        return _run(told)
    finally:
        servers.stop()


def _run(told: GatewayOptions) -> int:
    from ratchet.deploy.adapters import place_adapter
    from ratchet.gateway.serve import Supervisor
    from ratchet.gateway.tls import tls_context
    from ratchet.gateway.tokens import DAY, share_secret

    tls_context(told)  # refused here, not in every worker
    if secret := key_of("RATCHET_GATEWAY_SECRET"):
        now = datetime.now(UTC).timestamp()
        share_secret(told.folder, secret, accept_seconds=told.token_days * DAY, now=now)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)

    def bring(store: EventStore, version: str) -> None:
        place_adapter(told.shelf, store, partial(open_tracker, told.settings), version)

    return Supervisor(told, say=say, bring=bring).run()


def _with_adapter_root(settings: Settings, root: Path | None, at_backend: str | None) -> Settings:
    """Have the home remember where adapters lie for the backend, so that flows put them there."""
    from ratchet.settings import remember

    if at_backend is not None and not at_backend.startswith("/"):
        raise InvalidInputError(
            f"--backend-adapter-root must be an absolute path, got {printable(at_backend)!r}; "
            "name the folder as the backend sees it"
        )
    told: dict[str, Path | str | None] = {
        "adapter_root": None if root is None else root.expanduser().resolve(),
        "backend_adapter_root": at_backend,
    }
    told = {name: value for name, value in told.items() if value is not None}
    return remember(settings, **told) if told else settings


def _behind(backend: list[str], *, local: bool) -> tuple[Settings, tuple[str, ...]]:
    """Return who is to answer, none for the local model; the home remembers what was said.

    Raises:
        InvalidInputError: An address is none, both were asked for, or the local model is not what
            the home adopted.
    """
    for url in backend:
        check_address("--backend", url)
    if local and backend:
        raise InvalidInputError(
            "--local must stand without --backend, got both; leave one of them out"
        )
    settings = current_settings()
    settings.make_home()
    show_progress(settings.log_format)
    if backend:
        from ratchet.settings import remember

        return remember(settings, backend=backend), tuple(backend)
    if settings.backend and not local:
        return settings, settings.backend
    _refuse_another_model(settings)
    return settings, ()


def _refuse_another_model(settings: Settings) -> None:
    """Refuse to have the default model answer as one that a server has."""
    from ratchet.deploy.routing import serving_champion
    from ratchet.deploy.served import adoptions

    store = existing_store()
    champion = None if store is None else serving_champion(store)
    if store is None or champion is None or settings.states_base_model:
        return
    if champion.version in adoptions(store):
        raise InvalidInputError(
            f"the local model must be the champion's, got the default for {champion.version}, "
            "which a server answers; name it by --backend, or set RATCHET_BASE_MODEL to its weights"
        )


def _check_names(**names: str | None) -> None:
    for option, name in names.items():
        if name is not None and not (name.strip() and name.isprintable()):
            raise InvalidInputError(
                f"--{option.replace('_', '-')} must be a name on one line, got {name!r}; name one, "
                "or leave it out"
            )


@keys.command(epilog="Example: ratchet keys create shop --role ingest --role read")
def create(
    application: Annotated[
        str,
        typer.Argument(help="Name of the application that gets the key.", callback=one_line_name),
    ],
    role: Annotated[
        list[str] | None, typer.Option(help="ingest, read, review or admin; may be repeated.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="Events a second it may send.", callback=finite),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="Of ingest: ask, feedback or any-answer; may be repeated."),
    ] = None,
    days: Annotated[
        float | None,
        typer.Option(min=0.001, help="Days after which it ends.", callback=finite),
    ] = None,
    by: By = "",
    note: Note = "",
) -> None:
    """Make a key and show it, once: only its hash is kept."""
    from ratchet.gateway.access import ANYBODY, OWN, SCOPES, new_key
    from ratchet.records import ApiKeyTerms
    from ratchet.store.accounts import note_action

    if not application.strip() or application == ANYBODY:
        raise InvalidInputError(
            "a key needs the name of its application, got "
            f"{application.strip() or 'none'}; name one"
        )
    scopes = scope or list(OWN)
    if unknown := [name for name in scopes if name not in SCOPES]:
        raise InvalidInputError(
            f"a scope must be one of {', '.join(SCOPES)}, got {printable(unknown[0])!r}"
        )
    roles, now = role or ["ingest"], datetime.now(UTC)
    if unknown := [name for name in roles if name not in ROLES]:
        raise InvalidInputError(f"a role must be one of {', '.join(ROLES)}, got {unknown[0]!r}")
    record, key = new_key(
        application,
        roles,  # type: ignore[arg-type]
        now=now,
        rate_per_second=rate,
    )
    store = created_store()
    store.append(
        ApiKeyTerms(
            id=record.id,
            created_at=now,
            expires_at=None if days is None else now + timedelta(days=days),
            scopes=tuple(dict.fromkeys(scopes)),
        )
    )  # before the key, which nobody must meet without them
    store.append(record)
    what = f"{record.application}: {', '.join(roles)}"
    reason = f"{what}; {note}" if note else what
    note_action(store, person(by), "make key", now=now, about=record.id, reason=reason)
    say(key)


@keys.command("list", epilog="Example: ratchet keys list --json")
def list_keys(
    as_json: AsJson = False,
) -> None:
    """List the keys, without their secrets."""
    from ratchet.gateway.access import OWN
    from ratchet.records import ApiKey, ApiKeyRevocation, ApiKeyTerms

    store, now = created_store(), datetime.now(UTC)
    revoked = {item.id for item in store.records(ApiKeyRevocation)}
    terms = {item.id: item for item in store.records(ApiKeyTerms)}
    listed = [key.canonical() | {"revoked": key.id in revoked} for key in store.records(ApiKey)]
    for key in listed:
        del key["secret_hash"]
        found = terms.get(key["id"])
        ends = None if found is None else found.expires_at
        key["scopes"] = list(OWN if found is None else found.scopes)
        key["expires_at"] = None if ends is None else ends.isoformat()
        key["expired"] = ends is not None and ends <= now
    if as_json:
        say_json(listed, indent=2)
        return
    for key in listed:
        state = "revoked" if key["revoked"] else "expired" if key["expired"] else "in use"
        roles, scopes = ", ".join(key["roles"]), ", ".join(key["scopes"])
        covers = f" ({scopes})" if "ingest" in key["roles"] and scopes != ", ".join(OWN) else ""
        until = f"  until {key['expires_at'][:16]}" if key["expires_at"] else ""
        say(f"{key['id']}  {state:7}  {key['application']}  {roles}{covers}{until}")
    if not listed:
        say("no keys: the gateway is open to whoever reaches its address")


@keys.command(epilog="Example: ratchet keys revoke 3f9a77c1")
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key, see `list`.")],
    by: By = "",
    note: Note = "",
) -> None:
    """End a key; running gateways refuse it within a second."""
    from ratchet.records import ApiKey, ApiKeyRevocation
    from ratchet.store.accounts import note_action

    store, now = created_store(), datetime.now(UTC)
    if store.get(ApiKey, key_id) is None:
        raise InvalidInputError(f"a key must be one that `ratchet keys list` shows, got {key_id!r}")
    if store.get(ApiKeyRevocation, key_id) is None:
        store.append(ApiKeyRevocation(id=key_id, created_at=now))
        note_action(store, person(by), "revoke key", now=now, about=key_id, reason=note)
    say(f"{key_id} is revoked")


@keys.command("rotate-secret", epilog="Example: ratchet keys rotate-secret --accept-days 30")
def rotate_secret(
    accept_days: Annotated[
        float,
        typer.Option(min=0.0, help="Days in which tokens of before are accepted.", callback=finite),
    ] = 30.0,
    by: By = "",
    note: Note = "",
) -> None:
    """Sign answers' tokens with a new secret; running gateways follow within a second."""
    from ratchet.gateway.tokens import DAY, rotate
    from ratchet.store.accounts import note_action

    settings = current_settings()
    settings.make_home()
    now = datetime.now(UTC)
    rotate(settings.home / "gateway", accept_seconds=accept_days * DAY, now=now.timestamp())
    until = now + timedelta(days=accept_days)
    says = f"accepted until {until:%Y-%m-%d %H:%M} UTC" if accept_days else "refused"
    say(f"tokens have a new secret; those of before are {says}")
    note_action(created_store(), person(by), "new secret of tokens", now=now, reason=note)
