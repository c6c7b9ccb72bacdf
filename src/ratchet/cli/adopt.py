"""`ratchet adopt`: what a server serves already becomes the champion."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ratchet.cli.saying import say
from ratchet.cli.shared import (
    By,
    check_address,
    current_settings,
    key_of,
    one_line_or_none,
    open_tracker,
    person,
    required_store,
)
from ratchet.errors import InvalidInputError
from ratchet.files.text import counted, printable
from ratchet.settings import Settings, remember

if TYPE_CHECKING:
    from ratchet.deploy.adoption import Adopted, Recorded, Served
    from ratchet.deploy.backends import Listed, Replicas
    from ratchet.store import EventStore
    from ratchet.tracking import Tracker

_SHOWN = 12


def adopt(
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help="URL of the server that answers your users; repeat it for replicas. Default: what "
            "the home remembers, or RATCHET_BACKEND."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Its model, where the server has several.")
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="Another name that the same model answered under before; may be repeated."
        ),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="Only record that the server has this version of yours under the name of --model.",
        ),
    ] = None,
    elsewhere: Annotated[
        str | None,
        typer.Option(
            help="The name, in the logs that you imported, of a model that somebody else serves.",
            callback=one_line_or_none,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would happen; write nothing.")
    ] = False,
    by: By = "",
) -> None:
    """Make the model that answers your users the champion, under its own name."""
    from ratchet.deploy.backends import KEY_VARIABLE, Replicas

    settings = current_settings()
    if elsewhere is not None:
        if backend or model or version:
            raise InvalidInputError(
                "--elsewhere stands for a model of no server that Ratchet asks, got --backend, "
                "--model or --as with it; leave these out"
            )
        _adopt_elsewhere(settings, elsewhere, also or [], dry_run=dry_run, by=person(by))
        return
    urls = tuple(backend or settings.backend)
    if not urls:
        raise InvalidInputError(
            "a model is adopted from the server that has it, got no address; name it by --backend"
        )
    for url in urls:
        check_address("--backend", url)
    with Replicas.of(urls, key=key_of(KEY_VARIABLE)) as replicas:
        if version is not None:
            _map(settings, replicas, version, model, also or [], dry_run=dry_run)
            return
        _adopt(settings, urls, replicas, model, also or [], dry_run=dry_run, by=person(by))


def _adopt(
    settings: Settings,
    urls: tuple[str, ...],
    replicas: Replicas,
    asked: str | None,
    also: list[str],
    *,
    dry_run: bool,
    by: str,
) -> None:
    from ratchet.deploy.adoption import adopt as adopt_model
    from ratchet.deploy.adoption import check_names, choose, look, probe
    from ratchet.deploy.routing import refuse_another
    from ratchet.store import EventStore

    served = look(replicas)
    model = choose(served, asked)
    probe(replicas, model.name)
    say(f"backend    {', '.join(urls)}: {model.name} answers")
    _show_template(settings)
    store, now = EventStore.opened(settings.store_url), datetime.now(UTC)
    named = _named(settings, store, model)
    names = [*served.other_names(model), *also]
    check_names(names, model.name, named.model_name)
    if store is not None:
        refuse_another(store)
    if dry_run:
        _show_plan(settings, named, store, served, model, names, now)
        return
    tracker = open_tracker(named)
    if named is not settings:
        _refuse_foreign_model(tracker, store)
    settings = remember(
        settings,
        backend=list(urls),
        **({} if named is settings else {"model_name": named.model_name}),
    )
    opened = EventStore.open(settings.store_url, assistant=settings.model_name)
    done = adopt_model(opened, tracker, model, served, also=also, by=by, now=now)
    _show_done(done)
    _show_recorded(opened, [model.name, *names], now)
    _show_lacks(settings, opened, now)
    if current_settings().backend != urls:
        say("RATCHET_BACKEND or ratchet.toml names another backend, which comes first: correct it")


def _adopt_elsewhere(
    settings: Settings, name: str, also: list[str], *, dry_run: bool, by: str
) -> None:
    from ratchet.deploy.elsewhere import adopt_elsewhere

    store, now = required_store("a model that somebody else serves"), datetime.now(UTC)
    if dry_run:
        _show_recorded(store, [name, *also], now)
        say(f"champion   {printable(name)} would be, served elsewhere; nothing was written")
        return
    done = adopt_elsewhere(store, open_tracker(settings), name, also=also, by=by, now=now)
    _show_done(done)
    _show_recorded(store, [name, *also], now)
    say(
        "served elsewhere: it is watched, judged, analysed and curated from by its logs; a rollout "
        "or rollback needs the gateway in front of it (`ratchet adopt --backend URL`)"
    )
    say("next: ratchet collect")


def _map(
    settings: Settings,
    replicas: Replicas,
    version: str,
    model: str | None,
    also: Sequence[str],
    *,
    dry_run: bool,
) -> None:
    """Record by which name the server has one of this home's versions; nobody is sent elsewhere."""
    from ratchet.deploy.adoption import choose, look, map_version, probe

    if model is None or also:
        raise InvalidInputError(
            "--as must stand with --model, the name that the server has for that version, and "
            "without --also; name it"
        )
    served = look(replicas)
    probe(replicas, choose(served, model).name)
    store, tracker = required_store("a version"), open_tracker(settings)
    reference = tracker.version(version).reference
    if dry_run:
        say(f"would ask the backend for {reference} by the name {model}")
        return
    is_new = map_version(store, tracker, served, reference, model, datetime.now(UTC))
    say(
        f"the backend is asked for {reference} by the name {model}" + ("" if is_new else " already")
    )


