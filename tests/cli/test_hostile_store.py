"""A store that holds something hostile in every text: every command and every writer is run."""

from __future__ import annotations

import csv
import inspect
import json
import re
import smtplib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_string
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import requests
import typer
from markdown_it import MarkdownIt

from ratchet import records
from ratchet.cli import app
from ratchet.files.text import FORMULA_STARTS
from ratchet.notify.channels import address_channels
from ratchet.notify.messages import Links, alert_message
from ratchet.records import (
    AlertEvent,
    AlertMute,
    Analysis,
    Approval,
    CycleWait,
    Decision,
    JudgeValidation,
    ReviewItem,
    Rollout,
    RolloutLook,
    RolloutStop,
    RoutingRefusal,
    VariantReadout,
    VariantTest,
)
from ratchet.records.accounts import Account
from ratchet.store import EventStore
from ratchet.store.outbox import Outgoing, put, put_off, take
from ratchet.tracking import Tracker
from ratchet.views.pages.failures import Searched, failures_page
from ratchet.views.pages.readouts import rollout_page, variants_page
from ratchet.views.plots.failures import failure_bars
from ratchet.views.plots.gating import gate_figure, wins_by_cluster
from ratchet.views.plots.style import to_svg
from ratchet.views.text.cycle import (
    alerts_markdown,
    alerts_text,
    analysis_markdown,
    failures_markdown,
    judges_markdown,
    review_markdown,
)
from ratchet.views.text.gate import approval_markdown, decision_markdown
from ratchet.views.text.rollouts import rollout_events, rollout_markdown, variants_markdown
from tests.cli.in_process import run_in_process
from tests.conftest import made_once
from tests.hostile_store import (
    COLUMNS,
    MARK,
    UNTOUCHED,
    hostile_home,
    planted,
    tables,
    text_columns,
)
from tests.hostile_text import STORABLE, breaks_of_a_terminal

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
FORMULAS = tuple(set(FORMULA_STARTS) - {"'"})
MARKDOWN = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table")
ENVIRONMENT = "environment.json"


@dataclass(frozen=True)
class Hostile:
    """The home, and what commands over it see."""

    home: Path
    environment: dict[str, str]
    changed: dict[str, int]

    @property
    def folder(self) -> Path:
        return self.home.parent

    def run(self, *words: object) -> tuple[int, str]:
        done = run_in_process(*words, folder=self.folder, environment=self.environment)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Hostile:
    def make(folder: Path) -> None:
        _, environment, changed = hostile_home(folder)
        with closing(EventStore.open(f"sqlite:///{folder / 'home' / 'store.db'}")) as store:
            add_newer(store)
        (folder / ENVIRONMENT).write_text(json.dumps([environment, changed]), "utf-8")

    folder = made_once(tmp_path_factory, "hostile-home", make)
    environment, changed = json.loads((folder / ENVIRONMENT).read_text("utf-8"))
    write_files(folder)
    return Hostile(folder / "home", environment, changed)


@pytest.fixture(scope="module")
def store(hostile: Hostile) -> Iterator[EventStore]:
    with closing(EventStore.open(f"sqlite:///{hostile.home / 'store.db'}")) as opened:
        yield opened


def add_newer(store: EventStore) -> None:
    """Add kinds of records that release 0.1 had not, with hostile texts."""
    about = planted("support-router/9")
    store.append(
        RoutingRefusal(
            id=planted("refusal"), created_at=datetime.now(UTC), step="promotion", version=about,
            stands=planted("support-router/1"), reason=planted("it does not answer"),
        )
    )  # fmt: skip
    cycle = store.latest(records.Cycle)
    assert cycle is not None
    store.append(
        CycleWait(
            id=planted("wait"), created_at=datetime.now(UTC), cycle_id=cycle.id,
            message=planted("label them"), judge=planted("judge"),
        )
    )  # fmt: skip
    store.add_account(
        Account(id="account", created_at=datetime.now(UTC), name=planted("ada"), role="admin")
    )
    event = store.records(AlertEvent)[-1]
    again = {"id": planted("now"), "alert_id": planted("open alert"), "change": "opened"}
    store.append(event.model_copy(update={**again, "created_at": datetime.now(UTC)}))
    now = datetime.now(UTC)
    store.append(
        AlertMute(id=planted("mute"), created_at=now, about=planted("open alert"),
                  until=now + timedelta(days=9), by=planted("ada"), reason=planted("known"))
    )  # fmt: skip
    sent = Outgoing(id="m-1", kind="step", about=planted("now"), channel="desk", created_at=now,
                    expires_at=now + timedelta(days=1))  # fmt: skip
    put(store, [sent])
    taken = take(store, now=now, lease=timedelta(minutes=3))
    assert taken is not None
    put_off(store, taken, until=now + timedelta(days=1), said=planted("503 down"))
    store.keep_shard(planted("stage"), planted("key"), "done", planted("result"))


