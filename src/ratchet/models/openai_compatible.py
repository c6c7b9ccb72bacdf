"""A server that speaks OpenAI's chat completions, such as vLLM, as a language model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ratchet.errors import ModelError
from ratchet.models.asking import ask_endpoint
from ratchet.models.base import Completion, Conversation, Formats, Offered, Sampling, Tools
from ratchet.models.endpoint import Endpoint, Question, Reply, checked_key
from ratchet.models.limits import Limits
from ratchet.records import blobs_in, digest
from ratchet.records.asking import Usage

logger = logging.getLogger(__name__)


_WITHOUT_BYTES = (
    "a conversation that is sent to a model must hold its pictures, sound and files, got one whose "
    "record refers to them and does not hold them; leave it out, or give their address"
)


class OpenAICompatibleModel:
    """A server's model, asked through the engine of `ratchet.models.asking`.

    Args:
        url: The server's address, see `server_address`.
        model: The model's name there.
        api_key: Sent as a bearer token; it is in no log and no error.
        api_key_variable: The environment variable that holds it, for messages.
        concurrency: Requests in flight at once.
        timeout_seconds: Longest wait for a reply.
        attempts: How often a request is sent before its answer counts as failed.
        salt: Part of the idempotency keys; another one asks a gateway anew that keeps its replies.
        sampling: How it decodes where it is not asked to sample otherwise, in place of greedily.

    Raises:
        pydantic.ValidationError: Address, model, variable or a number is not what it must be.
        ModelError: A header cannot carry the key.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        api_key_variable: str | None = None,
        concurrency: int = 16,
        timeout_seconds: float = 60.0,
        attempts: int = 5,
        salt: str = "",
        sampling: Sampling | None = None,
    ) -> None:
        self._endpoint = Endpoint(url=url, model=model, api_key_variable=api_key_variable)
        self._limits = Limits(
            concurrency=concurrency, timeout_seconds=timeout_seconds, attempts=attempts
        )
        self._api_key = checked_key(api_key, api_key_variable)
        self._salt, self._sampling = salt, sampling

    @property
    def digest(self) -> str:
        """Digest of address and model name; what the server has loaded cannot be seen."""
        return digest(["openai", self._endpoint.url.removesuffix("/v1"), self._endpoint.model])

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
        tools: Offered | None = None,
        response_formats: Formats | None = None,
    ) -> list[Completion]:
        """Answer in parallel; a request that fails for good is a completion with its error.

        With a seed each conversation is sent one of its own, counted up from it. An answer that
        calls tools is text with the calls in it, whichever form the server's model writes.
        """
        count = len(conversations)
        offered = tools if tools is not None else [None] * count
        forms = response_formats if response_formats is not None else [None] * count
        decoding: dict[str, float | None]
        decoding = {"max_tokens": max_new_tokens, "temperature": temperature}
        if self._sampling is not None and temperature == 0.0:
            decoding |= {
                "temperature": self._sampling.temperature,
                "top_p": self._sampling.top_p,
            }
        endpoint = self._endpoint.model_copy(update=decoding)
        questions = [
            self._question(turns, decoding, None if seed is None else seed + place, may_call, form)
            for place, (turns, may_call, form) in enumerate(
                zip(conversations, offered, forms, strict=True)
            )
        ]
        replies: dict[str, Reply] = {}
        errors = {one.key: _WITHOUT_BYTES for one in questions if blobs_in(one.conversation)}
        try:
            asked = ask_endpoint(
                [question for question in questions if question.key not in errors],
                endpoint,
                self._limits,
                api_key=self._api_key,
                save=lambda arrived: replies.update({reply.key: reply for reply in arrived}),
                fail=errors.__setitem__,
            )
            left = f"it was not asked: {asked.why_not_asked}"
        except ModelError as error:  # it would refuse every request
            logger.warning("%s", error)
            left = str(error)
        return [
            Completion(replies[key].text, replies[key].latency_seconds, usage=_usage(replies[key]))
            if key in replies
            else Completion("", 0.0, errors.get(key, left))
            for key in (question.key for question in questions)
        ]

    def _question(
        self,
        turns: Conversation,
        decoding: dict[str, float | None],
        seed: int | None,
        tools: Tools | None,
        form: Mapping[str, Any] | None,
    ) -> Question:
        said = [message.canonical() for message in turns]
        asked: list[object] = [self.digest, self._salt, decoding, seed, said]
        given = tuple(dict(tool) for tool in tools or ())
        if given or form is not None:
            asked.append([given, form])
        return Question(
            digest(asked),
            tuple(turns),
            seed=seed,
            tools=given,
            response_format=None if form is None else dict(form),
        )


def _usage(reply: Reply) -> Usage:
    """Return the tokens that a server reported; cost follows from prices."""
    return Usage(prompt_tokens=reply.input_tokens, completion_tokens=reply.output_tokens)