def _named(settings: Settings, store: EventStore | None, model: Listed) -> Settings:
    """Return the settings with the assistant's name, out of the model's where none was given."""
    from ratchet.deploy.adoption import plain_name

    owner = None if store is None else store.assistant
    if owner is not None or "model_name" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"model_name": plain_name(model.name)})


def _refuse_foreign_model(tracker: Tracker, store: EventStore | None) -> None:
    """Refuse a derived name that somebody else's model has in the registry.

    Raises:
        InvalidInputError: The registry has a champion that this home knows nothing of.
    """
    from ratchet.records import Release

    if tracker.champion() is not None and (store is None or store.latest(Release) is None):
        raise InvalidInputError(
            f"a new assistant's name must be free in the registry, got {tracker.model_name!r}, "
            "which has a champion already; set RATCHET_MODEL_NAME to another"
        )


# What is shown ------------------------------------------------------------------------------------


def _show_template(settings: Settings) -> None:
    """Tell which chat template the server needs: no server says which one it has."""
    from ratchet.models.given_template import file_of

    if settings.chat_template:
        say(
            f"template   training reads {file_of(settings.chat_template)}: the server must be "
            "started with it too (vLLM: --chat-template), which cannot be seen from here"
        )


def _show_plan(
    settings: Settings,
    named: Settings,
    store: EventStore | None,
    served: Served,
    model: Listed,
    names: Sequence[str],
    now: datetime,
) -> None:
    say(f"champion   {_would_be(store, served, model)}")
    if store is not None:
        _show_recorded(store, [model.name, *names], now)
    say(f"would write into {settings.home}:")
    say("  home.json: the backend" + ("" if named is settings else f"; name {named.model_name!r}"))
    say(f"  the registry: {model.name} as a version of {named.model_name}, and the alias champion")
    say("  the store: the release, who is sent where, and the model's names")
    say("nothing was written")


def _would_be(store: EventStore | None, served: Served, model: Listed) -> str:
    from ratchet.deploy.adoption import was_promoted_over
    from ratchet.deploy.routing import serving_champion
    from ratchet.deploy.served import served_name

    champion = None if store is None else serving_champion(store)
    if store is None or champion is None:
        return f"{model.name} would be, until now none"
    before = champion.version
    if before == model.name:
        return f"{model.name} already"
    if was_promoted_over(store, before, model.name):
        return f"{before} would stay: it was promoted since {model.name} was adopted"
    if served.named(served_name(store, before)):
        return f"{model.name} would be, {before} kept for rollback"
    return f"{model.name} would be, until now {before}, which the server does not list"


def _show_done(done: Adopted) -> None:
    if done.champion != done.version:
        say(
            f"champion   {done.champion} stays: it was promoted since {done.version} was adopted; "
            "`ratchet rollback` goes back"
        )
        return
    kept = f", {done.previous} is kept for rollback" if done.previous else ""
    say(f"champion   {done.version}{kept}" + ("" if done.switched else ", as before"))
    if done.gone:
        say(f"           {done.gone} is not kept for rollback: the server does not list it")
    if not done.told:
        say("           MLflow does not answer; its aliases are moved as soon as it does")


def _show_recorded(store: EventStore, names: Sequence[str], now: datetime) -> None:
    from ratchet.deploy.adoption import recorded_answers
    from ratchet.records import Candidate

    found = recorded_answers(store, now)
    own = {item.reference for item in store.records(Candidate)}
    theirs = [item for item in found if item.name in names]
    others = [item for item in found if item.name not in (*names, *own)]
    for item in theirs:
        say(f"traffic    {_told(item)} belongs to it")
    if not theirs:
        say("traffic    none was recorded under its name yet")
    for item in others[:_SHOWN]:
        say(
            f"           {_told(item)} does not; if it was the same model: "
            f"ratchet adopt --also {printable(item.name)}"
        )
    if len(others) > _SHOWN:
        say(f"           and {counted(len(others) - _SHOWN, 'more name')}")


def _told(item: Recorded) -> str:
    span = f"{item.first:%Y-%m-%d} to {item.last:%Y-%m-%d}"
    return f"{counted(item.answers, 'answer')} recorded as {printable(item.name)}, {span},"


def _show_lacks(settings: Settings, store: EventStore, now: datetime) -> None:
    from ratchet.operate.readiness import NextCycle, lacks, warns

    lines = lacks(settings, store, NextCycle(), environ=os.environ, now=now)
    say("the loop   waits for" if lines else "the loop   has all that it needs")
    for line in (*lines, *warns(store, NextCycle())):
        say(f"  - {line}")
