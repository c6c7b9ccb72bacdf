"""Remind: what has waited for people longer than stated; and what did not arrive yet goes out."""

from __future__ import annotations

from prefect import flow

from ratchet.flows._notify import send_waiting, told
from ratchet.flows._runtime import now, workspace
from ratchet.operate.reminding import remind as put_reminders


@flow(name="remind", flow_run_name="remind people of what waits", validate_parameters=True)
def remind() -> int:
    """Remind people of what waits, as RATCHET_ALERTS says; return how many messages arrived."""
    whom = told()
    put_reminders(workspace().store, whom.routes, whom.policy.reminders, now=now())
    return send_waiting(whom)
