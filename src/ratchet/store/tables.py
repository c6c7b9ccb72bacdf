"""The schema of the store and the steps that made it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sqlalchemy as sa

from ratchet.store.counts import keep_counts
from ratchet.store.facts import name_from_journal
from ratchet.store.fences import make_table as make_leases
from ratchet.store.forgotten import make_table, name_from_erasures
from ratchet.store.indexes import make_index
from ratchet.store.naming import NAME_CHARACTERS, name_set_aside
from ratchet.store.origins import find_simulated
from ratchet.store.partitioning import partition_by_month
from ratchet.store.review_rows import SETTLED, START, copy_reviews, name_deciders

METADATA = sa.MetaData()
_Position = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _table(name: str, *columns: sa.schema.SchemaItem) -> sa.Table:
    """A table whose `position` keeps the order in which rows arrived."""
    position = sa.Column("position", _Position, primary_key=True, autoincrement=True)
    return sa.Table(name, METADATA, position, *columns)


INTERACTIONS = _table(
    "interactions",
    sa.Column("id", sa.String(200), nullable=False, unique=True),
    sa.Column("digest", sa.String(16), nullable=False),
    sa.Column("session_id", sa.String(200), nullable=False),
    sa.Column("user_id", sa.String(200), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False, index=True),
    sa.Column("received_at", sa.BigInteger, nullable=False),
    sa.Column("model_version", sa.String(200), nullable=False),
    sa.Column("segment", sa.String(200), nullable=False),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("messages", sa.JSON, nullable=False),
    sa.Column("response", sa.Text, nullable=False),
    sa.Column("latency_seconds", sa.Double),
    sa.Column("error", sa.Text),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("tool_calls", sa.JSON(none_as_null=True)),
    sa.Column("refusal", sa.Text),
    sa.Column("tools", sa.String(64)),
    sa.Column("response_format", sa.String(64)),
    sa.Column("documents", sa.String(64)),
    sa.Column("continues", sa.String(200)),
)
FEEDBACK_EVENTS = _table(
    "feedback",
    sa.Column("id", sa.String(200), nullable=False, unique=True),
    sa.Column("digest", sa.String(16), nullable=False),
    sa.Column("interaction_id", sa.String(200), nullable=False, index=True),
    sa.Column("user_id", sa.String(200)),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("received_at", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.String(40), nullable=False),
    sa.Column("number", sa.Double),
    sa.Column("text", sa.Text),
    sa.Column("updated_at", sa.BigInteger),
    sa.Column("version_of", sa.String(200)),
)
GIVEN_AT = sa.func.coalesce(FEEDBACK_EVENTS.c.updated_at, FEEDBACK_EVENTS.c.created_at)
"""When the opinion of a row was given: by this time the latest of a kind counts."""
RETAIN_SAID = {
    "sqlite": "json_extract(metadata, '$.retain_until')",
    "postgresql": "metadata ->> 'retain_until'",
}
"""Until when an interaction may be kept, as it was sent, in the words of the index."""
SET_ASIDE = _table(
    "set_aside",
    sa.Column("id", sa.String(200), nullable=False, unique=True),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("where", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("raw", sa.Text, nullable=False),
    sa.Column("user_id", sa.String(NAME_CHARACTERS)),
    sa.Column("interaction_id", sa.String(NAME_CHARACTERS)),
)
JOURNAL = _table(
    "journal",
    sa.Column("kind", sa.String(40), nullable=False),
    sa.Column("id", sa.String(200), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("subject", sa.String(200)),
    sa.UniqueConstraint("kind", "id"),
)
ANSWERS = _table(
    "answers",
    sa.Column("model_digest", sa.String(64), nullable=False),
    sa.Column("decoding", sa.String(64), nullable=False),
    sa.Column("example_id", sa.String(200), nullable=False),
    sa.Column("answer", sa.Text, nullable=False),
    sa.Column("seconds", sa.Float),
    sa.Column("added_at", sa.BigInteger),
    sa.Column("tokens_in", sa.BigInteger),
    sa.Column("tokens_out", sa.BigInteger),
    sa.UniqueConstraint("model_digest", "decoding", "example_id"),
)
EMBEDDINGS = _table(
    "embeddings",
    sa.Column("model_digest", sa.String(64), nullable=False),
    sa.Column("key", sa.String(64), nullable=False),
    sa.Column("vector", sa.LargeBinary, nullable=False),
    sa.Column("added_at", sa.BigInteger),
    sa.UniqueConstraint("model_digest", "key"),
)
SHARDS = _table(
    "shards",
    sa.Column("stage", sa.String(200), nullable=False),
    sa.Column("key", sa.String(64), nullable=False),
    sa.Column("state", sa.String(20), nullable=False),  # done or failed
    sa.Column("result", sa.JSON, nullable=False),
    sa.Column("added_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("stage", "key"),
)
"""Results of shards: see `ratchet.executors.run_stage`. They hold no texts of users."""
VERDICTS = _table(
    "verdicts",
    sa.Column("id", sa.String(200), nullable=False, unique=True),
    sa.Column("judge_version", sa.String(200), nullable=False),
    sa.Column("dimension", sa.String(200), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("item_id", sa.String(NAME_CHARACTERS)),
)
VERDICT_QUOTES = sa.Table(
    "verdict_quotes",
    METADATA,
    sa.Column("interaction_id", sa.String(200), primary_key=True),
    sa.Column("verdict_id", sa.String(200), primary_key=True, index=True),
    sqlite_with_rowid=False,
)
"""Which verdicts quote which interactions, besides the one that each is about."""
COUNTS = sa.Table(
    "counts",
    METADATA,
    sa.Column("name", sa.String(40), primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("part", sa.Text, nullable=False),
    sa.Column("value", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Rows of a table by part, in numbers that are added up: see `ratchet.store.counts`."""
