"""Prune: copy what is new into history, then delete what is older than retention says."""

from __future__ import annotations

from prefect import flow
from pydantic import BaseModel, ConfigDict

from ratchet.flows._alone import sole_pass
from ratchet.flows._runtime import logger, now, publish_text, workspace
from ratchet.operate.pruning import Pruning, advance_history
from ratchet.operate.report import as_markdown
from ratchet.operate.retention import load_retention
from ratchet.servers import answering_prefect
from ratchet.store.history import History
from ratchet.store.leases import PRUNING


class PruneOptions(BaseModel):
    """How a run prunes; how long things are kept is in the file of RATCHET_RETENTION.

    Attributes:
        dry_run: Only show what would go.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dry_run: bool = False

    @property
    def does(self) -> str:
        """What a run does beside it, for its name."""
        return ": only show what would go" if self.dry_run else ""


DEFAULTS = PruneOptions()


@flow(name="prune", flow_run_name="prune{options.does}", validate_parameters=True)
def prune(options: PruneOptions = DEFAULTS) -> int:
    """Take away what is old enough, rule by rule; return how many rules took something.

    One that finds another pruning under way leaves it to that one.
    """
    if options.dry_run:
        return _prune(options)
    with sole_pass(PRUNING) as is_mine:
        return _prune(options) if is_mine else 0


def _prune(options: PruneOptions) -> int:
    work = workspace()
    history = History.open(work.settings.history)
    if not options.dry_run:
        advance_history(history, work.store)
    pruning = Pruning(
        work.store,
        work.settings,
        load_retention(work.settings.retention),
        now=now(),
        history=history,
        prefect=answering_prefect(work.settings),
        tracker=work.tracker if work.tracker.answers(within_seconds=20.0) else None,
        preview=options.dry_run,
    )
    lines = list(pruning.run())
    for line in lines:
        if line.failed:
            logger.warning("%s: %s", line.what, line.failed)
    told = [line for line in lines if line.rows or line.failed]
    if told:
        publish_text("prune", as_markdown(lines), "What was pruned, by which rule")
    return len(told)
