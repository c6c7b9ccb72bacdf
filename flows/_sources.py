"""What `collect` brings in from configured sources before a cycle of it begins."""

from __future__ import annotations

import os
from collections.abc import Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratchet.doors.configured import Source, harvest
from ratchet.doors.servers import Access
from ratchet.files.text import cell
from ratchet.flows._runtime import logger, now, publish_text, workspace
from ratchet.store.history import History


def bring_in(sources: Sequence[Source]) -> None:
    """Store what is new in every source; one that fails is told, and the others go on."""
    if sources:
        import_sources(sources)


@task(name="import-sources", cache_policy=NO_CACHE)
def import_sources(sources: Sequence[Source]) -> None:
    """Import from each source what is new since its cursor; log and publish the counts."""
    work = workspace()
    history = History.open(work.settings.history, of=work.store)
    access = Access(work.settings.tracking_uri, os.environ)
    lines = []
    for found in harvest(sources, work.store, history, access, now()):
        (logger.warning if found.failed else logger.info)("%s", found.in_words)
        lines.append(f"- {cell(found.in_words)}")
    publish_text("sources", "\n".join(lines), "What the sources brought")
