"""Every query of the store goes by an index: the plans of both databases are read.

Each reading method runs once, while what it asks of the database is collected; then the database
says how it answers. A query that reads all of a large table fails, but for those named here.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa

from ratchet.records import (
    FEEDBACK,
    CycleEnd,
    Example,
    HumanLabel,
    Interaction,
    JudgeVerdict,
    Message,
    Release,
    ReviewDecision,
    ReviewItem,
    SetAside,
)
from ratchet.records.accounts import Account
from ratchet.store import (
    EventStore,
    Window,
    arrivals,
    cycles,
    exposures,
    following,
    forget,
    heard,
    held,
    outbox,
    retention,
    review_candidates,
    review_items,
    review_labels,
    review_seats,
    right_answers,
    sessions,
    texts,
)
from ratchet.store.accounts import AccountToken
from ratchet.store.aliases import MICROSECOND, SECOND
from ratchet.store.arrivals import Position
from ratchet.store.following import Place
from ratchet.store.retention import Expired
from ratchet.store.rows import microseconds
from ratchet.store.tables import EMBEDDINGS, INTERACTIONS, SET_ASIDE

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)
HOUR = Window(NOW, NOW + timedelta(hours=1))
OF_VERSION = Window(NOW, NOW + timedelta(hours=1), "router/1")
OF_NAMES = replace(OF_VERSION, also=("gpt-4o", "router"))
SINCE = Window(NOW, NOW + timedelta(hours=1), None, 2_900, (NOW + timedelta(minutes=5), 2_800))
LAG = timedelta(hours=1)
_MESSAGE = outbox.Outgoing("m-1", "step", "e-1", "desk", NOW, NOW + LAG, leased_by="a")
MODULES = (
    arrivals,
    exposures,
    cycles,
    following,
    forget,
    heard,
    held,
    outbox,
    texts,
    review_candidates,
    review_items,
    review_labels,
    review_seats,
    right_answers,
    retention,
    sessions,
)
LARGE = (
    "interaction_ids", "interactions", "feedback", "journal", "verdicts", "review_items",
    "review_decisions", "outbox",
)  # fmt: skip
ALLOWED: dict[str, str] = {}
"""Readings that read a large table whole, with the reason."""

ASKS_NOTHING = ("freeze_examples", "simulated_answers", "writers")
"""Of a store like this one."""

Reading = Callable[[EventStore], Any]
READ: dict[str, Reading] = {
    "stored_interactions": lambda s: s.stored_interactions(["i-1", "i-2"]),
    "stored_feedback": lambda s: s.stored_feedback(["f-1", "f-2"]),
    "answered_at": lambda s: s.answered_at(["i-1"]),
    "set_aside_rows": lambda s: s.set_aside_rows(source="f"),
    "set_aside_reasons": lambda s: s.set_aside_reasons(),
    "interactions": lambda s: (s.interactions(HOUR), s.interactions(OF_VERSION)),
    "latest_answers": lambda s: (
        s.latest_answers(HOUR, most=5),
        s.latest_answers(OF_VERSION, most=5),
    ),
    "interaction_batches": lambda s: list(s.interaction_batches(SINCE)),
    "iter_interactions": lambda s: [
        *s.iter_interactions(OF_VERSION),
        *s.iter_interactions(OF_NAMES),
    ],
    "feedback": lambda s: (s.feedback(HOUR), s.feedback(OF_VERSION)),
    "feedback_batches": lambda s: list(s.feedback_batches(SINCE)),
    "told_feedback": lambda s: s.told_feedback(HOUR),
    "reporting": lambda s: s.reporting(),
    "signals": lambda s: (s.signals(HOUR, lag=LAG), s.signals(OF_VERSION, lag=LAG, judges=["j"])),
    "permissions": lambda s: s.permissions(HOUR),
    "iter_permissions": lambda s: list(s.iter_permissions(OF_VERSION)),
    "past_keeping": lambda s: s.past_keeping(NOW),
    "endings": lambda s: s.endings(HOUR),
    "iter_endings": lambda s: list(s.iter_endings(OF_VERSION, besides=["stop"])),
    "counts": lambda s: s.counts(),
    "simulated_answers": lambda s: s.simulated_answers(),
    "get": lambda s: s.get(CycleEnd, "c-1"),
    "present": lambda s: s.present(CycleEnd, ["c-1", "c-2"]),
    "records": lambda s: (
        s.records(CycleEnd),
        s.records(CycleEnd, latest=5),
        s.records(Release, since=NOW + timedelta(days=29)),
        s.records(Release, subject="router/1", latest=5),
    ),
    "last_positions": lambda s: s.last_positions([CycleEnd, Release]),
    "latest": lambda s: s.latest(Release),
    "latest_by_subject": lambda s: s.latest_by_subject(Release),
    "assistant": lambda s: s.assistant,
    "identity": lambda s: s.identity,
    "settled_position": lambda s: s.settled_position(INTERACTIONS),
    "last_taken_position": lambda s: s.last_taken_position(INTERACTIONS),
    "answers": lambda s: s.answers("m", "greedy", ["a"]),
    "answer_seconds": lambda s: s.answer_seconds("m", "greedy", ["a"]),
    "answer_usage": lambda s: s.answer_usage("m", "greedy", ["a"]),
    "vectors": lambda s: s.vectors("m", ["a"]),
    "shard_results": lambda s: s.shard_results("stage"),
    "has_aliases": lambda s: s.has_aliases(),
    "aliases": lambda s: s.aliases(["o-1", "o-2"]),
    "ends_between": lambda s: s.ends_between(microseconds(NOW), microseconds(NOW + LAG)),
    "stored_at": lambda s: s.stored_at(
        {MICROSECOND: [microseconds(NOW)], SECOND: [microseconds(NOW + LAG)]}
    ),
    "said_in": lambda s: s.said_in(["i-1", "i-2"]),
    "feedback_about": lambda s: s.feedback_about(["i-1", "i-2"]),
    "any_stored": lambda s: s.any_stored([1, 2, 3_001]),
    "writers": lambda s: s.writers(INTERACTIONS),
    "forgotten": lambda s: s.forgotten(["u-1"], ["i-1"]),
    "accounts": lambda s: s.accounts(),
    "has_accounts": lambda s: s.has_accounts(),
    "account": lambda s: s.account("a"),
    "account_of_subject": lambda s: s.account_of_subject("https://id.example 1"),
    "change_account": lambda s: s.change_account("a", disabled=True),
    "token": lambda s: s.token("0" * 64, "session", now=NOW),
    "take_token": lambda s: s.take_token("0" * 64, "session", now=NOW),
    "end_tokens": lambda s: s.end_tokens("a", "session"),
    "add_token": lambda s: s.add_token(AccountToken("0" * 64, "session", "a", NOW + LAG), now=NOW),
    "add_account": lambda s: s.add_account(
        Account(id="a", created_at=NOW, name="a", role="viewer")
    ),
    "definitions": lambda s: s.definitions(["0" * 64, "1" * 64]),
    "verdicts": lambda s: s.verdicts(["v-1", "v-2"]),
    "verdicts_of": lambda s: (s.verdicts_of("j/1", latest=5), s.verdicts_of("j/2")),
    "last_position": arrivals.last_position,
    "arrived_between": lambda s: arrivals.arrived_between(
        s, Position(2_900, 2_900), Position(2_990, 2_990), OF_VERSION, lag=LAG
    ),
    "versions_between": lambda s: arrivals.versions_between(
        s, Position(2_900, 2_900), Position(2_990, 2_990)
    ),
    "versions_in_use": lambda s: arrivals.versions_in_use(s, NOW, NOW + timedelta(hours=1)),
    "first_answer": lambda s: (
        arrivals.first_answer(s, OF_VERSION),
        arrivals.first_answer(s, SINCE),
    ),
    "last_answer": lambda s: arrivals.last_answer(s, OF_VERSION),
    "in_use_from": lambda s: arrivals.in_use_from(s, OF_VERSION),
    "count_answers": lambda s: arrivals.count_answers(s, OF_VERSION),
    "read_exposures": lambda s: exposures.read_exposures(s, HOUR, experiment="e", lag=LAG),
    "read_failures": lambda s: exposures.read_failures(s, HOUR),
    "count_users": lambda s: exposures.count_users(s, HOUR),
    "unfinished_cycle": cycles.unfinished_cycle,
    "open_cycle": lambda s: cycles.open_cycle(
        s,
        champion="router/1",
        options_digest="d",
        seed=0,
        example_set_id="e",
        now=NOW + timedelta(days=31),
    ),
    "latest_cycle": cycles.latest_cycle,
    "measured_versions": lambda s: cycles.measured_versions(s, cycles.latest_cycle(s)),
    "open_for": lambda s: cycles.open_for(s, None),
    "nothing_recorded": cycles.nothing_recorded,
    "recorded_so_far": lambda s: cycles.recorded_so_far(s, NOW + timedelta(days=31)),
    "held_out_users": cycles.held_out_users,
    "await_traffic": lambda s: cycles.await_traffic(s, NOW + timedelta(days=31)),
    "end_cycle": lambda s: cycles.end_cycle(
        s, cycles.latest_cycle(s), "finished", NOW + timedelta(days=31)
    ),
    "freeze_examples": lambda s: cycles.freeze_examples(s, "golden", [_example()], NOW),
    "example_set": lambda s: cycles.example_set(
        s, cycles.freeze_examples(s, "golden", [_example()], NOW).id
    ),
    "trace": lambda s: forget.trace(s, Path("nowhere"), "u-7"),
    "forget": lambda s: forget.forget(s, Path("nowhere"), "u-8", now=NOW, text_key=str),
}
READ |= {
    "begin": following.begin,
    "begin_near_end": lambda s: following.begin_near_end(s, INTERACTIONS, "new", ["part"]),
    "arrivals": lambda s: following.arrivals(s, after=2_900, until=2_990, most=50),
    "rows_of_sessions": lambda s: list(
        following.rows_of_sessions(
            s, ["s", "t"], microseconds(NOW), microseconds(NOW + LAG), since=microseconds(NOW)
        )
    ),
    "keep": lambda s: following.keep(
        s, [], before=following.begin(s), after=Place(5, 3), followed={"shop": 7}
    ),
    "note_kinds": lambda s: following.note_kinds(s, ["left"], [], since=0, now=NOW),
    "switched_off": following.switched_off,
    "switch": lambda s: following.switch(s, "left", off=True, by="ada", note="", now=NOW),
    "held": lambda s: held.held(s, Path("nowhere"), "u-7"),
}
_KEYS, _EARLY = ["i-1", "i-2"], NOW + timedelta(hours=5)
_EXPIRED = Expired(_EARLY, Position(2_000, 2_000), frozenset({"i-3"}))
READ |= {
    "hear": lambda s: heard.hear(s, now=NOW + timedelta(days=32)),
    "heard": lambda s: heard.heard(s, HOUR),
    "questions": lambda s: heard.questions(s, now=NOW),
    "unknown_reasons": lambda s: heard.unknown_reasons(s, now=NOW),
    "answered_ids": lambda s: list(texts.answered_ids(s, HOUR)),
    "last_answers": lambda s: sessions.last_answers(s, HOUR),
    "ids_up_to": lambda s: sessions.ids_up_to(s, _last(s)),
    "up_to": lambda s: sessions.up_to(s, _last(s)),
    "texts_of": lambda s: list(texts.texts_of(s, _KEYS)),
    "calling_ids": lambda s: list(texts.calling_ids(s, _KEYS)),
    "count_feedback": lambda s: arrivals.count_feedback(s, HOUR),
    "came_into_use": lambda s: arrivals.came_into_use(s, NOW, NOW + timedelta(hours=1)),
    "decided_as": lambda s: right_answers.decided_as(s, "correction", "confirmed"),
    "corrections_of": lambda s: right_answers.corrections_of(s, _KEYS),
    "corrected_after": lambda s: right_answers.corrected_after(s, 2_900),
    "real_answers": lambda s: right_answers.real_answers(s, _KEYS),
    "users_of": lambda s: right_answers.users_of(s, _KEYS),
    "decided_items": lambda s: review_items.decided_items(s, "correction", "confirmed"),
    "feedback_texts": lambda s: list(texts.feedback_texts(s, _KEYS, ["comment"])),
    "raised_about": lambda s: list(review_items.raised_about(s, _KEYS, "safety")),
    "waiting_about": lambda s: (
        review_items.waiting_about(s, _KEYS, "safety"),
        review_items.waiting_about(s, None, "safety"),
    ),
    "decisions_about": lambda s: review_items.decisions_about(s, _KEYS, "safety"),
    "open_reviews": lambda s: list(review_items.open_reviews(s, reviewer="ann", limit=20)),
    "sources_waiting": review_items.sources_waiting,
    "find_reviews": lambda s: review_items.find_reviews(s, "abcd"),
    "reports_in": lambda s: review_items.reports_in(s, HOUR, "report"),
    "name_sample": lambda s: review_items.name_sample(s, "r", share=0.5, day=1),
    "count_sampled": lambda s: review_items.count_sampled(s, 20_000, "safety"),
    "old_rows": lambda s: retention.old_rows(s, SET_ASIDE, before=_EARLY),
    "old_recorded": lambda s: retention.old_recorded(s, EMBEDDINGS, before=_EARLY),
    "old_passes": lambda s: retention.old_passes(s, before=_EARLY),
    "old_deliveries": lambda s: retention.old_deliveries(s, before=_EARLY),
    "old_messages": lambda s: retention.old_messages(s, before=_EARLY),
    "take": lambda s: outbox.take(s, now=NOW, lease=LAG),
    "put_off": lambda s: outbox.put_off(s, _MESSAGE, until=NOW, said="down"),
    "end": lambda s: outbox.end(s, _MESSAGE, outbox.SENT, now=NOW),
    "last_put": lambda s: outbox.last_put(s, "reminder", "d-1"),
    "latest_of": lambda s: outbox.latest_of(s, "desk", outbox.SENT),
    "count_of": lambda s: outbox.count_of(s, "desk", outbox.SENT, NOW),
    "spent_on_judges": lambda s: s.spent_on_judges(NOW, NOW + LAG),
    "old_looks": lambda s: retention.old_looks(s, before=_EARLY, running=()),
    "spare_boards": lambda s: retention.spare_boards(s, now=_EARLY, late=LAG),
    "size_of": lambda s: retention.size_of(s, retention.old_passes(s, before=_EARLY)),
    "labelled": retention.labelled,
    "unreferred_definitions": lambda s: retention.unreferred_definitions(
        s, set(), now=NOW + timedelta(days=31)
    ),
    "size_of_expired": lambda s: retention.size_of_expired(s, _EXPIRED),
    "delete_expired": lambda s: retention.delete_expired(s, _EXPIRED, rest=lambda _: None),
    "delete_rows": lambda s: retention.delete_rows(
        s, retention.old_rows(s, SET_ASIDE, before=_EARLY), rest=lambda _: None
    ),
    "old_orphans": lambda s: retention.old_orphans(s, before=_EARLY, until=Position(2_000, 2_000)),
}
_STEP = {"verdicts": 50, "ratings": 50}
READ |= {
    "outcomes_about": lambda s: review_items.outcomes_about(s, _KEYS, "safety"),
    "open_places": lambda s: (
        *review_items.open_places(s, "ann", state=0, queue=None, dimension=None, page=1),
        *review_items.open_places(s, "ann", state=0, queue="sample", dimension="d", page=1),
        *review_items.open_places(s, "ann", state=0, queue=None, dimension="d", page=1),
    ),
    "take_seat": lambda s: (
        review_seats.take_seat(s, "ann", now=NOW, until=NOW + LAG),
        review_seats.take_seat(s, "bob", now=NOW, until=NOW + LAG, state=1, queue="sample"),
        review_seats.take_seat(s, "cy", now=NOW, until=NOW + LAG, state=3, dimension="safety"),
    ),
    "leave_seat": lambda s: review_seats.leave_seat(s, "r-1", "ann"),
    "pass_on": lambda s: review_seats.pass_on(s, "r-1", "ann"),
    "take_up_again": lambda s: review_seats.take_up_again(s, "r-1", "ann", NOW + LAG),
    "close_items": lambda s: review_seats.close_items(s, ["r-1", "r-2"]),
    "states_of": lambda s: review_seats.states_of(s, ["r-1", "r-2"]),
    "open_ids": lambda s: list(review_seats.open_ids(s, "win_rate")),
    "progress_of": review_seats.progress_of,
    "decided_by": lambda s: review_seats.decided_by(s, "ann"),
    "waiting_counts": lambda s: review_seats.waiting_counts(s, 100),
    "count_checked": lambda s: review_seats.count_checked(s, "ann"),
    "last_decision": lambda s: review_seats.last_decision(s, "ann"),
    "human_labels": lambda s: (
        review_labels.human_labels(s, "helpfulness"),
        review_labels.human_labels(s),
    ),
    "ratings_on": lambda s: review_labels.ratings_on(s, "helpfulness", 100),
    "begin_step": lambda s: review_candidates.begin_step(s, "r"),
    "keep_step": lambda s: review_candidates.keep_step(s, "r", before=_STEP, after=_STEP),
    "next_step": lambda s: review_candidates.next_step(s, _STEP, "helpfulness"),
    "verdicts_on": lambda s: review_candidates.verdicts_on(s, _KEYS, "helpfulness"),
    "undecided_pairs": lambda s: review_candidates.undecided_pairs(s, {"i-1": ("a", "b")}),
    "chosen_since": lambda s: review_candidates.chosen_since(s, "sample", "helpfulness", 0),
    "in_queue": lambda s: review_candidates.in_queue(s, _KEYS, "helpfulness"),
    "judges_of": lambda s: review_candidates.judges_of(s, "i-1"),
}
WRITES = {
    "open_dataset_cycle",  # what it looks up, open_cycle does too
    "put",
    "open",
    "opened",
    "close",
    "atomic",
    "adding",
    "simulating",
    "origins",
    "reading",
    "add_interactions",
    "add_feedback",
    "set_aside",
    "append",
    "add_interaction_rows",
    "add_feedback_rows",
    "add_answers",
    "add_vectors",
    "keep_shard",
    "add_verdicts",
    "add_aliases",
    "add_definitions",
    "keep_forgotten",
}
"""What reads nothing but the rows with the ids that are written."""
NO_QUERY = {
    "prices", "agreed_labels",
    "within", "sole_loop", "sole_training", "training_died", "cycle_window",
    "rows_of_set", "sets_with", "holds_any", "sync", "check_file", "file_identity",
    "url",
}  # fmt: skip


def _last(store: EventStore) -> Interaction:
    return store.stored_interactions(["i-2"])["i-2"]


def _example() -> Example:
    return Example(id="g", messages=(Message(role="user", content="hello"),), target="a")


def functions(module: ModuleType) -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }


def test_every_reading_of_the_store_is_looked_at() -> None:
    methods = {name for name in dir(EventStore) if not name.startswith("_")}
    modules = set().union(*(functions(m) for m in MODULES))
    assert (methods | modules) - WRITES - NO_QUERY == set(READ)


def fill(store: EventStore) -> None:
    """A month of 3000 interactions, four an hour, by 300 users, with an event and more to each."""
    store.add_interactions(
        [
            Interaction.model_validate(
                {
                    "id": f"i-{n}",
                    "session_id": "s",
                    "user_id": f"u-{n % 300}",
                    "created_at": NOW + timedelta(minutes=15 * n),
                    "model_version": f"router/{n // 1000}",
                    "messages": [{"role": "user", "content": f"Where is card {n}?"}],
                    "response": "card delivery",
                    "error": "timeout" if n % 50 == 0 else None,
                }
            )
            for n in range(3_000)
        ]
    )
    store.add_feedback(
        [
            FEEDBACK.validate_python(
                {
                    "id": f"f-{n}",
                    "interaction_id": f"i-{n}",
                    "user_id": f"u-{n % 300}" if n % 2 else None,
                    "created_at": NOW + timedelta(minutes=15 * n + 1),
                    "kind": "thumbs",
                    "value": "up",
                }
            )
            for n in range(3_000)
        ]
    )
    moments = [NOW + timedelta(minutes=90 * n) for n in range(500)]
    with store.atomic():
        for n, moment in enumerate(moments):
            if n < 200:
                store.append(CycleEnd(id=f"c-{n}", created_at=moment, outcome="finished"))
            store.append(
                ReviewItem(
                    id=f"r-{n}",
                    created_at=moment,
                    interaction_id=f"i-{n}",
                    dimension="safety",
                    priority="safety",
                    raised_by=f"rule {n % 40}",
                    why="why",
                )
            )
            if n >= 30:
                store.append(
                    ReviewDecision(
                        id=f"d-{n}",
                        created_at=moment,
                        item_id=f"r-{n}",
                        label="fine",
                        reviewer=f"ann {n % 30}",
                    )
                )
            if n % 8:
                continue
            store.append(
                HumanLabel(
                    id=f"h-{n}",
                    created_at=moment,
                    item_id=f"i-{n}",
                    dimension="d",
                    label="good",
                    reviewer="ann",
                )
            )
        for n, moment in enumerate(moments[::10]):
            store.append(
                Release(
                    id=f"r-{n}",
                    created_at=moment,
                    champion=f"router/{n % 3}",
                    previous=None,
                    action="start",
                )
            )
    store.add_verdicts(
        [
            JudgeVerdict(
                id=f"v-{n}",
                created_at=moment,
                judge="j",
                judge_version=f"j/{n % 20}",
                dimension="d",
                mode="pointwise",
                model="m",
                prompt=(Message(role="user", content=f"How good is it? {n}"),),
                reply="5",
                outcome="5",
                score=1.0,
            )
            for n, moment in enumerate(moments)
        ]
    )
    store.set_aside(
        [
            SetAside(id=f"{n}", created_at=NOW, source="f", position="1", reason="r", raw="{}")
            for n in range(100)
        ]
    )
    if store._engine.dialect.name == "postgresql":
        with store._engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(sa.text("ANALYZE"))


@contextmanager
def asked(store: EventStore) -> Iterator[list[tuple[str, Any]]]:
    """Collect what is asked of the database meanwhile, with the values."""
    queries: list[tuple[str, Any]] = []

    def note(_c: Any, _cur: Any, statement: str, values: Any, _ctx: Any, many: bool) -> None:
        if re.match(r"(WITH|SELECT|UPDATE|DELETE)\b", statement.lstrip()):
            queries.append((statement, values[0] if many else values))

    sa.event.listen(store._engine, "before_cursor_execute", note)
    try:
        yield queries
    finally:
        sa.event.remove(store._engine, "before_cursor_execute", note)


def scans(connection: sa.Connection, query: str, values: Any) -> list[str]:
    """Return where a query reads one of the large tables whole, in the database's words."""
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values).all()
        whole = re.compile(rf"SCAN ({'|'.join(LARGE)})\b")
        return [row[-1] for row in rows if whole.match(row[-1])]
    connection.exec_driver_sql("SET enable_seqscan = off")  # 3000 rows are no reason for an index
    plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {query}", values).scalar_one()
    found = json.loads(plan) if isinstance(plan, str) else plan
    return list(_whole(found[0]["Plan"], limited=False))


