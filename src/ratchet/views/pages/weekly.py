"""The weekly report as one HTML file, for mail, the browser and the printer."""

from __future__ import annotations

from ratchet.views.pages.rendering import render
from ratchet.views.text.weekly import WeeklyReport
from ratchet.views.words import moment


def weekly_page(report: WeeklyReport) -> str:
    """Return the report as HTML that loads nothing."""
    return render("weekly", report=report, made=moment(report.made_at))