def write_files(folder: Path) -> None:
    """Write what commands read from files, hostile as well."""
    names = [text for text in STORABLE if text.strip()]
    rows = [
        {"text": f"{text} {n % 5}", "failed": n % 3 == 0, "user": planted(f"u{n % 20}")}
        for n, text in enumerate(names[:240])
    ]
    write_lines(folder / "failed.jsonl", rows)
    scores = [
        {"example_id": planted(f"e{n}"), "metric": planted("quality"), "champion": n % 2,
         "challenger": (n + 1) % 3 > 0, "champion_output": names[n % len(names)],
         "challenger_output": planted("x")}
        for n in range(120)
    ]  # fmt: skip
    write_lines(
        folder / "scores.jsonl", [{**r, "challenger": int(r["challenger"])} for r in scores]
    )
    good = {"id": "i", "session_id": "s", "user_id": "u", "created_at": "2026-01-05T07:00:00Z",
            "model_version": "m/1", "messages": [{"role": "user", "content": "q"}],
            "response": "a"}  # fmt: skip
    bad = [{**good, "id": text, planted("odd"): 1, "latency_seconds": text} for text in names[:60]]
    write_lines(folder / "bad.jsonl", [*bad, {**good, "id": planted("good")}])
    labels = [
        {"item_id": planted(f"i{n}"), "human": "yes" if n % 2 else "no",
         "judge": "yes" if n % 5 else "no", planted("field"): names[n]}
        for n in range(60)
    ]  # fmt: skip
    write_lines(folder / "labels.jsonl", labels)
    people = [{"item_id": planted(f"i{n}"), "dimension": planted("tone"), "label": planted("ok"),
               "reviewer": planted("ann")} for n in range(4)]  # fmt: skip
    write_lines(folder / "people.jsonl", people)
    asked = [{"id": planted(f"e{n}"), "prompt": planted(text), "target": planted(text)}
             for n, text in enumerate(names[:60])]  # fmt: skip
    write_lines(folder / "asked.jsonl", asked)
    (folder / "judges.yaml").write_text("judges: []\n", "utf-8")
    for name, unit in (("answers", "answer"), ("sessions", "session")):
        judge = {"name": "judge", "dimension": "helpfulness", "unit": unit,
                 "endpoint": {"url": "http://127.0.0.1:9", "model": "m"}}  # fmt: skip
        (folder / f"{name}.yaml").write_text(json.dumps({"judges": [judge]}), "utf-8")
    test = {"name": planted("test"), "variants": [{"name": planted("a"), "version": planted("v"),
            "share": 1.0}]}  # fmt: skip
    (folder / "variants.yaml").write_text(json.dumps(test), "utf-8")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


# Everything was planted, and every command is here ------------------------------------------------


def test_every_text_column_of_the_store_is_planted_or_named(hostile: Hostile) -> None:
    with closing(sqlite3.connect(hostile.home / "store.db")) as connection:
        for table in tables(connection):
            named = {*COLUMNS.get(table, ()), *UNTOUCHED.get(table, ())}
            assert set(text_columns(connection, table)) <= named, table
    assert sum(count > 0 for count in hostile.changed.values()) >= 200
    assert sum(hostile.changed.values()) > 4_000


