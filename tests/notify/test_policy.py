"""The policy file: strict, and no secret stands in it or in what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchet.errors import InvalidInputError, SettingsError
from ratchet.notify.channels import address_channels, open_channels
from ratchet.notify.outgoing import Routes
from ratchet.notify.policy import AlertPolicy, load_policy

GOOD = """
channels:
  team: {type: slack, url: RATCHET_SLACK_SECRET}
  duty:
    type: mail
    host: smtp.example.org
    user: ratchet
    password: RATCHET_SMTP_PASSWORD
    from: ratchet@example.org
    to: [ada@example.org]
  desk: {type: webhook, url: "https://desk.example.org/hook", secret: RATCHET_DESK_SECRET}
  phone: {type: apprise, url: RATCHET_PHONE_SECRET}
routes:
  - {name: urgent, severity: critical, to: [team, duty, phone], repeat_hours: 1}
  - {name: rest, to: [team], repeat_hours: 24}
  - {name: clusters, kinds: [cluster], to: [desk]}
  - {name: week, kinds: [weekly], to: [duty]}
reminders: {approval_hours: 2}
"""


def read(folder: Path, text: str) -> AlertPolicy:
    path = folder / "alerts.yaml"
    path.write_text(text, "utf-8")
    return load_policy(path)


def test_routes_by_severity_and_kind(tmp_path: Path) -> None:
    routes = Routes.of(read(tmp_path, GOOD), [])
    assert routes.told("board", "critical") == ["team", "duty", "phone"]
    assert routes.told("board", "warning") == ["team"]
    assert routes.told("cluster", "warning") == ["team", "desk"]
    assert routes.told("approval", "warning") == ["team"]
    assert routes.told("weekly", "warning") == ["duty"]


def test_without_a_file_the_addresses_are_told_of_every_alert_and_of_nothing_else() -> None:
    channels = address_channels(["json://127.0.0.1/a", "json://127.0.0.1/b"])
    routes = Routes.of(load_policy(None), channels)
    assert routes.told("rollout", "warning") == [one.key for one in channels]
    assert routes.told("approval", "warning") == []
    assert routes.told("weekly", "warning") == []


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("chanels: {}", "chanels: there is no such name"),
        (
            "routes: [{name: a, to: [nobody]}]",
            "the route a must lead to channels of this file, got",
        ),
        ("channels: {a: {type: slack, url: RATCHET_SLACK}}", "channels.a.url: a secret must stand"),
        (
            "channels: {a: {type: slack, url: 'https://hooks.slack.com/services/T0SECRET'}}",
            "channels.a.url: a secret must stand in a variable",
        ),
        ("channels: {a: {type: fax}}", "channels.a"),
        ("channels: {A B: {type: slack, url: MY_SECRET}}", "channels"),
        (
            "channels: {a: {type: webhook, url: 'http://desk.example/T0SECRET', secret: MY_KEY}}",
            "channels.a.url: an address must begin with https://",
        ),
        (
            "channels: {a: {type: webhook, url: 'https://u:T0SECRET@h/', secret: MY_KEY}}",
            "an address must hold no name and no password",
        ),
        (
            "channels: {a: {type: mail, host: smtp.example, tls: none, from: a@b, to: [c@d]}}",
            "mail must be encrypted beyond this machine",
        ),
        (
            "channels: {a: {type: mail, host: h, user: u, from: a@b, to: [c@d]}}",
            "user and password go together",
        ),
        (
            "channels: {a: {type: mail, host: h, from: 'a@b\\nBcc: x', to: [c@d]}}",
            "an address must look like ada@example.org",
        ),
        ("channels: {a: {type: mail, host: h, from: a@b, to: []}}", "at least 1 item"),
        (
            "channels: {a: {type: slack, url: MY_KEY}}\n"
            "routes: [{name: r, to: [a], kinds: [boards]}]",
            "a kind must be one of board, threshold",
        ),
        (
            "channels: {a: {type: slack, url: MY_KEY}}\n"
            "routes: [{name: r, to: [a]}, {name: r, to: [a]}]",
            "routes must have names of their own, got r twice",
        ),
        (
            "channels: {a: {type: slack, url: MY_KEY}}\n"
            "routes: [{name: r, to: [a], repeat_hours: .inf}]",
            "routes.0.repeat_hours",
        ),
        ("reminders: {approval_hours: 0}", "reminders.approval_hours"),
    ],
)
def test_a_broken_policy_says_where_and_shows_no_secret(
    tmp_path: Path, broken: str, said: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read(tmp_path, broken)
    assert said in str(refused.value)
    assert str(refused.value).startswith("alerts.yaml: ")
    assert "T0SECRET" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_every_broken_rule_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read(tmp_path, "channels: {a: {type: slack}}\nreminders: {again_hours: -1}\nmore: 1\n")
    assert str(refused.value).count(";") >= 2


def test_a_missing_secret_names_its_variable(tmp_path: Path) -> None:
    policy = read(tmp_path, "channels: {team: {type: slack, url: RATCHET_SLACK_SECRET}}")
    with pytest.raises(SettingsError, match="team needs its secret in RATCHET_SLACK_SECRET"):
        open_channels(policy, (), {})


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    policy = read(tmp_path, "channels: {team: {type: slack, url: RATCHET_SLACK_SECRET}}")
    file = tmp_path / "slack"
    file.write_text("https://hooks.slack.com/services/T0/B0/T0SECRET\n", "utf-8")
    channels = open_channels(policy, (), {"RATCHET_SLACK_SECRET_FILE": str(file)})
    assert "SECRET" not in repr(channels)
    assert list(channels) == ["team"]
