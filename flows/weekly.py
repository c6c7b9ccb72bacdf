"""Weekly: the report about the last week, kept as an artifact and sent by the routes."""

from __future__ import annotations

import os

from prefect import flow
from pydantic import BaseModel, ConfigDict

from ratchet.flows._notify import send_waiting, told
from ratchet.flows._runtime import now, publish_text, workspace
from ratchet.notify.outgoing import REPORT, put_once
from ratchet.notify.runbooks import WEEKLY
from ratchet.views.text.weekly import weekly_markdown
from ratchet.web.links import pages_address
from ratchet.web.weekly import last_week, week_named, weekly_report


class WeeklyOptions(BaseModel):
    """Which week is reported.

    Attributes:
        week: By ISO 8601, e.g. `2026-W48`; empty for the last one that is over.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    week: str = ""

    @property
    def does(self) -> str:
        """The week that a run reports on, for its name."""
        return self.week or "the last week"


DEFAULTS = WeeklyOptions()


@flow(name="weekly", flow_run_name="report of {options.does}", validate_parameters=True)
def weekly(options: WeeklyOptions = DEFAULTS) -> str:
    """Make the report, send it once to each channel of a route for `weekly`; return the week."""
    work, whom, moment = workspace(), told(), now()
    week = week_named(options.week) if options.week else last_week(moment)
    address = pages_address(work.settings, os.environ)
    report = weekly_report(
        work.store, week, assistant=work.settings.model_name, now=moment, address=address
    )
    publish_text("weekly", weekly_markdown(report), report.headline)
    put_once(
        work.store, whom.routes, kind=WEEKLY, made_from=REPORT, about=week.name, now=moment,
        every=None,
    )  # fmt: skip
    send_waiting(whom)
    return week.name
