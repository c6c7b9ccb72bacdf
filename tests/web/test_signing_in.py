"""Log-in, log-out, one-time links, limits, and what the audit keeps of them."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest

from ratchet.errors import ConflictError, InvalidInputError
from ratchet.records.accounts import AuditEntry
from ratchet.web.accounts import accept, digest_of, hash_password, invite, new_account
from ratchet.web.people import COOKIE
from ratchet.web.signing_in import local_path
from ratchet.web.visitors import HEADERS
from tests.web.conftest import PASSWORD, QUICK

PAGES = ("/you", "/audit", "/accounts")


def test_who_is_signed_in_is_told_so_on_the_page_of_log_in(site):
    browser = site.signed_in("viewer", "vera")
    text = browser.get("/log-in").text
    assert "You are signed in as vera" in text
    assert "Nobody has an account" not in text


def test_without_accounts_this_machine_may_do_everything_and_the_page_says_so(site):
    answer = site.browser().get("/accounts")
    assert answer.status_code == 200
    assert "Nobody has an account yet" in answer.text


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "via", "x-real-ip"])
def test_what_a_proxy_passed_on_did_not_come_from_this_machine(site, header):
    assert site.browser().get("/accounts", headers={header: "10.0.0.9"}).status_code == 303


def test_without_accounts_another_machine_has_to_sign_in(site):
    assert site.browser("10.0.0.9").get("/you").status_code == 303


def test_once_somebody_has_an_account_this_machine_has_to_sign_in(site):
    site.account("ada", "admin")
    for path in PAGES:
        answer = site.browser().get(path)
        assert answer.status_code == 303, path
        assert answer.headers["location"] == f"/log-in?next={path.replace('/', '%2F')}"


def test_a_disabled_account_does_not_open_the_pages_to_everybody(site):
    ada = site.account("ada", "admin")
    site.store.change_account(ada.id, disabled=True)
    assert site.browser().get("/you").status_code == 303


def test_name_and_password_open_a_session_and_lead_back_to_the_page(site):
    site.account("Ada", "engineer")
    browser = site.browser()
    answer = browser.log_in("ada", next="/audit")
    assert (answer.status_code, answer.headers["location"]) == (303, "/audit")
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "SameSite=Lax" in answer.headers["set-cookie"]
    assert browser.get("/audit").status_code == 200
    assert site.audit() == [("Ada", "log-in", "done")]


@pytest.mark.parametrize(("name", "password"), [("ada", "wrong password"), ("bob", PASSWORD)])
def test_a_wrong_password_and_a_name_of_nobody_are_refused_in_the_same_words(site, name, password):
    site.account("ada", "viewer")
    answer = site.browser().log_in(name, password)
    assert answer.status_code == 401
    assert "Name and password do not belong together" in answer.text
    assert site.audit() == [(name, "log-in", "refused")]


def test_an_account_without_a_password_is_opened_by_none(site):
    site.store.add_account(new_account("ada", "viewer", now=site.clock.now))
    assert site.browser().log_in("ada", "").status_code == 401


def test_a_disabled_account_is_out_at_once(site):
    browser = site.signed_in("viewer", "ada")
    site.store.change_account(site.store.accounts()[0].id, disabled=True)
    assert browser.get("/you").status_code == 303
    assert site.browser().log_in("ada").status_code == 401


def test_a_session_ends_after_its_hours(served):
    site = served(session_hours=2.0)
    browser = site.signed_in("viewer", "ada")
    site.clock.pass_(minutes=119)
    assert browser.get("/you").status_code == 200
    site.clock.pass_(minutes=1)
    assert browser.get("/you").status_code == 303


def test_logging_out_ends_the_session_for_whoever_has_its_cookie(site):
    browser = site.signed_in("viewer", "ada")
    secret = browser.client.cookies[COOKIE]
    assert browser.post("/log-out").status_code == 303
    thief = site.browser()
    thief.client.cookies.set(COOKIE, secret)
    assert thief.get("/you").status_code == 303
    assert site.audit()[-1] == ("ada", "log-out", "done")


def test_signing_in_gives_a_new_secret_and_the_store_keeps_its_hash_alone(site):
    site.account("ada", "viewer")
    browser = site.browser()
    browser.get("/log-in")
    before = browser.client.cookies[COOKIE]
    browser.log_in("ada")
    after = browser.client.cookies[COOKIE]
    assert before != after
    assert site.store.token(digest_of(after), "session", now=site.clock.now) is not None
    home = site.settings.home
    assert all(after.encode() not in path.read_bytes() for path in home.glob("store.db*"))


def test_a_password_is_kept_as_argon2_with_a_salt_of_its_own():
    first, second = hash_password(PASSWORD), hash_password(PASSWORD)
    assert first.startswith("$argon2id$")
    assert first != second


@pytest.mark.parametrize("password", ["eleven char", "x" * 1_001])
def test_a_password_of_too_few_or_many_characters_is_refused(password):
    with pytest.raises(InvalidInputError, match="12 to 1,000 characters"):
        hash_password(password)


# Limits -------------------------------------------------------------------------------------------


def test_too_many_attempts_from_an_address_are_refused_and_it_may_try_again_later(site):
    site.account("ada", "viewer")
    browser = site.browser()
    shared = site.app.state.pages
    seconds = 0.0
    shared.tries.clock = lambda: seconds
    codes = [browser.log_in(f"name-{n}", "x").status_code for n in range(12)]
    assert codes == [401] * 10 + [429] * 2
    assert browser.log_in("ada").status_code == 429
    seconds = 10.0
    assert browser.log_in("ada").status_code == 303


def test_too_many_attempts_for_a_name_are_refused_wherever_they_come_from(site):
    browser = site.browser()
    shared = site.app.state.pages
    shared.named_tries.most = 3.0
    codes = [
        site.browser(f"10.0.{n}.1").log_in("ada" if n % 2 else "ADA ", "x").status_code
        for n in range(5)
    ]
    assert codes == [401, 401, 401, 429, 429]
    assert browser.log_in("bob", "x").status_code == 401


# Forged requests ----------------------------------------------------------------------------------


def test_a_form_without_the_token_of_its_browser_changes_nothing(site):
    browser, other = site.signed_in("admin", "ada"), site.signed_in("admin", "eve")
    for token in ("", "0" * 64, other.token):
        browser.token = token
        assert browser.post("/accounts", name="bob", role="admin").status_code == 403
    assert {one.name for one in site.store.accounts()} == {"ada", "eve"}


def test_a_form_of_another_origin_is_refused_even_with_its_token(site):
    browser = site.signed_in("admin", "ada")
    headers = {"origin": "https://evil.example"}
    fields = {"token": browser.token, "name": "bob", "role": "admin"}
    answer = browser.client.post("/accounts", data=fields, headers=headers)
    assert answer.status_code == 403
    assert len(site.store.accounts()) == 1


def test_a_name_that_was_bound_to_this_machine_is_refused(site):
    answer = site.browser().get("/you", headers={"host": "rebound.example"})
    assert answer.status_code == 403


def test_a_body_that_is_no_form_is_refused(site):
    browser = site.signed_in("admin", "ada")
    answer = browser.client.post(
        "/accounts", content=json.dumps({"name": "bob"}), headers={"content-type": "text/plain"}
    )
    assert answer.status_code == 403


@pytest.mark.parametrize("path", ["/log-in", "/you", "/nothing-here", "/static/pages.css"])
def test_every_answer_carries_the_security_headers(site, path):
    answer = site.browser().get(path)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "unsafe" not in answer.headers["content-security-policy"]


def test_over_https_the_cookie_is_for_https_alone(served):
    site = served(address="https://ratchet.example")
    answer = site.browser().get("/log-in")
    assert "Secure" in answer.headers["set-cookie"]
    assert "max-age" in answer.headers["strict-transport-security"]


@pytest.mark.parametrize(
    "target",
    ["https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil", "javascript:x", "",
     "/\t/evil.example", "/\n//evil"],
)  # fmt: skip
def test_signing_in_leads_to_no_other_site(target):
    assert local_path(target) == "/"


def test_signing_in_leads_to_a_page_with_its_query():
    assert local_path("/charts?signal=stars") == "/charts?signal=stars"


# One-time links -----------------------------------------------------------------------------------


def test_the_first_link_makes_the_first_admin_once(site):
    path = f"/welcome/{invite(site.store, None, now=site.clock.now)}"
    browser = site.browser("10.0.0.9")
    assert "first admin" in browser.get(path).text
    answer = browser.post(path, name="ada", password=PASSWORD, again=PASSWORD)
    assert answer.status_code == 303
    assert browser.get("/accounts").status_code == 200
    (ada,) = site.store.accounts()
    assert (ada.name, ada.role) == ("ada", "admin")
    again = site.browser()
    assert again.get(path).status_code == 409
    assert site.audit() == [("ada", "one-time link", "done")]


def test_a_later_link_for_the_first_admin_ends_the_one_before(site):
    first = invite(site.store, None, now=site.clock.now)
    invite(site.store, None, now=site.clock.now)
    assert site.browser().get(f"/welcome/{first}").status_code == 409


def test_a_link_for_the_first_admin_is_over_once_somebody_has_an_account(site):
    secret = invite(site.store, None, now=site.clock.now)
    site.account("ada", "viewer")
    with pytest.raises(ConflictError):
        accept(site.store, secret, "eve", PASSWORD, now=site.clock.now)
    assert [one.name for one in site.store.accounts()] == ["ada"]


def test_a_link_is_over_after_its_time(site):
    secret = invite(site.store, None, now=site.clock.now)
    site.clock.pass_(hours=24)
    assert site.browser().get(f"/welcome/{secret}").status_code == 409


def test_two_passwords_that_differ_leave_the_link_good(site):
    path = f"/welcome/{invite(site.store, None, now=site.clock.now)}"
    browser = site.browser()
    browser.get(path)
    answer = browser.post(path, name="ada", password=PASSWORD, again="another password")
    assert answer.status_code == 422
    assert browser.post(path, name="ada", password=PASSWORD, again=PASSWORD).status_code == 303


def test_an_admin_adds_somebody_who_sets_a_password_by_the_link(site):
    admin = site.signed_in("admin", "ada")
    page = admin.post("/accounts", name="Bob", role="reviewer")
    path = urlsplit(page.text.partition('<code class="long">')[2].partition("<")[0]).path
    bob = site.browser()
    assert "Welcome, Bob" in bob.get(path).text
    assert bob.post(path, password=PASSWORD, again=PASSWORD).status_code == 303
    assert bob.get("/accounts").status_code == 403
    assert bob.get("/you").status_code == 200


def test_a_new_password_ends_the_sessions_that_the_old_one_opened(site):
    browser = site.signed_in("viewer", "ada")
    (ada,) = site.store.accounts()
    secret = invite(site.store, ada, now=site.clock.now)
    accept(site.store, secret, "", "another password", now=site.clock.now, hasher=QUICK)
    assert browser.get("/you").status_code == 303


# Hostile strings ----------------------------------------------------------------------------------


def test_a_name_that_was_typed_is_shown_and_kept_as_text(site):
    site.account("ada", "viewer")
    name = "<script>alert(1)</script>\x00\ud800"
    browser = site.browser()
    browser.get("/log-in")
    answer = browser.client.post(
        "/log-in",
        content=b"token=" + browser.token.encode() + b"&password=x&name=%3Cscript%3Ealert(1)"
        b"%3C/script%3E%00%ED%A0%80",
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code == 401
    assert name[:25] not in answer.text
    (entry,) = site.store.records(AuditEntry)
    assert entry.by.startswith("<script>alert(1)</script>\u2400")
