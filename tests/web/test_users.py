"""The page of a user: what is held, found by an id that stands in no address, and forgetting."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape

import pytest

from ratchet.export.grammar import Request
from ratchet.export.parts import Tally
from ratchet.export.run import note_export
from ratchet.records import (
    Comment,
    Correction,
    Erasure,
    HumanLabel,
    ReviewDecision,
    ReviewItem,
    Thumbs,
)
from ratchet.records.accounts import AuditEntry
from ratchet.store.forgotten import digest_of
from ratchet.store.held import held
from tests.store.test_forget import (
    NOW,
    SECRET,
    candidate,
    curated,
    cycle,
    everything,
    interaction,
)

EVE = "eve@example.org"


@pytest.fixture
def lived_in(site):
    """A home with two users, of whom Eve went into a training set and the version made of it."""
    site.settings = site.settings.model_copy(
        update={"tracking_uri": f"sqlite:///{site.settings.home / 'mlflow.db'}"}
    )
    store, home = site.store, site.settings.home
    store.add_interactions(
        [
            interaction(0, EVE, SECRET, "I am sorry for the card of Ramses"),
            interaction(1, "bob", "where is my parcel, please"),
        ]
    )
    store.add_feedback(
        [
            Correction(id="f0", interaction_id="i0", created_at=NOW, value="cards of Ramses"),
            Comment(id="f1", interaction_id="i1", created_at=NOW, value="eve wrote", user_id=EVE),
            Thumbs(id="f2", interaction_id="i1", created_at=NOW, value="up"),
        ]
    )
    store.append(cycle(1, "router/1"))
    store.append(candidate(1, "2", curated(store, home, "c1").id))
    store.append(
        ReviewItem(id="r", created_at=NOW, interaction_id="i0", dimension="helpfulness",
                   priority="normal", raised_by="low_confidence", why="unsure")
    )  # fmt: skip
    decided = {"created_at": NOW, "label": "yes", "reviewer": "ada"}
    store.append(ReviewDecision(id="rd", item_id="r", **decided))
    store.append(HumanLabel(id="h", item_id="i0", dimension="safety", **decided))
    return site


def exported(site, **changes):
    """Note an export of interactions as `ratchet export` does."""
    request = Request(kind="interactions", format="jsonl", out="all.jsonl", **changes)
    note_export(site.store, request, Tally(), by="bea", now=site.clock.now)


def found(browser, user=EVE):
    browser.get("/users")
    answer = browser.post("/users", user=user)
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", answer.text)))


def test_what_is_held_is_counted_and_traced_to_what_learned_from_it(lived_in):
    exported(lived_in)
    exported(lived_in, until=NOW)  # before their answer, which was at 09:00 of this very moment
    text = found(lived_in.signed_in("engineer", "bea"))
    assert "Interactions 1, from 2026-11-24 09:00 UTC" in text
    assert "Feedback 1 comment, 1 correction" in text
    assert "People’s labels 1 helpfulness, 1 safety" in text
    assert "Versions that learned router/2" in text
    assert text.count("interactions to all.jsonl") == 1
    assert "Forget this user" not in text  # that takes an admin
    nobody = found(lived_in.signed_in("engineer", "ben"), "zoe")
    assert "Nothing is held about this user" in nobody


def test_an_export_may_hold_only_what_it_asked_for(lived_in):
    day = timedelta(days=1)
    for changes in (
        {"since": NOW + day}, {"until": NOW - day}, {"model_version": "router/9"},
        {"segment": "elsewhere"},
    ):  # fmt: skip
        exported(lived_in, **changes)
    assert held(lived_in.store, lived_in.settings.home, EVE).exports == ()
    exported(lived_in, since=NOW - day, until=NOW + day, model_version="router/1")
    assert len(held(lived_in.store, lived_in.settings.home, EVE).exports) == 1


def test_an_admin_forgets_a_user_by_typing_the_id_again(lived_in):
    browser = lived_in.signed_in("admin", "ada")
    found(browser)
    asked = {"user": EVE, "again": EVE, "reason": "request 31"}
    for wrong in ({"again": "eve"}, {"reason": " "}, {"reason": f"{EVE} asked"}, {"user": ""}):
        assert browser.post("/users/forget", **(asked | wrong)).status_code == 422
    assert lived_in.store.records(Erasure) == ()
    answer = browser.post("/users/forget", **asked)
    assert answer.status_code == 200
    assert "1 interactions" in answer.text
    assert "router/2" in answer.text
    (erasure,) = lived_in.store.records(Erasure)
    assert erasure.state == "done"
    entry = lived_in.store.latest(AuditEntry)
    assert (entry.by, entry.action, entry.outcome) == ("ada", "forget user", "done")
    assert (entry.about, entry.reason) == (digest_of(EVE)[:16], "request 31")
    left = everything(lived_in.store)
    assert "Ramses" not in left
    assert EVE not in left
    assert digest_of(EVE)[:16] in browser.get("/users").text
    assert "Nothing is held" in found(browser)


def test_an_id_stands_in_no_address_and_a_look_is_in_the_audit(lived_in):
    browser = lived_in.signed_in("engineer", "bea")
    page = browser.get("/users").text
    assert 'method="post" action="/users"' in page
    found(browser)
    entry = lived_in.store.latest(AuditEntry)
    assert (entry.action, entry.about) == ("look up user", digest_of(EVE)[:16])
    assert EVE not in str([one.canonical() for one in lived_in.store.records(AuditEntry)])


@pytest.mark.parametrize("role", ["viewer", "reviewer"])
def test_who_releases_nothing_sees_no_user(lived_in, role):
    browser = lived_in.signed_in(role)
    assert browser.get("/users").status_code == 403
    assert browser.post("/users", user=EVE).status_code == 403


def test_an_engineer_forgets_nobody(lived_in):
    browser = lived_in.signed_in("engineer")
    asked = {"user": EVE, "again": EVE, "reason": "request 31"}
    assert browser.post("/users/forget", **asked).status_code == 403
    assert lived_in.audit()[-1] == ("engineer", "refused", "refused")
    assert lived_in.store.records(Erasure) == ()
