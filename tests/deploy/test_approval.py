from datetime import timedelta

import pytest

from ratchet.deploy.approval import (
    approved_to_promote,
    expire,
    find_decision,
    say,
    standing,
    waiting_decisions,
    waits_for_person,
)
from ratchet.deploy.gate.policy import policy_for_loop
from ratchet.errors import ConflictError, InvalidInputError
from ratchet.records import Approval
from tests.deploy.gate.gated import AT, POLICY, decided_on, scores

ASKS = POLICY.model_copy(update={"approval": "always", "approval_hours": 24.0})
HOUR = timedelta(hours=1)


@pytest.fixture
def waiting(store):
    decision = decided_on(scores(200, 10, 30, 60), ASKS)
    store.append(decision)
    return decision


def word(store, decision, approved=True, *, by="ann", reason="read the losses", at=AT + HOUR):
    return say(store, decision, approved=approved, by=by, reason=reason, via="command", now=at)


def test_a_promotion_that_asks_for_a_person_waits_for_one(store, waiting):
    assert waits_for_person(store, waiting)
    assert not approved_to_promote(store, waiting)
    assert waiting_decisions(store) == (waiting,)
    assert standing(store, waiting) == "waiting"


@pytest.mark.parametrize("approved", [True, False])
def test_who_when_and_why_are_kept(store, waiting, approved):
    said = word(store, waiting, approved)
    assert (said.by, said.created_at, said.reason) == ("ann", AT + HOUR, "read the losses")
    assert store.get(Approval, waiting.id) == said
    assert approved_to_promote(store, waiting) is approved
    assert waiting_decisions(store) == ()


def test_the_first_word_stands(store, waiting):
    said = word(store, waiting)
    assert word(store, waiting, by="bob", reason="me too") == said
    with pytest.raises(ConflictError, match=r"approved by ann .* \(read the losses\)"):
        word(store, waiting, False)


def test_no_word_in_time_is_a_rejection(store, waiting):
    assert expire(store, waiting, AT + 23 * HOUR) is None
    said = expire(store, waiting, AT + 24 * HOUR)
    assert (said.approved, said.by, said.via) == (False, "expiry", "expiry")
    assert standing(store, waiting) == "rejected"
    assert expire(store, waiting, AT + 25 * HOUR) is None
    with pytest.raises(ConflictError, match="rejected by expiry"):
        word(store, waiting, at=AT + 26 * HOUR)


def test_a_word_that_comes_too_late_is_the_expiry(store, waiting):
    with pytest.raises(ConflictError, match="nobody approved it by"):
        word(store, waiting, at=AT + 24 * HOUR)
    assert not approved_to_promote(store, waiting)


def test_only_what_waits_can_be_approved(store):
    for cells in ((200, 10, 30, 60), (200, 30, 10, 60)):
        decision = decided_on(scores(*cells))
        with pytest.raises(InvalidInputError, match="nobody has to approve"):
            word(store, decision)
    assert approved_to_promote(store, decided_on(scores(200, 10, 30, 60)))
    assert not approved_to_promote(store, decided_on(scores(200, 30, 10, 60)))


@pytest.mark.parametrize(("by", "reason"), [("", "why"), ("ann", "  ")])
def test_a_word_without_a_name_or_a_reason_is_refused(store, waiting, by, reason):
    with pytest.raises(InvalidInputError, match="who and why"):
        word(store, waiting, by=by, reason=reason)
    assert standing(store, waiting) == "waiting"


def test_a_decision_is_found_by_a_start_of_its_id_that_no_other_has(waiting):
    other = waiting.model_copy(update={"id": "zz"})
    assert find_decision((waiting, other), waiting.id[:6]) == waiting
    for start in ("", "no such"):
        with pytest.raises(InvalidInputError, match="got "):
            find_decision((waiting, other), start)


def test_only_an_approver_decides_where_there_are_some(store, waiting):
    def said_by(name):
        return say(
            store, waiting, approved=True, by=name, reason="read it", via="command",
            now=AT + HOUR, approvers=("Ann Lee", "bob"),
        )  # fmt: skip

    with pytest.raises(InvalidInputError, match="decided by Ann Lee, bob, got 'eve'"):
        said_by("eve")
    assert waits_for_person(store, waiting)
    assert said_by(" ann lee ").by == "ann lee"


def test_a_loop_may_ask_for_a_person_whatever_its_policy_says():
    assert policy_for_loop(POLICY, None).approval == "never"
    assert policy_for_loop(POLICY, None, "borderline").approval == "borderline"
    assert policy_for_loop(ASKS, None).approval == "always"
