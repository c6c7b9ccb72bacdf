"""Who answers at the gate: the server that answers users, another endpoint, or this process.

    with by_backend(urls, "router/3", name="router/3", place=place, sampling=sampling) as load:
        answers = answer_sets(examples, policy, load, store, name=..., model_digest=...)

A model is loaded, and an adapter put into the server, only where an answer is not recorded yet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.deploy.backends import KEY_VARIABLE, Replica, Replicas, named
from ratchet.errors import ModelError
from ratchet.models import Completion, LanguageModel, OpenAICompatibleModel, Sampling
from ratchet.models.base import Conversation, Formats, Offered, only_given
from ratchet.models.endpoint import server_address
from ratchet.records import digest

logger = logging.getLogger(__name__)

By: TypeAlias = Literal["backend", "endpoint", "process"]
Load: TypeAlias = Callable[[bool], LanguageModel]


class AnswerOptions(BaseModel):
    """Who answers the gate's examples, and how.

    Attributes:
        by: `backend`, the server that answers users, which is given adapters that it lacks for as
            long; `endpoint`, the server at `url`; `process`, this process. Left out, the backend
            where the home has one.
        url: Address of the endpoint.
        champion: Name of the champion at the endpoint; the version's by default.
        challenger: The same for the challenger.
        api_key_variable: Environment variable that holds the endpoint's key.
        temperature: In place of the one that most of the cycle's requests name.
        top_p: The same.
        max_new_tokens: Longest answer, in place of the one that the sets of examples state.
        concurrency: Requests to a server at once; users wait beside them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: By | None = None
    url: str | None = None
    champion: str | None = None
    challenger: str | None = None
    api_key_variable: str | None = None
    temperature: float | None = Field(default=None, ge=0.0)
    top_p: float | None = Field(default=None, ge=0.0, le=1.0)
    max_new_tokens: int | None = Field(default=None, ge=1)
    concurrency: int = Field(default=8, ge=1, le=256)

    @model_validator(mode="after")
    def _an_endpoint_has_an_address(self) -> Self:
        if (self.by == "endpoint") != (self.url is not None):
            raise ValueError(
                "`url` and `by: endpoint` belong together, got one of them; give both, or neither"
            )
        if self.url is not None:
            server_address(self.url)
        return self

    def sampling(self, users: Sampling) -> Sampling:
        """Return how tokens are chosen: as stated here, else as in front of users."""
        return Sampling(
            users.temperature if self.temperature is None else self.temperature,
            users.top_p if self.top_p is None else self.top_p,
        )


def way_of(by: By, sampling: Sampling, url: str = "") -> str:
    """Name who answers, and how, for the record of answers; greedily in this process as ever.

    Example:
        >>> way_of("backend", Sampling(0.7, None)), way_of("process", Sampling(None, None))
        ('backend_t0.7', 'greedy')
    """
    words: list[str] = [by] if by != "endpoint" else [by, digest(server_address(url))[:8]]
    if sampling.temperature is not None:
        words.append(f"t{sampling.temperature:g}")
    if sampling.top_p is not None:
        words.append(f"p{sampling.top_p:g}")
    if by == "process" and not sampling.temperature:
        return "greedy"
    return "_".join(words)


