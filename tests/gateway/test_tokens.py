"""Tokens tie feedback to an answer and its user, for a while; their secret can be changed."""

from __future__ import annotations

import stat

import pytest

from ratchet.errors import InvalidInputError
from ratchet.gateway.tokens import (
    DAY,
    TokenError,
    Tokens,
    is_of_a_gateway,
    load_secret,
    rotate,
    share_secret,
    unsigned_token,
)

NOW = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def started(folder, clock, **options):
    return Tokens(folder, clock=clock, **options)


def test_a_token_is_of_one_answer_and_one_user(tmp_path, clock):
    tokens = started(tmp_path, clock)
    token = tokens.issue("a", "ana")
    assert tokens.check("a", token, None)
    assert tokens.check("a", token, "ana")
    for key, given, user in (
        ("b", token, None),
        ("a", token, "ben"),
        ("a", tokens.issue("a", "ben"), "ana"),
        ("a", token[:-1] + ("A" if token[-1] != "A" else "B"), None),
        ("a", token.upper(), None),
        ("a", "", None),
        ("a", "2...", None),
        ("a", "ü" * 40, None),
        ("a", "\ud800.\ud800.\ud800.\ud800", None),
    ):
        with pytest.raises(TokenError):
            tokens.check(key, given, user)
    assert "ana" not in token


def test_the_time_and_user_in_a_token_cannot_be_changed(tmp_path, clock):
    tokens = started(tmp_path, clock)
    form, issued, user, mac = tokens.issue("a", "ana").split(".")
    other = tokens.issue("a", "ben").split(".")[2]
    for forged in (f"{form}.{int(NOW + DAY):x}.{user}.{mac}", f"{form}.{issued}.{other}.{mac}"):
        with pytest.raises(TokenError, match="another"):
            tokens.check("a", forged, None)


def test_a_token_has_an_age(tmp_path, clock):
    tokens = started(tmp_path, clock, days=7)
    token = tokens.issue("a", "ana")
    clock.now = NOW + 7 * DAY
    assert tokens.check("a", token, None)
    clock.now += 1
    with pytest.raises(TokenError, match="at most 7 days old"):
        tokens.check("a", token, None)


def test_a_token_of_a_clock_far_ahead_is_refused(tmp_path, clock):
    tokens = started(tmp_path, clock)
    clock.now = NOW + DAY
    token = tokens.issue("a", "ana")
    clock.now = NOW
    with pytest.raises(TokenError):
        tokens.check("a", token, None)


def test_what_an_old_secret_signed_is_accepted_for_the_stated_time(tmp_path, clock):
    before = started(tmp_path, clock)
    token, key = before.issue("a", "ana"), before.new_id("shop")
    rotate(tmp_path, accept_seconds=3 * DAY, now=NOW)
    after = started(tmp_path, clock)
    assert after.issue("a", "ana") != token
    assert after.check("a", token, "ana")
    assert after.is_of(key, "shop")
    clock.now = NOW + 3 * DAY + 1
    with pytest.raises(TokenError):
        after.check("a", token, "ana")
    assert not after.is_of(key, "shop")


def test_a_running_gateway_takes_up_a_new_secret(tmp_path, clock, monkeypatch):
    running = started(tmp_path, clock)
    monkeypatch.setattr("ratchet.gateway.tokens._LOOKED_SECONDS", -1.0)  # its second is over
    token = running.issue("a", "ana")
    rotate(tmp_path, accept_seconds=0.0, now=NOW)
    with pytest.raises(TokenError):
        running.check("a", token, None)
    assert started(tmp_path, clock).check("a", running.issue("a", "ana"), "ana")


def test_secrets_of_long_ago_are_deleted_and_the_others_are_their_owners(tmp_path, clock):
    for number in range(4):
        rotate(tmp_path, accept_seconds=DAY, now=NOW + number * 0.6 * DAY)
    kept = sorted(tmp_path.glob("secret-until-*"))
    assert len(kept) == 2
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in kept)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert len({path.read_bytes() for path in [*kept, tmp_path / "secret"]}) == 3


def test_tokens_of_the_form_before_are_accepted_for_thirty_days_after_the_upgrade(tmp_path, clock):
    (tmp_path / "secret").write_bytes(b"x" * 32)  # as the version before left it
    tokens = started(tmp_path, clock)
    old = unsigned_token(b"x" * 32, "a")
    assert tokens.check("a", old, None) is False  # it does not say whose it is
    with pytest.raises(TokenError):
        tokens.check("b", old, None)
    clock.now = NOW + 29 * DAY
    assert started(tmp_path, clock).check("a", old, None) is False
    clock.now = NOW + 31 * DAY
    with pytest.raises(TokenError):
        started(tmp_path, clock).check("a", old, None)


def test_a_new_home_accepts_no_token_of_the_form_before(tmp_path, clock):
    tokens = started(tmp_path, clock)
    with pytest.raises(TokenError):
        tokens.check("a", unsigned_token(load_secret(tmp_path), "a"), None)


def test_an_id_names_its_application_to_who_has_the_secret(tmp_path, clock):
    tokens = started(tmp_path, clock)
    key = tokens.new_id("shop")
    assert is_of_a_gateway(key)
    assert tokens.is_of(key, "shop")
    assert not tokens.is_of(key, "bank")
    assert not tokens.is_of(key[:-1] + ("0" if key[-1] != "0" else "1"), "shop")
    assert not started(tmp_path / "other", clock).is_of(key, "shop")
    assert len({tokens.new_id("shop") for _ in range(100)}) == 100


def test_gateways_on_several_hosts_accept_each_others_tokens_by_a_shared_secret(tmp_path, clock):
    alone = started(tmp_path / "a", clock)
    old = alone.issue("a", "ana")
    for host in ("a", "b"):
        share_secret(tmp_path / host, "s" * 40, accept_seconds=3 * DAY, now=NOW)
    first, second = started(tmp_path / "a", clock), started(tmp_path / "b", clock)
    token, key = first.issue("b", "ben"), first.new_id("shop")
    assert second.check("b", token, "ben")
    assert second.is_of(key, "shop")
    assert first.check("a", old, "ana")  # what it signed alone holds on
    with pytest.raises(TokenError):
        second.check("a", old, "ana")
    kept = {path.name for path in (tmp_path / "a").iterdir()}
    share_secret(tmp_path / "a", "s" * 40, accept_seconds=DAY, now=NOW + 60)  # started again
    assert {path.name for path in (tmp_path / "a").iterdir()} == kept
    assert stat.S_IMODE((tmp_path / "b" / "secret").stat().st_mode) == 0o600


def test_a_shared_secret_is_replaced_on_all_hosts_without_losing_tokens(tmp_path, clock):
    share_secret(tmp_path, "s" * 40, accept_seconds=DAY, now=NOW)
    token = started(tmp_path, clock).issue("a", "ana")
    share_secret(tmp_path, "t" * 40, accept_seconds=DAY, now=NOW)
    assert started(tmp_path, clock).check("a", token, "ana")
    clock.now = NOW + DAY + 1
    with pytest.raises(TokenError):
        started(tmp_path, clock).check("a", token, "ana")


@pytest.mark.parametrize("secret", ["", "x", "short but not long enough for it"[:31]])
def test_a_short_shared_secret_is_refused(tmp_path, secret):
    with pytest.raises(InvalidInputError, match="at least 32 characters"):
        share_secret(tmp_path, secret, accept_seconds=DAY, now=NOW)
    assert not list(tmp_path.iterdir())
