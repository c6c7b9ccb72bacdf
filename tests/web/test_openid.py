"""Log-in by OpenID Connect, with a provider of its own on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from ratchet.web.accounts import new_account
from tests.web.conftest import Site

mock = pytest.importorskip("oidc_provider_mock", reason="needs oidc-provider-mock")
ADA, EVE = "ada@example.com", "eve@example.com"


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    users = [
        mock.User(sub="1", claims={"email": ADA, "email_verified": True}),
        mock.User(sub="2", claims={"email": EVE, "email_verified": False}),
    ]
    with mock.run_server_in_thread(user_claims=users) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture
def told(served, issuer, clock):
    """The pages with this provider, by a clock that its tokens agree with."""

    def make(**options) -> Site:
        from datetime import UTC, datetime

        clock.now = datetime.now(UTC)
        openid = {"issuer": issuer, "client_id": "ratchet", "client_secret": "s3cret"}
        return served(openid=openid, **options)

    return make


def returned(browser, subject: str, target: str = "/you") -> str:
    """Begin a log-in, have the provider confirm who it is, and return the path that it leads to."""
    start = browser.get(f"/openid/start?next={target}")
    assert start.status_code == 303
    answer = httpx.post(start.headers["location"], data={"sub": subject})
    assert answer.status_code in (302, 303), answer.text
    parts = urlsplit(answer.headers["location"])
    return f"{parts.path}?{parts.query}"


def test_who_is_new_gets_an_account_of_the_role_of_newcomers(told):
    site = told(newcomers="viewer")
    browser = site.browser()
    answer = browser.get(returned(browser, "1"))
    assert (answer.status_code, answer.headers["location"]) == (303, "/you")
    assert browser.get("/you").status_code == 200
    (account,) = site.store.accounts()
    assert (account.name, account.role, account.password_hash) == (ADA, "viewer", None)
    again = site.browser()
    assert again.get(returned(again, "1")).status_code == 303
    assert len(site.store.accounts()) == 1
    assert site.audit()[-1] == (ADA, "log-in by OpenID Connect", "done")


def test_nobody_new_comes_in_where_no_role_is_stated(told):
    site = told()
    browser = site.browser()
    assert browser.get(returned(browser, "1")).status_code == 403
    assert site.store.accounts() == ()
    assert site.audit() == [(ADA, "log-in by OpenID Connect", "refused")]


def test_an_account_that_an_admin_made_is_opened_with_its_role(told):
    site = told()
    site.store.add_account(new_account(ADA, "engineer", now=site.clock.now))
    browser = site.browser()
    assert browser.get(returned(browser, "1")).status_code == 303
    assert browser.get("/audit").status_code == 200


def test_an_account_with_a_password_is_not_taken_over_by_its_name(told):
    site = told(newcomers="viewer")
    site.account(ADA, "admin")
    browser = site.browser()
    assert browser.get(returned(browser, "1")).status_code == 403
    assert browser.get("/you").status_code == 303


def test_an_address_that_the_provider_has_not_verified_names_nobody(told):
    site = told(newcomers="viewer")
    browser = site.browser()
    assert browser.get(returned(browser, "2")).status_code == 403
    assert site.store.accounts() == ()


def test_a_disabled_account_stays_out(told):
    site = told(newcomers="viewer")
    browser = site.browser()
    browser.get(returned(browser, "1"))
    site.store.change_account(site.store.accounts()[0].id, disabled=True)
    other = site.browser()
    assert other.get(returned(other, "1")).status_code == 403


def test_a_log_in_that_another_browser_began_is_refused(told):
    site = told(newcomers="viewer")
    attacker, victim = site.browser(), site.browser()
    path = returned(attacker, "1")
    victim.get("/log-in")
    assert victim.get(path).status_code == 403
    assert victim.get("/you").status_code == 303


def test_a_code_of_another_browser_opens_nothing_even_under_ones_own_state(told):
    site = told(newcomers="viewer")
    attacker, victim = site.browser(), site.browser()
    stolen = parse_qs(urlsplit(returned(victim, "1")).query)["code"][0]
    own = parse_qs(urlsplit(returned(attacker, "2")).query)["state"][0]
    answer = attacker.client.get("/openid/callback", params={"code": stolen, "state": own})
    assert answer.status_code == 403
    assert attacker.get("/you").status_code == 303


def test_a_log_in_leads_to_no_other_site(told):
    site = told(newcomers="viewer")
    browser = site.browser()
    answer = browser.get(returned(browser, "1", target="https://evil.example/"))
    assert answer.headers["location"] == "/"


def test_without_the_provider_a_log_in_says_that_it_does_not_answer(served):
    site = served(openid={"issuer": "http://127.0.0.1:9", "client_id": "ratchet"})
    answer = site.browser().get("/openid/start")
    assert answer.status_code == 403
    assert "does not answer" in answer.text