FOREIGN = planted("nobody's")
COMMANDS: dict[str, str | list[tuple[object, ...]]] = {
    "alerts": [(), ("--json",), ("--all",), ("--acknowledge", FOREIGN, "--by", "ana")],
    "alerts routes": [(), ("--json",)],
    "alerts test": [(), ("--route", FOREIGN)],
    "report weekly": [(), ("--week", FOREIGN), ("--out", "reports")],
    "approve": [(FOREIGN, "--approve", "--reason", FOREIGN, "--by", "ana")],
    "backup": [("copy",), ("copy2", "--json")],
    "chart": [("thumbs_down_rate", "--by", "day"), ("thumbs_down_rate", "--json"), (FOREIGN,)],
    "doctor": [()],
    "export": [
        (kind, "--format", form, "--no-redact")
        for kind in ("interactions", "feedback", "decisions", "labels")
        for form in ("jsonl",)
    ]
    + [("label-sheet", "--out", "waits.csv", "--format", "csv"), (FOREIGN,)],
    "failures": [
        ("failed.jsonl", "--embedding", "words"),
        ("failed.jsonl", "--embedding", "words", "--json"),
        (FOREIGN.replace("\0", ""),),
    ],
    "forget": [(planted("user-1"),), (FOREIGN,)],
    "gate": [("--scores", "scores.jsonl"), ("--scores", "scores.jsonl", "--json")],
    "golden build": [
        ("--dry-run",),
        ("--from", "asked.jsonl", "--dry-run"),
        ("--from", "asked.jsonl"),
        ("--from", FOREIGN.replace("/", "_")),
    ],
    "golden list": [(), ("--json",)],
    "golden show": [("--rows", "100"), ("--json",), ("--against", "1", "--out", "golden.jsonl")],
    "history": [(), ("--json",), ("--show-only",)],
    "import": [("bad.jsonl", "--as", "ratchet", "--dry-run"), ("bad.jsonl", "--as", "ratchet")],
    "ingest": [("bad.jsonl",)],
    "judge items": [
        (file, *options)
        for file in ("answers.yaml", "sessions.yaml")
        for options in (("--days", "9000"), ("--days", "9000", "--json"))
    ],
    "judge label": [("people.jsonl",)],
    "judge list": [(), ("--json",)],
    "judge validate": [("labels.jsonl",), ("labels.jsonl", "--json")],
    "keys list": [(), ("--json",)],
    "prune": [("--dry-run",), ("--dry-run", "--json")],
    "review": [(), ("--json",), ("--decide", FOREIGN, "--label", "fine", "--by", "ada")],
    "review agreement": [("harmlessness",), ("harmlessness", "--json"), (FOREIGN,)],
    "review next": [("--by", "ada"), ("--by", "ada", "--json"), ("--queue", FOREIGN)],
    "review progress": [(), ("--json",), ("--by", FOREIGN)],
    "review export": [("items.jsonl",), ("items.csv", "--state", "open")],
    "rollout look": [("--dry-run",)],
    "rollout status": [(), ("--json",)],
    "set-aside": [(), ("--json",), ("--source", FOREIGN), ("--latest", "0")],
    "signals list": [("--days", "4000"), ("--days", "4000", "--json")],
    "status": [(), ("--json",)],
    "timeline": [("--hours", "87600"), ("--hours", "87600", "--json")],
    "variants read": [(), ("--json",)],
    "verify": [("--no-registry",), ("--no-registry", "--json")],
    "accounts list": [(), ("--json",)],
    # what changes something comes last
    "alerts mute": [(FOREIGN, "--reason", FOREIGN), ("all", "--reason", FOREIGN)],
    "alerts unmute": [(FOREIGN,), ("all", "--reason", FOREIGN)],
    "review label": [(FOREIGN, FOREIGN, "--by", "ada")],
    "review skip": [(FOREIGN, FOREIGN, "--by", "ada")],
    "review undo": [("--by", FOREIGN)],
    "review fill": [(), ("--json",)],
    "review import": [("bad.jsonl",), ("bad.jsonl", "--known")],
    "accounts add": [(FOREIGN,), (FOREIGN, "--role", FOREIGN)],
    "accounts invite": [(FOREIGN,)],
    "accounts role": [(FOREIGN, "viewer"), (FOREIGN, FOREIGN)],
    "accounts disable": [(FOREIGN, "--note", FOREIGN)],
    "accounts enable": [(FOREIGN,)],
    "keys create": [(FOREIGN,)],
    "keys revoke": [(FOREIGN,)],
    "keys rotate-secret": [()],
    "signals declare": [("copy", "--application", FOREIGN, "--note", FOREIGN), (FOREIGN,)],
    "signals switch": [("left", "--off", "--note", FOREIGN), (FOREIGN, "--on")],
    "rollout start": [(FOREIGN,)],
    "rollout stop": [("--note", FOREIGN)],
    "variants start": [("variants.yaml",)],
    "variants end": [("--winner", FOREIGN)],
    "restore": [(FOREIGN.replace("/", "_"),)],
    "rollback": "moves an alias in MLflow: `tests/deploy/test_promotion.py`; says two versions",
    "init": [("--yes", "--dry-run"), ("--answers", FOREIGN.replace("/", "_"))],
    "collect": [("--dry-run",)],
    "analyze": [("--dry-run",)],
    "train": "loads the models of redaction, and shows counts alone: `tests/cli/test_stages.py`",
    "curate": "loads the models of redaction: `tests/cli/test_curate.py` tries hostile texts",
    "judge run": "asks a model server: `tests/cli/test_judge.py` tries hostile replies",
    "adopt": "asks a model server: `tests/deploy/test_adoption.py` tries hostile names",
    "demo": "starts servers, and prints the report of a cycle, which is tried below",
    "up": "starts servers, and prints their addresses",
    "worker": "needs a server, and prints addresses",
    "register": "needs a server, and prints its address",
    "serve": "starts a gateway, whose log is tried in `tests/gateway/test_names.py`",
}
"""What each command is run with; a text says why it is not run here and where it is tried."""
SHOWS = {
    "accounts list", "alerts", "alerts routes", "report weekly", "export", "keys list", "review",
    "rollout status", "set-aside", "status", "timeline", "variants read", "failures", "gate",
    "golden show",
}  # fmt: skip
"""Commands of which at least one run shows what was planted, so that the check is about it."""


