"""Roles, proxies that sign people in, and who keeps accounts."""

from __future__ import annotations

import pytest

from ratchet.errors import InvalidInputError
from ratchet.records.accounts import PAGE_ROLES
from ratchet.web.accounts import change_role, disable
from ratchet.web.options import PagesOptions, read_options
from ratchet.web.people import Person

PROXY = {"header": "X-Forwarded-User", "addresses": ["10.0.0.0/24"]}


@pytest.mark.parametrize("place", range(4))
def test_a_role_may_do_what_those_before_it_may(place):
    person = Person("ada", PAGE_ROLES[place], "session", "")
    assert [person.may(role) for role in PAGE_ROLES] == [n <= place for n in range(4)]


@pytest.mark.parametrize(
    ("role", "codes"),
    [("viewer", [403, 403]), ("reviewer", [403, 403]), ("engineer", [200, 403]),
     ("admin", [200, 200])],
)  # fmt: skip
def test_each_role_sees_the_pages_that_it_needs(site, role, codes):
    browser = site.signed_in(role)
    assert [browser.get(path).status_code for path in ("/audit", "/accounts")] == codes
    assert ('href="/accounts"' in browser.get("/you").text) == (role == "admin")


def test_an_action_above_a_role_is_refused_and_kept_in_the_audit(site):
    browser = site.signed_in("engineer", "eve")
    assert browser.post("/accounts", name="bob", role="admin").status_code == 403
    assert site.audit()[-1] == ("eve", "refused", "refused")
    assert len(site.store.accounts()) == 1


# Behind a proxy -----------------------------------------------------------------------------------


def test_a_proxy_of_a_stated_address_names_who_it_is(served):
    site = served(proxy=PROXY)
    site.account("ada", "engineer")
    browser = site.browser("10.0.0.7")
    assert browser.get("/audit", headers={"x-forwarded-user": "ada"}).status_code == 200


@pytest.mark.parametrize("address", ["10.0.1.7", "127.0.0.1", "::1", "testclient"])
def test_the_header_means_nothing_from_another_address(served, address):
    site = served(proxy=PROXY, newcomers="admin")
    site.account("ada", "engineer")
    answer = site.browser(address).get("/audit", headers={"x-forwarded-user": "ada"})
    assert answer.status_code == 303


def test_the_header_of_a_browser_beside_that_of_the_proxy_is_refused(served):
    site = served(proxy=PROXY)
    site.account("ada", "engineer")
    site.account("root", "admin")
    headers = [("x-forwarded-user", "root"), ("x-forwarded-user", "ada")]
    assert site.browser("10.0.0.7").get("/audit", headers=headers).status_code == 403


def test_an_ipv4_proxy_is_known_on_an_ipv6_socket(served):
    site = served(proxy=PROXY)
    site.account("ada", "engineer")
    browser = site.browser("::ffff:10.0.0.7")
    assert browser.get("/audit", headers={"x-forwarded-user": "ada"}).status_code == 200


def test_who_is_new_gets_the_role_of_newcomers_or_is_refused(served):
    headers = {"x-forwarded-user": "new@example.com"}
    site = served(proxy=PROXY)
    assert site.browser("10.0.0.7").get("/you", headers=headers).status_code == 403
    site.app = None
    site = served(proxy=PROXY, newcomers="viewer")
    assert site.browser("10.0.0.7").get("/you", headers=headers).status_code == 200
    assert [(one.name, one.role) for one in site.store.accounts()] == [
        ("new@example.com", "viewer")
    ]
    assert site.audit() == [("new@example.com", "first sign-in", "done")]


def test_a_disabled_account_is_refused_behind_the_proxy_too(served):
    site = served(proxy=PROXY, newcomers="viewer")
    ada = site.account("ada", "engineer")
    site.store.change_account(ada.id, disabled=True)
    answer = site.browser("10.0.0.7").get("/you", headers={"x-forwarded-user": "ada"})
    assert answer.status_code == 403


def test_behind_a_proxy_this_machine_is_not_open(served):
    assert served(proxy=PROXY).browser().get("/you").status_code == 303


# Keeping accounts ---------------------------------------------------------------------------------


def test_the_last_admin_is_neither_disabled_nor_given_another_role(site):
    ada = site.account("ada", "admin")
    site.account("bob", "engineer")
    for step in (disable, lambda s, a: change_role(s, a, "viewer")):
        with pytest.raises(InvalidInputError, match="last admin"):
            step(site.store, ada)
    assert site.store.account(ada.id) == ada


def test_an_admin_changes_roles_and_the_next_page_knows(site):
    admin, bob = site.signed_in("admin", "ada"), site.signed_in("viewer", "bob")
    account = next(one for one in site.store.accounts() if one.name == "bob")
    assert admin.post(f"/accounts/{account.id}/role", role="engineer").status_code == 303
    assert bob.get("/audit").status_code == 200
    assert admin.post(f"/accounts/{account.id}/role", role="owner").status_code == 422


def test_disabling_needs_a_reason_and_is_kept_with_it(site):
    admin, _ = site.signed_in("admin", "ada"), site.signed_in("viewer", "bob")
    account = next(one for one in site.store.accounts() if one.name == "bob")
    assert admin.post(f"/accounts/{account.id}/disable", reason=" ").status_code == 422
    assert admin.post(f"/accounts/{account.id}/disable", reason="left").status_code == 303
    assert site.store.account(account.id).disabled
    assert admin.post(f"/accounts/{account.id}/enable").status_code == 303
    assert not site.store.account(account.id).disabled
    assert [entry[1] for entry in site.audit()[-2:]] == ["disable account", "enable account"]


def test_a_name_is_taken_once_whatever_its_case(site):
    admin = site.signed_in("admin", "ada")
    assert admin.post("/accounts", name="ADA", role="viewer").status_code == 409


# The file of options ------------------------------------------------------------------------------


def test_without_a_file_the_defaults_hold():
    assert read_options(None, {}) == PagesOptions()


def test_a_file_says_how_pages_are_served(tmp_path):
    path = tmp_path / "pages.yaml"
    path.write_text(
        "host: 0.0.0.0\naddress: https://Ratchet.example/\nnewcomers: viewer\n"
        "proxy: {header: X-Forwarded-User, addresses: [10.0.0.0/24]}\n"
        "openid: {issuer: 'https://id.example', client_id: ratchet}\n",
        "utf-8",
    )
    options = read_options(path, {"RATCHET_OPENID_SECRET": "s3cret"})
    assert options.address == "https://ratchet.example"
    assert options.openid is not None
    assert options.openid.client_secret == "s3cret"
    assert "s3cret" not in repr(options)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("newcomers: owner\n", "newcomers"),
        ("adress: https://x\n", "adress"),
        ("address: ratchet.example\n", "a scheme and a host"),
        ("proxy: {header: X-User, addresses: []}\n", "addresses"),
        ("proxy: {header: X-User, addresses: [everywhere]}\n", "addresses"),
        ("session_hours: .inf\n", "session_hours"),
        ("openid: {issuer: x, client_id: y}\n", "issuer"),
        ("openid: {issuer: 'https://x', client_id: y, client_secret: z}\n", "secret"),
    ],
)
def test_a_file_that_says_something_else_is_refused_with_the_rule(tmp_path, text, said):
    path = tmp_path / "pages.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(InvalidInputError, match=said):
        read_options(path, {})
