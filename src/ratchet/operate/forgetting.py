"""Forget a user everywhere: the store, history, the gateway's log, MLflow, Prefect and every file.

    everywhere = Everywhere(store, settings, now=now, prefect=api, tracker=lambda: tracker)
    record = everywhere.forget("user-17", history, by="ada", reason="request 31")
    print(everywhere.swept.left)

`ratchet.store.forget` keeps that the user is forgotten before anything else, so that nothing comes
in again, and calls back here while the store has the texts still: a kill at any moment leaves what
the next call goes on with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from ratchet.errors import InvalidInputError, TrackingError
from ratchet.files.text import counted
from ratchet.gateway.blobs import erase_files, unreferred
from ratchet.gateway.erasing import erase_lines
from ratchet.gateway.sessions import forget_user
from ratchet.operate.sqlite_rows import stands_in, write_anew
from ratchet.operate.sweeping import Swept, sweep
from ratchet.prefect_api import ask
from ratchet.records import Erasure
from ratchet.settings import Settings
from ratchet.store import EventStore
from ratchet.store.accounts import note_action
from ratchet.store.erasure import clear_log, delete_answers
from ratchet.store.forget import forget
from ratchet.store.forgotten import digest_of
from ratchet.store.history import History
from ratchet.store.keeping import ErasedPast, PastKeeping, erase_past
from ratchet.store.user_texts import UserTexts
from ratchet.store.vectors import text_key

if TYPE_CHECKING:
    from ratchet.tracking import Tracker

BYTES_REST = timedelta(minutes=10)
"""Bytes that a request touched so lately are left alone: its record may be on its way."""
DIGEST_SHOWN = 16
"""Characters of a user's digest by which audit and pages name a user who was forgotten."""
_PAGE = 200
_LARGEST_AT_ONCE = 2_000_000_000