FACTS = sa.Table(
    "store_facts",
    METADATA,
    sa.Column("name", sa.String(80), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
REVIEW_ITEMS = _table(
    "review_items",
    sa.Column("id", sa.String(200), nullable=False, unique=True),
    sa.Column("start", sa.String(START), nullable=False, index=True),
    sa.Column("interaction_id", sa.String(200), nullable=False),
    sa.Column("dimension", sa.String(200), nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),  # 0 safety, 1 normal
    sa.Column("raised_by", sa.String(200), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("decided", sa.Integer, nullable=False),  # decisions about interaction and dimension
    sa.Column("covered", sa.Integer, nullable=False),  # 1: a sample of what was flagged as well
    sa.Column("share", sa.Double),  # of a sample: the chance to be drawn
    sa.Column("sample_day", sa.Integer, index=True),  # of a sample: the answer's day since 1970
    sa.Column("wanted", sa.Integer, nullable=False, server_default="1"),  # people who decide it
    sa.Column("unanimous", sa.Integer, nullable=False, server_default="0"),  # 1: all must agree
    sa.Column("state", sa.Integer, nullable=False, server_default="0"),  # see review_rows
    sa.Column("queue", sa.String(200)),  # the rule by which it was chosen
    sa.Column("deciders", sa.Text, nullable=False, server_default=""),  # of what waits for more
    sa.Index("ix_review_items_about", "interaction_id", "dimension"),
)
REVIEW_DECISIONS = _table(
    "review_decisions",
    sa.Column("id", sa.String(200), nullable=False, unique=True),
    sa.Column("item_id", sa.String(200), nullable=False),
    sa.Column("reviewer", sa.String(200), nullable=False),
    sa.Column("label", sa.String(200), nullable=False),
    sa.Column("adjudicates", sa.Integer, nullable=False, server_default="0"),
    sa.Index("ix_review_decisions_item", "item_id", "reviewer"),
    sa.Index("ix_review_decisions_reviewer", "reviewer", "position"),
    sa.Index("ix_review_decisions_label", "label", "item_id"),
)
REVIEW_SEATS = sa.Table(
    "review_seats",
    METADATA,
    sa.Column("item_id", sa.String(200), primary_key=True),
    sa.Column("reviewer", sa.String(200), primary_key=True, index=True),
    sa.Column("until", sa.BigInteger, index=True),  # null: passed on to others for good
    sqlite_with_rowid=False,
)
"""Who holds an item for a while, and who passed it on: see `ratchet.store.review_seats`."""
ALIASES = _table(
    "interaction_aliases",
    sa.Column("other_id", sa.String(200), nullable=False, unique=True),
    sa.Column("interaction_id", sa.String(200), nullable=False),
    sa.Column("digest", sa.String(16), nullable=False),
    sa.Column("added_at", sa.BigInteger, nullable=False),
)
"""Ids under which stored interactions came in again: see `ratchet.store.aliases`."""
ACCOUNTS = _table(
    "accounts",
    sa.Column("id", sa.String(200), nullable=False, unique=True),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("role", sa.String(20), nullable=False),
    sa.Column("password_hash", sa.Text),
    sa.Column("subject", sa.String(500), unique=True),
    sa.Column("disabled", sa.Integer, nullable=False),
)
ACCOUNT_TOKENS = sa.Table(
    "account_tokens",
    METADATA,
    sa.Column("hash", sa.String(64), primary_key=True),
    sa.Column("purpose", sa.String(20), nullable=False),
    sa.Column("account_id", sa.String(200), nullable=False, index=True),
    sa.Column("expires_at", sa.BigInteger, nullable=False, index=True),
    sqlite_with_rowid=False,
)
"""Sessions of browsers and one-time links: see `ratchet.store.accounts`."""
OUTBOX = _table(
    "outbox",
    sa.Column("id", sa.String(200), nullable=False, unique=True),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.String(40), nullable=False),
    sa.Column("about", sa.String(200), nullable=False),
    sa.Column("channel", sa.String(200), nullable=False),
    sa.Column("state", sa.Integer, nullable=False),  # see `ratchet.store.outbox`
    sa.Column("due_at", sa.BigInteger, nullable=False),  # of an ended one when it ended
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("leased_by", sa.String(64)),
    sa.Column("said", sa.Text),  # why it did not arrive
    sa.Index("ix_outbox_due", "state", "due_at"),
    sa.Index("ix_outbox_channel", "channel", "state", "due_at"),
    sa.Index("ix_outbox_about", "about", "created_at"),
)
"""Messages to people until they arrived: see `ratchet.store.outbox`."""
DEFINITIONS = _table(
    "definitions",
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("kind", sa.String(40), nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("added_at", sa.BigInteger, nullable=False),
)
"""Tools, forms of answers and documents that interactions refer to by digest."""
DOCUMENT_USES = sa.Table(
    "document_uses",
    METADATA,
    sa.Column("interaction_id", sa.String(200), primary_key=True),
    sa.Column("documents", sa.String(64), nullable=False, index=True),
    sqlite_with_rowid=False,
)
"""Which interactions were answered with which documents, so that these go with the last one."""
FORGOTTEN_NAMES = make_table(METADATA)
"""Digests of users and interactions that were erased: see `ratchet.store.forgotten`."""
LEASES = make_leases(METADATA)
"""Which process does a work that one at a time may do: see `ratchet.store.leases`."""
APPLIED = sa.Table(
    "schema_migrations",
    METADATA,
    sa.Column("name", sa.String(80), primary_key=True),
    sa.Column("applied_at", sa.BigInteger, nullable=False),
)


def _create_events(connection: sa.Connection) -> None:
    METADATA.create_all(connection)


def _index_versions(connection: sa.Connection) -> None:
    """Find a version's first answer, and its answers in a span of time, without a scan."""
    make_index(
        connection, "ix_interactions_version_time", "interactions (model_version, created_at)"
    )


def _name_subjects(connection: sa.Connection) -> None:
    """Find the journal's records about a model version without reading the others."""
    present = {column["name"] for column in sa.inspect(connection).get_columns("journal")}
    if "subject" not in present:
        connection.execute(sa.text("ALTER TABLE journal ADD COLUMN subject VARCHAR(200)"))
    make_index(connection, "ix_journal_subject", "journal (kind, subject, position)")


def _create_embeddings(connection: sa.Connection) -> None:
    EMBEDDINGS.create(connection, checkfirst=True)


def _keep_verdicts(connection: sa.Connection) -> None:
    """Keep what judges say, and find the latest verdicts of a judge's version without a scan."""
    VERDICTS.create(connection, checkfirst=True)
    make_index(connection, "ix_verdicts_judge_version", "verdicts (judge_version, position)")


def _time_answers(connection: sa.Connection) -> None:
    """Keep how long an answer took."""
    present = {column["name"] for column in sa.inspect(connection).get_columns("answers")}
    if "seconds" not in present:
        connection.execute(sa.text("ALTER TABLE answers ADD COLUMN seconds DOUBLE PRECISION"))


def _keep_updates(connection: sa.Connection) -> None:
    """Keep several versions of feedback that its source edits in place."""
    present = {column["name"] for column in sa.inspect(connection).get_columns("feedback")}
    for name, kind in (("updated_at", "BIGINT"), ("version_of", "VARCHAR(200)")):
        if name not in present:
            connection.execute(sa.text(f"ALTER TABLE feedback ADD COLUMN {name} {kind}"))
    versions = "feedback (version_of) WHERE version_of IS NOT NULL"
    make_index(connection, "ix_feedback_version_of", versions)


def _time_records(connection: sa.Connection) -> None:
    """Find the journal's latest records of a kind by their time without reading the others."""
    make_index(connection, "ix_journal_time", "journal (kind, created_at)")


def _index_readings(connection: sa.Connection) -> None:
    """Find a user's rows, and the journal's records of a kind, without reading the others."""
    make_index(connection, "ix_interactions_user", "interactions (user_id)")
    make_index(connection, "ix_feedback_user", "feedback (user_id) WHERE user_id IS NOT NULL")
    make_index(connection, "ix_journal_kind", "journal (kind, position)")
    make_index(connection, "ix_embeddings_key", "embeddings (key)")


def _keep_counts(connection: sa.Connection) -> None:
    COUNTS.create(connection, checkfirst=True)
    if connection.dialect.name == "sqlite":
        keep_counts(connection)
    else:
        keep_counts(connection, between=connection.commit)


def _name_items(connection: sa.Connection) -> None:
    """Find the verdicts about an item, and a user's rows that were set aside."""
    names = {"verdicts": ("item_id",), "set_aside": ("user_id", "interaction_id")}
    for table, columns in names.items():
        present = {column["name"] for column in sa.inspect(connection).get_columns(table)}
        for name in columns:
            if name not in present:
                kind = f"VARCHAR({NAME_CHARACTERS})"
                connection.execute(sa.text(f"ALTER TABLE {table} ADD COLUMN {name} {kind}"))
    connection.commit()  # done again, it finds what is there
    name_set_aside(connection, SET_ASIDE, between=connection.commit)
    make_index(connection, "ix_verdicts_item", "verdicts (item_id, position)")
    make_index(connection, "ix_set_aside_user", "set_aside (user_id, interaction_id, position)")
    about = "set_aside (interaction_id) WHERE interaction_id IS NOT NULL"
    make_index(connection, "ix_set_aside_interaction", about)


def _name_store(connection: sa.Connection) -> None:
    """Keep whose store it is."""
    FACTS.create(connection, checkfirst=True)
    name_from_journal(connection, FACTS, JOURNAL)


def _queue_reviews(connection: sa.Connection) -> None:
    """Find what waits for a person without reading the whole queue."""
    for table in (REVIEW_ITEMS, REVIEW_DECISIONS):
        table.create(connection, checkfirst=True)
    copy_reviews(connection, JOURNAL, REVIEW_ITEMS, REVIEW_DECISIONS)


def _date_recorded(connection: sa.Connection) -> None:
    """Say when answers and vectors were added, so that old ones can go."""
    for table in ("answers", "embeddings"):
        present = {column["name"] for column in sa.inspect(connection).get_columns(table)}
        if "added_at" not in present:
            connection.execute(sa.text(f"ALTER TABLE {table} ADD COLUMN added_at BIGINT"))


def _index_keeping(connection: sa.Connection) -> None:
    """Find what may be kept for a time only without reading all metadata."""
    said = RETAIN_SAID[connection.dialect.name]
    make_index(
        connection, "ix_interactions_keeping", f"interactions (({said})) WHERE ({said}) IS NOT NULL"
    )


def _keep_aliases(connection: sa.Connection) -> None:
    """Keep the other ids of stored interactions."""
    ALIASES.create(connection, checkfirst=True)


def _tell_simulated(connection: sa.Connection) -> None:
    """Keep which interactions are those of simulated users."""
    find_simulated(connection, FACTS, JOURNAL, INTERACTIONS)


def _keep_forgotten(connection: sa.Connection) -> None:
    """Keep who was forgotten, so that nothing of them is stored again."""
    FORGOTTEN_NAMES.create(connection, checkfirst=True)
    name_from_erasures(connection, FORGOTTEN_NAMES, JOURNAL)


def _index_sessions(connection: sa.Connection) -> None:
    """Find the interactions of a session in a span of time without reading the others."""
    make_index(connection, "ix_interactions_session", "interactions (session_id, created_at)")


def _index_definitions(connection: sa.Connection) -> None:
    """Find whether an interaction refers to a definition; those that refer to none cost nothing."""
    for name in ("tools", "response_format"):
        columns = f"interactions ({name}) WHERE {name} IS NOT NULL"
        make_index(connection, f"ix_interactions_{name}", columns)


def _keep_conversations(connection: sa.Connection) -> None:
    """Keep calls of tools, refusals, and what answers were given with. No row is rewritten."""
    for table in (DEFINITIONS, DOCUMENT_USES):
        table.create(connection, checkfirst=True)
    present = {column["name"] for column in sa.inspect(connection).get_columns("interactions")}
    kinds = {
        "tool_calls": "JSON",
        "refusal": "TEXT",
        "tools": "VARCHAR(64)",
        "response_format": "VARCHAR(64)",
        "documents": "VARCHAR(64)",
        "continues": "VARCHAR(200)",
    }
    added = [f"ADD COLUMN {name} {kind}" for name, kind in kinds.items() if name not in present]
    if not added:
        return
    # PostgreSQL locks the table once for all of them; SQLite takes one at a time
    steps = added if connection.dialect.name == "sqlite" else [", ".join(added)]
    for step in steps:
        connection.execute(sa.text(f"ALTER TABLE interactions {step}"))


def _count_answers_tokens(connection: sa.Connection) -> None:
    """Keep how many tokens recorded answers have; of those of before it is not known."""
    present = {column["name"] for column in sa.inspect(connection).get_columns("answers")}
    for name in ("tokens_in", "tokens_out"):
        if name not in present:
            connection.execute(sa.text(f"ALTER TABLE answers ADD COLUMN {name} BIGINT"))


def _name_quotes(connection: sa.Connection) -> None:
    """Keep which interactions a verdict quotes; those of before quote the one that they name."""
    VERDICT_QUOTES.create(connection, checkfirst=True)


def _index_labels(connection: sa.Connection) -> None:
    """Count what people decided without reading all of their decisions."""
    make_index(connection, "ix_review_decisions_label", "review_decisions (label, item_id)")


def _share_reviews(connection: sa.Connection) -> None:
    """Let several people decide an item, and keep who holds one; of before one person did."""
    added = {
        "review_items": {
            "wanted": "INTEGER NOT NULL DEFAULT 1",
            "unanimous": "INTEGER NOT NULL DEFAULT 0",
            "state": "INTEGER NOT NULL DEFAULT 0",
            "queue": "VARCHAR(200)",
        },
        "review_decisions": {"adjudicates": "INTEGER NOT NULL DEFAULT 0"},
    }
    for table, columns in added.items():
        present = {column["name"] for column in sa.inspect(connection).get_columns(table)}
        for name, kind in columns.items():
            if name not in present:
                connection.execute(sa.text(f"ALTER TABLE {table} ADD COLUMN {name} {kind}"))
    REVIEW_SEATS.create(connection, checkfirst=True)
    settled = sa.update(REVIEW_ITEMS).where(REVIEW_ITEMS.c.decided > 0, REVIEW_ITEMS.c.state == 0)
    connection.execute(settled.values(state=SETTLED))
    place = "decided, rank, created_at, position)"
    make_index(connection, "ix_review_items_next", f"review_items (covered, state, {place}")
    make_index(connection, "ix_review_items_queue", f"review_items (covered, state, queue, {place}")
    make_index(
        connection,
        "ix_review_items_raised",
        "review_items (covered, state, rank, raised_by, dimension, created_at, position)",
    )
    make_index(
        connection,
        "ix_review_items_dimension",
        "review_items (dimension, state, position)",
    )
    make_index(connection, "ix_review_items_chosen", "review_items (dimension, queue, created_at)")
    for name in ("ix_review_items_open", "ix_review_items_source"):
        connection.execute(sa.text(f"DROP INDEX IF EXISTS {name}"))


def _keep_accounts(connection: sa.Connection) -> None:
    """Keep who may use the pages for people."""
    for table in (ACCOUNTS, ACCOUNT_TOKENS):
        table.create(connection, checkfirst=True)


def _keep_outbox(connection: sa.Connection) -> None:
    """Keep messages to people until they arrived; find what judges said in a week."""
    OUTBOX.create(connection, checkfirst=True)
    make_index(connection, "ix_verdicts_time", "verdicts (created_at)")


def _keep_leases(connection: sa.Connection) -> None:
    """Keep who does a work that one process at a time may do."""
    LEASES.create(connection, checkfirst=True)


def _keep_shards(connection: sa.Connection) -> None:
    """Keep the results of shards of work."""
    SHARDS.create(connection, checkfirst=True)


def _group_reviews(connection: sa.Connection) -> None:
    """Find what waits for a person by who decided it, and what a person said of known items."""
    present = {column["name"] for column in sa.inspect(connection).get_columns("review_items")}
    if "deciders" not in present:
        column = "deciders TEXT NOT NULL DEFAULT ''"
        connection.execute(sa.text(f"ALTER TABLE review_items ADD COLUMN {column}"))
    name_deciders(connection, REVIEW_ITEMS, REVIEW_DECISIONS)
    kinds = ("KnownAnswer", "ReviewUndo")
    said = sa.and_(JOURNAL.c.kind.in_(kinds), JOURNAL.c.subject.is_(None))
    reviewer = JOURNAL.c.body["reviewer"].as_string()
    connection.execute(sa.update(JOURNAL).where(said).values(subject=reviewer))
    for name, first in (("deciders", ""), ("of_queue", "queue, "), ("of_dimension", "dimension, ")):
        columns = f"review_items (covered, state, {first}deciders, rank, created_at, position)"
        make_index(connection, f"ix_review_items_{name}", columns)
    connection.execute(sa.text("DROP INDEX IF EXISTS ix_review_items_queue"))


MIGRATIONS: Mapping[str, Callable[[sa.Connection], None]] = {
    "0001_create_events": _create_events,
    "0002_index_versions": _index_versions,
    "0003_name_subjects": _name_subjects,
    "0004_keep_verdicts": _keep_verdicts,
    "0005_create_embeddings": _create_embeddings,
    "0006_time_answers": _time_answers,
    "0007_keep_updates": _keep_updates,
    "0008_time_records": _time_records,
    "0009_index_readings": _index_readings,
    "0010_keep_counts": _keep_counts,
    "0011_name_items": _name_items,
    "0012_name_store": _name_store,
    "0013_partition_by_month": partition_by_month,
    "0014_review_items": _queue_reviews,
    "0015_date_recorded": _date_recorded,
    "0016_index_keeping": _index_keeping,
    "0017_keep_aliases": _keep_aliases,
    "0018_tell_simulated": _tell_simulated,
    "0019_keep_forgotten": _keep_forgotten,
    "0020_keep_conversations": _keep_conversations,
    "0021_index_sessions": _index_sessions,
    "0022_index_definitions": _index_definitions,
    "0023_count_answers_tokens": _count_answers_tokens,
    "0024_name_quotes": _name_quotes,
    "0025_index_labels": _index_labels,
    "0028_keep_accounts": _keep_accounts,
    "0030_share_reviews": _share_reviews,
    "0031_keep_outbox": _keep_outbox,
    "0032_group_reviews": _group_reviews,
    "0034_keep_leases": _keep_leases,
    "0035_keep_shards": _keep_shards,
}
"""Named steps, applied in order, each in a transaction of its own (`ratchet.store.migrating`)."""