def commands_of(group: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    if not hasattr(group, "commands"):
        yield " ".join(path)
        return
    if path and group.invoke_without_command:
        yield " ".join(path)
    for name, inner in group.commands.items():
        yield from commands_of(inner, (*path, name))


def test_every_command_of_the_parser_is_run_or_says_why_not() -> None:
    assert set(commands_of(typer.main.get_command(app))) == set(COMMANDS)


RUN = {name: runs for name, runs in COMMANDS.items() if not isinstance(runs, str)}


@pytest.mark.parametrize("command", RUN)
def test_no_command_lets_a_stored_text_steer_the_terminal(
    hostile: Hostile, command: str, caplog: pytest.LogCaptureFixture
) -> None:
    shown = ""
    for words in RUN[command]:
        _, said = hostile.run(*command.split(), *words)
        assert breaks_of_a_terminal(said) == [], (command, words)
        assert "Traceback" not in said, (command, words)
        shown += said
    for record in caplog.records:
        assert breaks_of_a_terminal(record.getMessage()) == [], command
    if command in SHOWS:
        assert MARK in shown, "nothing planted was shown, so nothing was tried"


# Files --------------------------------------------------------------------------------------------


def test_no_cell_of_a_csv_file_is_a_formula(hostile: Hostile) -> None:
    path = hostile.folder / "cells.csv"
    code, said = hostile.run("export", "label-sheet", "--of", "items", "--out", path.name)
    assert code == 0, said
    with path.open(encoding="utf-8-sig", newline="") as file:
        cells = [value for row in csv.reader(file) for value in row]
    assert sum(MARK in value for value in cells) >= 8
    assert [value for value in cells if value.startswith(FORMULAS)] == []


# Pages, Markdown, plots ---------------------------------------------------------------------------


class Tags(HTMLParser):
    """The tags of a page, and what attributes of them run or load."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts, self.bad = 0, list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        if tag in ("img", "iframe", "base", "object", "embed", "details", "math"):
            self.bad.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (
                name in ("src", "href") and not (value or "").startswith(("#", "data:,"))
            ):
                self.bad.append(f"{tag} {name}={value}")


def bad_of_page(page: str) -> list[str]:
    """Return what of a page is markup of somebody else's: tags that ours have none of."""
    tags = Tags()
    tags.feed(page)
    return tags.bad


def bad_of_markdown(text: str) -> list[str]:
    """Return what a reader of Markdown makes of a text that is no table, heading, list or code."""
    drawn = MARKDOWN.render(text)
    found = re.findall(r"<(?:a|img|script|iframe|svg|details|del|base|body|style)\b[^>]*>", drawn)
    return found + [line for line in breaks_of_a_terminal(text) if not line.startswith("U+")]


def newest(store: EventStore, kind: type[Any]) -> Any:
    found = store.latest(kind)
    assert found is not None, kind
    return found


def texts(store: EventStore) -> dict[str, str]:
    """Return every text in Markdown that is made of records."""
    analysis, decision = newest(store, Analysis), newest(store, Decision)
    rollout, look = newest(store, Rollout), newest(store, RolloutLook)
    return {
        "analysis": analysis_markdown(analysis),
        "failures": failures_markdown(
            analysis.clusters, analysis.earlier, model_version=analysis.model_version
        ),
        "alerts": alerts_markdown(store.records(AlertEvent)),
        "judges": judges_markdown(store.records(JudgeValidation)),
        "review": review_markdown(store.records(ReviewItem), 4),
        "decision": decision_markdown(decision),
        "approval": approval_markdown(decision, newest(store, Approval)),
        "rollout": rollout_markdown(rollout, look, planted("outcome")),
        "variants": variants_markdown(newest(store, VariantTest), newest(store, VariantReadout)),
    }


def test_every_maker_of_markdown_is_tried(store: EventStore) -> None:
    from ratchet.views.text import cycle, gate, rollouts

    makers = {
        name.removesuffix("_markdown")
        for module in (cycle, gate, rollouts)
        for name, made in vars(module).items()
        if name.endswith("_markdown") and inspect.isfunction(made)
    }
    assert makers - {"render"} == set(texts(store))  # a report joins texts that are tried


def test_no_markdown_holds_markup_of_a_stored_text(store: EventStore) -> None:
    for name, text in texts(store).items():
        assert MARK in text, name
        assert bad_of_markdown(text) == [], name
    assert breaks_of_a_terminal(alerts_text(store.records(AlertEvent))) == []


def test_no_page_holds_markup_of_a_stored_text(store: EventStore) -> None:
    analysis = newest(store, Analysis)
    rollout, look = newest(store, Rollout), newest(store, RolloutLook)
    events = rollout_events(rollout, store.records(RolloutLook), store.latest(RolloutStop))
    pages = {
        "failures": failures_page(
            analysis.clusters,
            Searched(analysis.model_version, 100, 10),
            now=NOW,
            earlier=analysis.earlier,
        ),
        "rollout": rollout_page(rollout, look, planted("outcome"), now=NOW, events=events),
        "variants": variants_page(
            newest(store, VariantTest), newest(store, VariantReadout), now=NOW
        ),
    }
    plain = re.compile(r"<script|</script")
    for name, page in pages.items():
        assert MARK in page, name
        assert bad_of_page(page) == [], name
        assert len(plain.findall(page)) % 2 == 0, name


def test_a_picture_holds_no_markup_of_a_stored_text(store: EventStore) -> None:
    decision, analysis = newest(store, Decision), newest(store, Analysis)
    for figure in (
        gate_figure(decision), wins_by_cluster(decision.clusters), failure_bars(analysis.clusters),
    ):  # fmt: skip
        drawn = to_svg(figure)
        assert not re.search(r"<script|<img|<iframe|onload=|onerror=", drawn)


# Notifications ------------------------------------------------------------------------------------


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Apprise sends: bodies of web requests, and parts of mails."""
    found: list[str] = []

    class Answer:
        status_code, content, text, headers = 200, b"ok", "ok", {}

    def post(*_: Any, **named: Any) -> Answer:
        found.extend(strings(json.loads(named["data"])))
        return Answer()

    class Post:
        def __init__(self, *_: Any, **__: Any) -> None: ...
        def sendmail(self, _from: str, _to: list[str], mail: str) -> None:
            message = message_from_string(mail)
            found.append(f"Subject: {message['Subject']}")
            assert {name.lower() for name in message} <= HEADERS
            for part in message.walk():
                if part.get_content_type() == "text/html":
                    found.append("HTML " + bytes(part.get_payload(decode=True)).decode("utf-8"))

        def __getattr__(self, _: str) -> Callable[..., None]:
            return lambda *_, **__: None

    monkeypatch.setattr(requests, "post", post)
    monkeypatch.setattr(requests, "request", post)
    monkeypatch.setattr(smtplib, "SMTP", Post)
    monkeypatch.setattr(smtplib, "SMTP_SSL", Post)
    return found


def strings(value: Any) -> Iterator[str]:
    """Yield every text in JSON."""
    if isinstance(value, str):
        yield value
    for item in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from strings(item)


HEADERS = {"subject", "from", "to", "date", "message-id", "mime-version", "content-type",
           "x-mailer", "x-application", "reply-to", "cc", "x-priority", "importance"}  # fmt: skip
SLACK = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general"
DISCORD = "discord://123456789012345678/abcdefghijklmnopqrstuvwxyz0123456789"
TELEGRAM = "tgram://123456789:abcdefg_hijklmnop/12315544/"
MAIL = "mailtos://user:word@example.org?to=ana@example.org"
CALLS = "<!channel> <https://evil.example|the runbook> @everyone [x](https://evil.example)"


TRIED = ("<script>alert(1)</script>\nFORGED: x", "a\r\nFORGED: x@evil.example",
         "\x1b[2J<img src=x onerror=alert(1)>", "\u202e*bold*")  # fmt: skip


def hostile_events(store: EventStore) -> list[AlertEvent]:
    event = store.records(AlertEvent)[-1].model_copy(update={"created_at": NOW})
    return [
        event.model_copy(
            update={
                "id": f"e{n}", "message": f"{text} {CALLS}", "model_version": f"m/{text}"[:200],
                "action": text, "certainty": text, "note": text, "by": text[:100],
            }
        )
        for n, text in enumerate(TRIED)
    ]  # fmt: skip


@pytest.mark.parametrize("address", [SLACK, DISCORD, TELEGRAM, MAIL])
def test_a_notification_is_text_wherever_it_is_read(
    store: EventStore, sent: list[str], address: str
) -> None:
    (channel,) = address_channels([address])
    for event in hostile_events(store):
        told = alert_message(event, key=event.id, links=Links("https://r.example"), now=NOW)
        assert channel.send(told, now=NOW).arrived
    for text in sent:
        assert breaks_of_a_terminal(text.replace("\r\n", "\n")) == [], text
        if not text.startswith("Subject: "):  # a subject is plain text
            assert not re.search(r"<(script|img|!channel|https)", text), text
        if address != MAIL:  # where a mail is read, these are no more than what they look like
            assert "](" not in text
            assert "@everyone" not in text
    assert any("alert" in text for text in sent)


# MLflow -------------------------------------------------------------------------------------------


def test_what_mlflow_is_told_is_one_line_and_a_name_that_it_takes(tracker: Tracker) -> None:
    names = [text for text in STORABLE if text.strip()][:120]
    with tracker.run(
        "ratchet", key=planted("it's a key"), name=names[0], tags={"ratchet.stage": names[1]}
    ) as run:
        run.tags({f"t{n}": text for n, text in enumerate(names)})
        run.params({f"p{n}": text for n, text in enumerate(names)} | {names[2]: names[3]})
        run.metrics({f"{n} {text}": 1.0 for n, text in enumerate(names)})
    with tracker.run("ratchet", key=planted("it's a key"), name="again", tags={}) as again:
        assert again.run_id == run.run_id, "it is found again by its key"
    data = tracker._client.get_run(run.run_id)
    told = [*data.data.tags.values(), *data.data.params.values(), data.info.run_name]
    told += [*data.data.tags, *data.data.params, *data.data.metrics]
    assert len(told) > 600
    assert [text for text in told if not text.isprintable()] == []
