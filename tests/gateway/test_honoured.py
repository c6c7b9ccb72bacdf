"""From the official client to the training files: who refused is in none, what is over goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.context import Context
from ratchet.improve.curation.dataset import build_rows, choose_among, write_training_set
from ratchet.improve.curation.derived import Derived
from ratchet.improve.curation.pool import Background
from ratchet.improve.curation.stored import stored_traffic
from ratchet.operate.pruning import Pruning
from ratchet.operate.retention import RetentionConfig
from ratchet.store.history import History

openai = pytest.importorskip("openai")
ANY_SIZE = CurationConfig(minimum_examples=1, minimum_lower_bound=0.0)
KINDS = ("sft", "kto", "dpo")

SAYS = {
    "silent": {},
    "agrees": {"metadata": {"training_consent": "yes"}},
    "refuses": {"metadata": {"training_consent": "no"}},
    "false": {"extra_body": {"metadata": {"training_consent": False}}},
    "unstored": {"store": False},
    "header": {"extra_headers": {"x-ratchet-training-consent": "no"}},
    "unreadable": {"extra_body": {"metadata": "training_consent=no"}},
    "limited": {"metadata": {"retain_days": "30"}},
    "over": {"metadata": {"retain_days": "0"}},
}
TRAINED = {"silent", "agrees", "limited"}


def said_by(gateway):
    """Each user asks, the answer is corrected, and one user refuses later."""
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0)
    for place, user in enumerate((*SAYS, "later")):
        done = client.chat.completions.create(
            model="m", user=user, **SAYS.get(user, {}),
            messages=[{"role": "user", "content": f"{user} asks about matter {place * 7919}"}],
        )  # fmt: skip
        correction = {
            "id": f"c-{user}", "interaction_id": done.id, "kind": "correction",
            "value": f"what {user} holds to be right of {place * 104729}",
            "token": done.ratchet["token"],
        }  # fmt: skip
        assert gateway.post("/v1/feedback", correction).status_code == 200
    client.chat.completions.create(
        model="m", user="later", metadata={"training_consent": "no"},
        messages=[{"role": "user", "content": "later says no"}],
    )  # fmt: skip
    gateway.settle()


def training_files(gateway, derived, kind):
    """Return all that the files of a training set hold."""
    end = datetime.now(UTC) + timedelta(seconds=1)
    traffic = stored_traffic(
        derived, kind, end=end, judges=(), consent="unless refused", context=Context()
    )
    selection = choose_among(kind, Background(traffic, (), ANY_SIZE, Context()))
    stored = gateway.store.stored_interactions([row.interaction_id for row in selection.rows])
    rows = build_rows(selection, stored, ANY_SIZE, 0)
    home = gateway.settings.home
    made = write_training_set(
        rows, selection, (), home=home, cycle_id="c", now=end, config=ANY_SIZE
    )
    import pyarrow.parquet as pq

    folder = home / made.path
    return repr([pq.read_table(path).to_pylist() for path in folder.glob("*.parquet")])


def test_who_refused_in_whatever_way_is_in_no_training_file(gateway):
    said_by(gateway)
    derived = Derived.open(History.open(gateway.settings.history))
    derived.history.advance(gateway.store)
    for kind in KINDS:
        held = training_files(gateway, derived, kind)
        asked = {user for user in (*SAYS, "later") if f"{user} asks about" in held}
        assert asked == TRAINED, kind
        if kind != "kto":  # answers are labelled there, not corrected
            assert {user for user in (*SAYS, "later") if f"what {user} holds" in held} == TRAINED


def test_what_a_client_limits_is_erased_when_its_time_is_over(gateway, tracker):
    said_by(gateway)
    history = History.open(gateway.settings.history)
    history.advance(gateway.store)
    left = []
    for days in (0, 31):
        now = datetime.now(UTC) + timedelta(days=days, seconds=1)
        pruning = Pruning(
            gateway.store, gateway.settings, RetentionConfig(), now=now, history=history,
            tracker=tracker,
        )  # fmt: skip
        lines = {line.what: line for line in pruning.run()}
        assert lines["interactions past their time"].gone == 1
        kept = {item.user_id for item in gateway.interactions()}
        with history.connect() as connection:
            rows = connection.sql("SELECT user_id, prompt, response FROM interactions").fetchall()
        assert {row[0] for row in rows} == kept
        assert ("over asks" in repr(rows), "limited asks" in repr(rows)) == (False, days == 0)
        left.append(kept)
    assert left[0] == {*SAYS, "later", "forgotten"} - {"over"}
    assert left[1] == left[0] - {"limited"}
    assert gateway.store.counts()["interactions"] == len(SAYS) + 2


def test_nothing_is_trained_on_that_was_erased(gateway, tracker):
    said_by(gateway)
    history = History.open(gateway.settings.history)
    history.advance(gateway.store)
    later = datetime.now(UTC) + timedelta(days=31)
    pruning = Pruning(
        gateway.store, gateway.settings, RetentionConfig(), now=later, history=history,
        tracker=tracker,
    )  # fmt: skip
    assert list(pruning.run())
    held = training_files(gateway, Derived.open(history), "sft")
    assert "silent asks" in held
    assert "limited asks" not in held
    assert "erased" not in held