@contextmanager
def by_backend(
    urls: Sequence[str],
    version: str,
    *,
    name: str,
    place: Callable[[], str | None],
    sampling: Sampling,
    key: str | None = None,
    concurrency: int = 8,
) -> Iterator[Load]:
    """Yield what makes the serving backend answer as a version.

    Only one replica is asked. An adapter that it lacks is loaded under a name of its own, which no
    routing names, and unloaded at the end.

    Args:
        urls: The replicas.
        version: The version.
        name: What the backend calls it, where it serves it.
        place: Puts the version's adapter where the backend sees it and returns the path there; None
            of a version that has no adapter.
        sampling: How tokens are chosen.
        key: Of the backend.
        concurrency: Requests at once.

    Raises:
        ModelError: No replica answers, or it cannot be made to answer as the version.
    """
    made: list[LanguageModel] = []
    with ExitStack() as held:

        def load(one_line: bool) -> LanguageModel:
            del one_line  # users get whole answers
            if not made:
                replicas = held.enter_context(Replicas.of(urls, key=key))
                replica, listed = first_that_answers(replicas)
                asked = name
                if name not in listed:
                    asked = f"gate-{version}"
                    held.callback(_unload, replica, asked)
                    _load(replica, version, asked, place(), listed)
                replica.probe(asked)
                model = OpenAICompatibleModel(
                    replica.url,
                    asked,
                    api_key=key,
                    api_key_variable=KEY_VARIABLE,
                    concurrency=concurrency,
                    sampling=sampling,
                )
                logger.info("%s answers as %s", replica.url, asked)
                made.append(model)
            return made[0]

        yield load


def by_endpoint(
    url: str, name: str, *, sampling: Sampling, key: str | None, variable: str | None, at_once: int
) -> Load:
    """Return what makes another endpoint answer by a name.

    Raises:
        ModelError: It does not answer by it; when it is loaded.
    """

    def load(one_line: bool) -> LanguageModel:
        del one_line
        with Replicas.of([url], key=key) as replicas:
            replicas.each[0].probe(name)
        return OpenAICompatibleModel(
            url,
            name,
            api_key=key,
            api_key_variable=variable,
            concurrency=at_once,
            sampling=sampling,
        )

    return load


def first_that_answers(replicas: Replicas) -> tuple[Replica, dict[str, str | None]]:
    """Return the first replica that lists its models, and the list.

    Raises:
        ModelError: None does.
    """
    reasons = []
    for replica in replicas:
        try:
            return replica, replica.models()
        except ModelError as error:
            reasons.append(str(error))
    raise ModelError(
        f"the gate asks the server that answers users, got no answer: {'; '.join(reasons)}; start "
        "it, or set deploy.answers.by to process or endpoint"
    )


def _load(
    replica: Replica, version: str, asked: str, path: str | None, listed: dict[str, str | None]
) -> None:
    """Load an adapter for the evaluation."""
    if path is None:
        raise ModelError(
            f"{version} has no adapter to load, so the backend must list it; {replica.url} does "
            f"not, {named(listed)}; say by which name it answers with `ratchet adopt`"
        )
    try:
        replica.answer_as(asked, path)  # it is there already where an evaluation was killed
    except ModelError as error:
        raise ModelError(
            f"the backend must load {version} for the gate, got: {error}; let vLLM load adapters "
            "(--enable-lora, VLLM_ALLOW_RUNTIME_LORA_UPDATING=True) and see its folder "
            "(docs/gateway.md), or set deploy.answers.by to process"
        ) from error


def _unload(replica: Replica, name: str) -> None:
    try:
        replica.unload_adapter(name)
    except ModelError as error:
        logger.warning("%s stays loaded: %s", name, error)


@dataclass(frozen=True, slots=True)
class AsUsersGet:
    """A model of this process that samples where it is asked for its usual answer.

    Attributes:
        model: The model.
        temperature: Above 0.
    """

    model: LanguageModel
    temperature: float

    @property
    def digest(self) -> str:
        """Digest of the model: how it is asked is no part of it."""
        return self.model.digest

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
        """Answer every conversation; the same ones together get the same answers."""
        if temperature == 0.0:
            said = [[turn.canonical() for turn in turns] for turns in conversations[:1]]
            seed = int(digest(said)[:7], 16)
            temperature = self.temperature
        count = len(conversations)
        with_ = only_given(tools or [None] * count, response_formats or [None] * count)
        return self.model.generate(
            conversations,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            **with_,
        )


def by_process(load: Load, sampling: Sampling) -> Load:
    """Return what loads a model into this process, to answer as users are answered."""
    if not sampling.temperature:
        return load
    temperature = sampling.temperature
    return lambda one_line: AsUsersGet(load(one_line), temperature)