def _whole(node: dict[str, Any], *, limited: bool) -> Iterator[str]:
    """Yield the nodes of a plan that read a large table whole; with a limit they may stop."""
    kind, table = node["Node Type"], str(node.get("Relation Name", ""))
    by_index = "Index Cond" in node or (limited and kind.startswith("Index"))
    small = table.endswith(("_other", "_position_seq"))  # rows of odd times; a single row
    if table.startswith(LARGE) and not small and kind != "Bitmap Heap Scan" and not by_index:
        if kind not in ("ModifyTable", "Update", "Delete"):
            yield f"{kind} {table} {node.get('Index Name', '')} {node.get('Filter', '')}"
    elif kind == "Bitmap Index Scan" and "Index Cond" not in node:
        yield f"{kind} {node.get('Index Name', '')}"
    for part in node.get("Plans", ()):
        yield from _whole(part, limited=kind == "Limit" or (limited and kind != "Sort"))


@pytest.mark.mostly_slow("sqlite")
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_no_query_reads_a_large_table_whole(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    if database == "postgresql":
        url = _new_schema(request.getfixturevalue("postgresql_server"))
    store = EventStore.open(url)
    fill(store)
    whole: dict[str, list[str]] = {}
    looked_at = 0
    for name, read in READ.items():
        with asked(store) as queries:
            read(store)
        assert queries or name in ASKS_NOTHING, f"{name} asked nothing"
        for query, values in queries:
            looked_at += 1
            with store.reading() as connection:
                found = scans(connection, query, values)
            if found and name not in ALLOWED:
                whole.setdefault(name, []).append(f"{found} in {query} {values}")
    store.close()
    assert looked_at > len(READ)
    assert not whole, json.dumps(whole, indent=2)


def _new_schema(address: str) -> str:
    server = sa.make_url(address)
    engine = sa.create_engine(server)
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema("plans"))
    engine.dispose()
    return server.update_query_dict({"options": "-csearch_path=plans"}).render_as_string(False)


def test_a_query_without_an_index_is_found(tmp_path: Path) -> None:
    store = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}")
    with store.reading() as connection:
        assert scans(connection, "SELECT id FROM interactions WHERE response = 'a'", ())
        assert scans(connection, "SELECT count(*) FROM feedback", ())
        assert not scans(connection, "SELECT id FROM interactions WHERE user_id = 'a'", ())
    store.close()


def test_records_since_a_time_are_found_by_their_time(tmp_path: Path) -> None:
    """An index in the order of writing would read all of the kind."""
    store = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}")
    with asked(store) as queries:
        store.records(Release, since=NOW)
    with store.reading() as connection:
        ((query, values),) = queries
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values).all()
    assert "kind=? AND created_at>?" in plan[0][-1]
    store.close()
