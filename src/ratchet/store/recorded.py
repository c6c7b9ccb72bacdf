"""What models said before: answers to examples, vectors of texts, verdicts of judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ratchet.records import JudgeVerdict
from ratchet.records.asking import Usage
from ratchet.store.answers import answer_rows, read_answers
from ratchet.store.rows import chunks, microseconds
from ratchet.store.tables import ANSWERS, EMBEDDINGS, SHARDS, VERDICT_QUOTES, VERDICTS
from ratchet.store.transactions import Transactions, insert_if_new
from ratchet.store.vectors import Vectors, read_vectors, vector_rows
from ratchet.store.verdicts import (
    quote_rows,
    read_spent,
    read_verdicts,
    read_version,
    verdict_rows,
)


class Recorded(Transactions):
    """Kept so that nothing is asked twice."""

    def answers(self, model_digest: str, decoding: str, ids: Sequence[str]) -> dict[str, str]:
        """Return the recorded answers of a model to examples, by example id."""
        with self.reading() as connection:
            answers = read_answers(connection, model_digest, decoding, ids)
            return {one.example_id: one.text for one in answers}

    def answer_seconds(
        self, model_digest: str, decoding: str, ids: Sequence[str]
    ) -> dict[str, float]:
        """Return how long recorded answers took, where that is known."""
        with self.reading() as connection:
            answers = read_answers(connection, model_digest, decoding, ids)
            return {one.example_id: one.seconds for one in answers if one.seconds is not None}

    def answer_usage(
        self, model_digest: str, decoding: str, ids: Sequence[str]
    ) -> dict[str, Usage]:
        """Return how many tokens recorded answers and their requests have, as far as known."""
        with self.reading() as connection:
            answers = read_answers(connection, model_digest, decoding, ids)
            return {one.example_id: one.usage for one in answers}

    def add_answers(
        self,
        model_digest: str,
        decoding: str,
        answers: Mapping[str, str],
        seconds: Mapping[str, float] | None = None,
        usage: Mapping[str, Usage] | None = None,
    ) -> None:
        """Record answers; an answer that is there already stands."""
        now = microseconds(self._clock())
        rows = answer_rows(model_digest, decoding, answers, seconds or {}, usage or {}, now)
        self._keep(ANSWERS, rows)

    def vectors(self, model_digest: str, keys: Sequence[str]) -> dict[str, Vectors]:
        """Return the vectors that a model made of texts, by key, where they are stored."""
        with self.reading() as connection:
            return read_vectors(connection, model_digest, keys)

    def add_vectors(self, model_digest: str, vectors: Mapping[str, Vectors]) -> None:
        """Store vectors in half precision; a vector that is there already stands."""
        self._keep(EMBEDDINGS, vector_rows(model_digest, vectors, microseconds(self._clock())))

    def shard_results(self, stage: str) -> dict[str, Any]:
        """Return the results of those shards of a stage that are done, by key."""
        done = sa.select(SHARDS.c.key, SHARDS.c.result).where(
            SHARDS.c.stage == stage, SHARDS.c.state == "done"
        )
        with self.reading() as connection:
            return {row.key: row.result for row in connection.execute(done)}

    def keep_shard(self, stage: str, key: str, state: str, result: Any) -> None:
        """Write down that a shard is `done`, with its result, or `failed`, with the reason.

        What is done stands; what failed gives way to what comes later.
        """
        row = {"stage": stage, "key": key, "state": state, "result": result}
        failed = (SHARDS.c.stage == stage, SHARDS.c.key == key, SHARDS.c.state == "failed")

        def insert(connection: sa.Connection) -> None:
            connection.execute(sa.delete(SHARDS).where(*failed))
            added = row | {"added_at": microseconds(self._clock())}
            connection.execute(insert_if_new(connection, SHARDS), added)

        self._add_to(SHARDS, insert)

    def verdicts(self, ids: Sequence[str]) -> dict[str, JudgeVerdict]:
        """Return those of the verdicts with these ids that are stored, by id."""
        with self.reading() as connection:
            return read_verdicts(connection, ids)

    def add_verdicts(self, verdicts: Sequence[JudgeVerdict]) -> None:
        """Keep verdicts; one that is there already stands."""
        tables = ((VERDICTS, verdict_rows(verdicts)), (VERDICT_QUOTES, quote_rows(verdicts)))

        def insert(connection: sa.Connection) -> None:
            for table, rows in tables:
                for chunk in chunks(rows):
                    connection.execute(insert_if_new(connection, table), chunk)

        self._add_to(VERDICTS, insert)

    def spent_on_judges(self, since: datetime, until: datetime) -> tuple[int, float]:
        """Return how many verdicts judges gave between two times, and what they cost together."""
        with self.reading() as connection:
            return read_spent(connection, since, until)

    def verdicts_of(
        self, judge_version: str, *, latest: int | None = None
    ) -> tuple[JudgeVerdict, ...]:
        """Return a judge version's verdicts in the order they were written, or the last ones."""
        with self.reading() as connection:
            return read_version(connection, judge_version, latest)