@dataclass(slots=True)
class Everywhere:
    """An installation in which users are forgotten.

    Attributes:
        store: The store.
        settings: Where everything lies.
        now: The time.
        prefect: The address of Prefect's API, where it is a server of its own that answers.
        tracker: Opens MLflow; asked only where it is a server elsewhere.
        swept: What was done outside the store, added up.
        log_lines: Lines of the gateway's log that were blanked.
        copies: Copies of training sets that were deleted in MLflow.
    """

    store: EventStore
    settings: Settings
    now: datetime
    prefect: str | None
    tracker: Callable[[], Tracker | None]
    swept: Swept = field(default_factory=Swept)
    log_lines: int = 0
    copies: int = 0
    _texts: list[UserTexts] = field(default_factory=list)

    def forget(
        self, user_id: str, history: History | None, *, by: str, reason: str = "", address: str = ""
    ) -> Erasure:
        """Erase all that is there of a user; see `ratchet.store.forget.forget`.

        The audit names the user by the digest that the record of the erasure has.

        Args:
            user_id: As it was sent with the interactions.
            history: The history of the store, where there is one.
            by: Who asks for it.
            reason: Why; it must not name the user.
            address: Network address of a browser.

        Raises:
            InvalidInputError: The id is empty or stands for nobody, or the reason holds it.
        """
        if not user_id.strip():  # as a text of theirs it would be in every row
            raise InvalidInputError(
                f"a user must be named by their id, got {user_id!r}; give it as it came with "
                "interactions"
            )
        if user_id.casefold() in reason.casefold():
            raise InvalidInputError(
                "a reason is kept after the user is forgotten, so it must not name them; write, "
                "for instance, the number of the request"
            )
        note = partial(
            note_action, self.store, by, "forget user", now=self.now,
            about=digest_of(user_id)[:DIGEST_SHOWN], address=address,
        )  # fmt: skip
        try:
            record = self._forget(user_id, history)
        except Exception as error:
            with suppress(Exception):  # a store that is away: what went wrong first is told
                note(outcome="failed", reason=f"{reason}: {type(error).__name__}")
            raise
        note(reason=reason)
        return record

    def _forget(self, user_id: str, history: History | None) -> Erasure:
        record = forget(
            self.store,
            self.settings.home,
            user_id,
            now=self.now,
            text_key=text_key,
            history=history,
            elsewhere=self._erase,
        )
        forget_user(self._gateway / "conversations.db", user_id)
        self.blank_lines()
        self._erase_bytes(history)
        self._overwrite_what_was_deleted()
        self._delete_copies(record.runs)
        return record

    def erase_past(self, history: History | None, past: PastKeeping) -> ErasedPast:
        """Erase what may be kept no longer; see `ratchet.store.keeping.erase_past`."""
        erased = erase_past(
            self.store,
            self.settings.home,
            history,
            past,
            now=self.now,
            elsewhere=self._erase,
        )
        self.blank_lines()
        self._overwrite_what_was_deleted()
        return erased

    def blank_lines(self, damaged: Callable[[str], bool] = lambda _: False) -> int:
        """Take what belongs to forgotten users out of the gateway's log; return how many lines."""
        lines = erase_lines(self._gateway / "wal", self.store, self.now, damaged=damaged)
        self.log_lines += lines
        return lines

    def _delete_copies(self, runs: Sequence[str]) -> None:
        """Delete the copies of training sets in MLflow; where it is away, name their runs."""
        if not runs:
            return
        try:
            tracker = self.tracker()
        except TrackingError:
            tracker = None
        if tracker is None:
            self._tell(
                f"the folder training_set in MLflow's runs {', '.join(runs)}: MLflow does not "
                "answer; delete it there"
            )
            return
        self.copies = sum(tracker.drop_folder(run, "training_set") for run in runs)

    def _erase_bytes(self, history: History | None) -> None:
        """Delete the bytes of pictures, sound and files that no record refers to any more."""
        before = self.now - BYTES_REST
        found = unreferred(self.store, history, self._gateway, before=before)
        self.swept.deleted += erase_files(found, before=before)
        if found.young:
            self._tell(
                f"{counted(found.young, 'file')} of bytes that came in the last "
                f"{BYTES_REST // timedelta(minutes=1)} minutes: the next `ratchet prune` deletes "
                "what no record refers to"
            )

    def _overwrite_what_was_deleted(self) -> None:
        """Write a store of SQLite anew where its file holds a text still, beside its rows.

        SQLite leaves copies of rows behind where it divides a page, whoever wrote it.
        """
        home, sqlite = self.settings.home, self.settings.store_url.startswith("sqlite")
        paths = [home / "gate-answers.db"]
        paths += [Path(self.settings.store_url.partition(":///")[2])] if sqlite else []
        for path in paths:
            if not path.exists() or not any(stands_in(path, texts) for texts in self._texts):
                continue
            if path.stat().st_size > _LARGEST_AT_ONCE or not write_anew(path):
                self._tell(
                    f"{path.name}: erased texts stand beside its rows, which nobody reads: run "
                    "`ratchet prune --compact`"
                )
        self._texts.clear()

    @property
    def _gateway(self) -> Path:
        return self.settings.home / "gateway"

    def _erase(self, texts: UserTexts, /, *, interaction_ids: tuple[str, ...]) -> None:
        home = self.settings.home
        self._texts.append(texts)
        self.blank_lines(lambda line: texts.are_in(line, cut=True))
        self._sweep(sweep(home, texts, interaction_ids, leave=tuple(self._erased_otherwise())))
        answers = home / "gate-answers.db"
        if answers.exists():
            recorded = EventStore.open(f"sqlite:///{answers}")
            self.swept.rows += delete_answers(recorded, texts)
            clear_log(recorded)
            recorded.close()
        if not self.settings.tracking_uri.startswith("sqlite"):
            self._erase_in_mlflow(texts)
        if self.prefect is not None and not (self.settings.prefect_home / "prefect.db").exists():
            self._erase_in_prefect(self.prefect, texts)

    def _erased_otherwise(self) -> Iterable[Path]:
        settings = self.settings
        home = settings.home
        if settings.store_url.startswith("sqlite"):
            yield Path(settings.store_url.partition(":///")[2])
        if "://" not in settings.history:
            yield Path(settings.history)
        yield settings.cache
        yield from (home / name for name in ("datasets", "adapters", "neighbours"))
        yield home / "gate-answers.db"
        yield self._gateway / "wal"

    def _sweep(self, swept: Swept) -> None:
        self.swept.files += swept.files
        self.swept.deleted += swept.deleted
        self.swept.rows += swept.rows
        known = set(self.swept.left)
        self.swept.left += [line for line in swept.left if line not in known]

    def _erase_in_mlflow(self, texts: UserTexts) -> None:
        tracker = self.tracker()
        if tracker is None:
            self._tell("MLflow does not answer: run `ratchet forget` again when it does")
            return
        erased = tracker.erase_texts(texts.are_in, texts.erased_in)
        self.swept.files += erased.changed
        for line in erased.left:
            self._tell(f"MLflow: {line}")

    def _erase_in_prefect(self, api: str, texts: UserTexts) -> None:
        """Delete artifacts that quote the user on a Prefect server elsewhere."""
        try:
            self.swept.deleted += delete_artifacts(api, texts)
        except httpx.HTTPError as error:
            self._tell(f"Prefect's artifacts: {type(error).__name__}")
        self._tell(
            "logs and parameters of flow runs lie on a Prefect server elsewhere, whose API changes "
            "none: they go when retention deletes the runs"
        )

    def _tell(self, line: str) -> None:
        if line not in self.swept.left:
            self.swept.left.append(line)


def delete_artifacts(api: str, texts: UserTexts) -> int:
    """Delete the artifacts of a Prefect server that quote one of the texts; return how many."""

    def page(offset: int) -> list[Mapping[str, Any]]:
        body = {"limit": _PAGE, "offset": offset, "sort": "ID_DESC"}
        answer = ask(api, "POST", "artifacts/filter", body)
        found: list[Mapping[str, Any]] = answer.raise_for_status().json()
        return found

    quoting: list[str] = []
    offset = 0
    while found := page(offset):
        quoting += [item["id"] for item in found if texts.are_in(dict(item))]
        offset += len(found)
    for key in quoting:
        deleted = ask(api, "DELETE", f"artifacts/{key}")
        if deleted.status_code != 404:  # somebody else deleted it
            deleted.raise_for_status()
    return len(quoting)
