"""Who may give feedback on which answer.

With the token of the answer, as its user. Without one, with a key: of the application that asked
for the answer, or with the scope `any-answer`. Whose answer it is is read from its id, which costs
nothing, and only for ids that do not say so from the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ratchet.gateway.access import ANYBODY, Caller
from ratchet.gateway.problems import ProblemError
from ratchet.gateway.request_metadata import APPLICATION
from ratchet.gateway.tokens import TokenError, Tokens, is_of_a_gateway
from ratchet.records import Interaction
from ratchet.records.signals import JUDGED_KINDS

logger = logging.getLogger(__name__)

Known = Mapping[str, Interaction]


@dataclass(frozen=True, slots=True)
class Rights:
    """See the module's text.

    Attributes:
        tokens: Of the answers.
        stored: Reads interactions by their ids.
    """

    tokens: Tokens
    stored: Callable[[Sequence[str]], Known]

    async def look_up(self, events: Iterable[Mapping[str, Any]], caller: Caller) -> Known:
        """Return the stored interactions without which the events cannot be judged.

        Raises:
            ProblemError: 503, the store does not answer.
        """
        wanted = {key for event in events if (key := self._unclear(event, caller)) is not None}
        if not wanted:
            return {}
        try:
            return await asyncio.to_thread(self.stored, sorted(wanted))
        except Exception as error:
            logger.warning("whose answer was rated cannot be read: %s", error)
            raise ProblemError(
                503,
                "whose answer this is cannot be read now; send it again later",
                code="not_recorded",
                headers={"retry-after": "5"},
            ) from error

    def check(
        self, key: str, kind: str, token: object, user: str | None, caller: Caller, known: Known
    ) -> None:
        """Refuse feedback that its sender may not give.

        Args:
            key: Id of the interaction.
            kind: Kind of feedback.
            token: What came as the token.
            user: Whom it says that it is from.
            caller: Who sends it.
            known: What `look_up` found.

        Raises:
            ProblemError: 401 or 403.
        """
        if token is not None:
            self._check_token(key, token, user, known)
            if kind in JUDGED_KINDS:
                caller.require("ingest", "feedback")
            return
        caller.require("ingest", "feedback")
        if not self._is_theirs(key, caller, known):
            raise ProblemError(
                403,
                f"a key must belong to the application that asked for the answer {key[:60]!r}, "
                f"got one of {caller.application}; make one for any answer by "
                "`ratchet keys create --scope any-answer`",
                code="foreign_interaction",
                param="interaction_id",
            )

    def _check_token(self, key: str, token: object, user: str | None, known: Known) -> None:
        try:
            if not isinstance(token, str):
                raise TokenError(f"must be text, got {repr(token)[:40]}")
            proven = self.tokens.check(key, token, user)
            if not proven and user is not None and key in known and known[key].user_id != user:
                raise TokenError("gives feedback of the user of its answer alone, got another")
        except TokenError as error:
            raise ProblemError(
                403,
                f"a token {error}; send the `ratchet.token` of the answer {key[:60]!r}",
                code="invalid_token",
                param="token",
            ) from error

    def _is_theirs(self, key: str, caller: Caller, known: Known) -> bool:
        if caller.rates_any_answer or self._says_theirs(key, caller):
            return True
        interaction = known.get(key)
        if interaction is None:  # of another source it may come before its interaction
            return not is_of_a_gateway(key)
        application = interaction.metadata.get(APPLICATION)
        if application is None and is_of_a_gateway(key):
            application = interaction.segment  # as gateways kept it once
        return application in (None, ANYBODY, caller.application)

    def _says_theirs(self, key: str, caller: Caller) -> bool:
        return self.tokens.is_of(key, caller.application) or self.tokens.is_of(key, ANYBODY)

    def _unclear(self, event: Mapping[str, Any], caller: Caller) -> str | None:
        """Return the id of an interaction that has to be read, where that is so."""
        key, token = event.get("interaction_id"), event.get("token")
        if not isinstance(key, str) or not key or len(key) > _LONGEST_ID:
            return None
        if token is not None:
            one_of_before = isinstance(token, str) and "." not in token
            return key if one_of_before and event.get("user_id") is not None else None
        may = "ingest" in caller.roles and not caller.rates_any_answer
        return key if may and not self._says_theirs(key, caller) else None


_LONGEST_ID = 200
