"""Derived signals are switched off and on by a person, with the effect of the setting."""

from __future__ import annotations

import pytest

from ratchet.collect.derived import kinds_off
from ratchet.records import SignalSwitch
from ratchet.store.following import switched_off


def test_a_signal_is_switched_off_and_on_with_reason_and_name(site):
    browser = site.signed_in("engineer", "eve")
    browser.get("/signals")
    assert browser.post("/signals/left/off", reason=" ").status_code == 422
    assert browser.post("/signals/left/off", reason="robots leave").status_code == 303
    page = browser.get("/signals").text
    assert "by eve: robots leave" in page
    assert 'action="/signals/left/on"' in page
    assert set(switched_off(site.store)) == {"left"}
    assert kinds_off(site.store, ["edited"]) == {"left", "edited"}
    assert browser.post("/signals/left/off", reason="again").status_code == 422
    site.clock.pass_(minutes=1)
    assert browser.post("/signals/left/on", reason="no robots now").status_code == 303
    assert switched_off(site.store) == {}
    assert [entry[1:] for entry in site.audit()[-2:]] == [
        ("switch signal off", "done"), ("switch signal on", "done"),
    ]  # fmt: skip
    assert [one.note for one in site.store.records(SignalSwitch)] == [
        "robots leave", "no robots now",
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["/signals/charm/off", "/signals/left/maybe"])
def test_what_is_no_signal_or_no_state_is_refused(site, path):
    browser = site.signed_in("engineer")
    assert browser.post(path, reason="why not").status_code == 422


def test_what_the_setting_leaves_out_is_said_and_not_switched_on(site):
    site.settings = site.settings.model_copy(update={"not_derived": ("left",)})
    browser = site.signed_in("engineer")
    page = browser.get("/signals").text
    assert "RATCHET_NOT_DERIVED" in page
    assert 'action="/signals/left/' not in page
    assert browser.post("/signals/left/on", reason="I want it").status_code == 422


def test_a_viewer_sees_the_signals_and_switches_none(site):
    browser = site.signed_in("viewer")
    assert "Quality takes it as regenerate" in browser.get("/signals").text
    assert browser.post("/signals/left/off", reason="x").status_code == 403
    assert switched_off(site.store) == {}
