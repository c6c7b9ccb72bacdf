"""`ratchet accounts`: who may use the pages for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ratchet.cli.saying import say, say_json
from ratchet.cli.shared import (
    AsJson,
    By,
    Note,
    created_store,
    current_settings,
    one_line_name,
    person,
)
from ratchet.errors import InvalidInputError
from ratchet.files.text import printable
from ratchet.records.accounts import PAGE_ROLES, PageRole

if TYPE_CHECKING:
    from ratchet.records.accounts import Account
    from ratchet.store import EventStore

app = typer.Typer(help="Accounts of people for the pages.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of the account.", callback=one_line_name)]
Role = Annotated[str, typer.Option(help="viewer, reviewer, engineer or admin.")]


@app.command(epilog="Example: ratchet accounts add ada --role reviewer")
def add(name: Name, role: Role = "viewer", by: By = "") -> None:
    """Make an account and show, once, the link by which its owner sets a password."""
    from ratchet.web.accounts import invite, new_account

    store, now, given = created_store(), datetime.now(UTC), _role(role)
    account = new_account(name, given, now=now)
    store.add_account(account)
    _note(store, by, "add account", account, given)
    _say_link(account, invite(store, account, now=now))


@app.command("invite", epilog="Example: ratchet accounts invite ada")
def invite_again(name: Name, by: By = "") -> None:
    """Show a new one-time link that sets the password of an account."""
    from ratchet.web.accounts import find_account, invite

    store = created_store()
    account = find_account(store, name)
    if account.disabled:
        raise InvalidInputError(
            f"a link is for an account that is not disabled, got {printable(account.name)!r}; let "
            "it in again by `ratchet accounts enable`"
        )
    _note(store, by, "make one-time link", account, "")
    _say_link(account, invite(store, account, now=datetime.now(UTC)))


@app.command("list", epilog="Example: ratchet accounts list --json")
def list_accounts(as_json: AsJson = False) -> None:
    """List the accounts."""
    accounts = created_store().accounts()
    if as_json:
        hidden = {"password_hash"}
        say_json([one.model_dump(mode="json", exclude=hidden) for one in accounts], indent=2)
        return
    for account in accounts:
        state = "disabled" if account.disabled else account.role
        say(f"{account.name}  {state}  since {account.created_at:%Y-%m-%d}")
    if not accounts:
        say("nobody has an account: pages on this machine are open to whoever uses it")


@app.command("role", epilog="Example: ratchet accounts role ada engineer")
def give_role(
    name: Name,
    role: Annotated[str, typer.Argument(help="viewer, reviewer, engineer or admin.")],
    by: By = "",
    note: Note = "",
) -> None:
    """Give somebody another role."""
    from ratchet.web.accounts import change_role, find_account

    store, given = created_store(), _role(role)
    account = find_account(store, name)
    change_role(store, account, given)
    _note(store, by, "change role", account, f"{given} {note}".strip())
    say(f"{account.name} is {given}")


@app.command("disable", epilog="Example: ratchet accounts disable ada --note 'left'")
def keep_out(name: Name, by: By = "", note: Note = "") -> None:
    """Keep somebody out at once; open sessions end."""
    from ratchet.web.accounts import disable, find_account

    store = created_store()
    account = find_account(store, name)
    disable(store, account)
    _note(store, by, "disable account", account, note)
    say(f"{account.name} is disabled")


@app.command(epilog="Example: ratchet accounts enable ada")
def enable(name: Name, by: By = "", note: Note = "") -> None:
    """Let somebody in again."""
    from ratchet.web.accounts import find_account

    store = created_store()
    account = find_account(store, name)
    store.change_account(account.id, disabled=False)
    _note(store, by, "enable account", account, note)
    say(f"{account.name} may sign in again")


def _role(text: str) -> PageRole:
    for role in PAGE_ROLES:
        if role == text:
            return role
    raise InvalidInputError(
        f"a role must be one of {', '.join(PAGE_ROLES)}, got {printable(text)!r}"
    )


def _say_link(account: Account, secret: str) -> None:
    from ratchet.servers import running_pages

    path = f"/welcome/{secret}"
    address = running_pages(current_settings()).get("address")
    if address is None:
        say(f"{account.name} sets a password at this path of the pages, once they are served:")
        say(path)
        return
    say(f"{account.name} sets a password by this link, which works once:")
    say(f"{address}{path}")


def _note(store: EventStore, by: str, action: str, account: Account, reason: str) -> None:
    from ratchet.store.accounts import note_action

    note_action(store, person(by), action, now=datetime.now(UTC), about=account.name, reason=reason)
