"""Two models on one file of examples, for `ratchet gate` without the rest of the loop."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ratchet.errors import InvalidInputError
from ratchet.settings import Settings

if TYPE_CHECKING:
    from ratchet.deploy.gate.head_to_head import Answers
    from ratchet.deploy.gate.policy import GatePolicy
    from ratchet.models import LanguageModel
    from ratchet.records import Example

DEFAULT_METRICS = ("exact_match", "token_f1", "length")


def default_metrics(examples: Sequence[Example], samples: int | None) -> tuple[str, ...]:
    """Return what is asked where no policy is: of examples that all have tests, pass@1."""
    if not all(example.tests is not None for example in examples):
        return DEFAULT_METRICS
    several = (f"pass@{samples}",) if samples is not None and samples > 1 else ()
    return ("pass@1", *several, "length")


def policy_for(examples: Sequence[Example], asked: Path | None, samples: int | None) -> GatePolicy:
    """Return the policy that is asked for; without one, that of examples like these.

    Where no example has a target or tests that is the one that ships for open-ended answers. Its
    guardrails per cluster are left out where no example has a cluster.
    """
    from ratchet.deploy.gate.policy import (
        OPEN_ENDED,
        default_policy,
        is_shipped,
        load_policy,
        without_clusters,
    )

    has_clusters = any(example.cluster for example in examples)
    if asked is None:
        if any(example.target is not None for example in examples):
            metrics = default_metrics(examples, samples)
            return default_policy(metrics, has_clusters=has_clusters)
        asked = OPEN_ENDED
    policy = load_policy(asked)
    return policy if has_clusters or not is_shipped(asked) else without_clusters(policy)


@dataclass(frozen=True, slots=True)
class Decoding:
    """How models are asked.

    Attributes:
        max_new_tokens: Longest answer.
        one_line: Whether an answer of a local model ends at the first line break.
        api_key_variable: The environment variable that holds the key of endpoints.
        fresh: Whether recorded answers are left out of account.
    """

    max_new_tokens: int = 256
    one_line: bool = False
    api_key_variable: str = ""
    fresh: bool = False

    @property
    def name(self) -> str:
        """Names the decoding for the record of answers."""
        from ratchet.evaluation.paired import decoding_name

        return decoding_name(self.max_new_tokens, one_line=self.one_line)


def load_named(name: str, settings: Settings, decoding: Decoding) -> LanguageModel:
    """Load what a name stands for.

    `smollm2` or a folder of a model; a folder of a LoRA adapter, on the base model of the settings;
    a registered version such as `support-router/3`; or an OpenAI-compatible server as
    `http://localhost:8000#model`.

    Raises:
        InvalidInputError: The name is none of these.
    """
    from ratchet.models import SMOLLM2, HuggingFaceModel, prepare_base_model

    folder = Path(name).expanduser()
    if name.startswith(("http://", "https://")) or ("#" in name and not folder.exists()):
        return _endpoint(name, decoding)
    if name == SMOLLM2 or (folder / "config.json").exists():
        base = prepare_base_model(name, settings.cache, _template_of(name, settings))
        return HuggingFaceModel.load(base, one_line=decoding.one_line)
    if not (folder / "adapter_config.json").exists():
        if folder.is_dir() or not name.rpartition("/")[2].isdigit():
            raise InvalidInputError(
                f"a model must be a folder of a model or of an adapter, a registered version such "
                f"as {settings.model_name}/3, smollm2, or http://host:port#model, got {name!r}"
            )
        return HuggingFaceModel.load(*_registered(name, settings), one_line=decoding.one_line)
    base = prepare_base_model(settings.base_model, settings.cache, settings.chat_template)
    return HuggingFaceModel.load(base, folder, one_line=decoding.one_line)


def _template_of(name: str, settings: Settings) -> str:
    """Return the template that a model is given: the settings name that of their base model."""
    own = Path(settings.base_model).expanduser().resolve()
    is_base = name == settings.base_model or Path(name).expanduser().resolve() == own
    return settings.chat_template if is_base else ""


def answer_file(
    name: str,
    examples: Sequence[Example],
    policy: GatePolicy,
    settings: Settings,
    decoding: Decoding,
) -> Answers:
    """Answer every example; answers that were recorded in the home before are not made again.

    Where the policy asks for `pass@k`, the answers are run against the examples' tests.
    """
    from ratchet.deploy.gate.head_to_head import answer_recorded, run_tests, runs_tests
    from ratchet.store import EventStore
    from ratchet.store.prices import load_prices

    model = load_named(name, settings, decoding)
    settings.make_home()
    store = EventStore.open(
        f"sqlite:///{settings.home / 'gate-answers.db'}", prices=load_prices(settings.prices)
    )
    answers = answer_recorded(
        examples,
        lambda: model,
        store,
        name=name,
        model_digest=model.digest,
        decoding=decoding.name,
        max_new_tokens=decoding.max_new_tokens,
        fresh=decoding.fresh,
        draws=policy.draws,
    )
    store.close()
    return run_tests(examples, answers) if runs_tests(policy) else answers


def _endpoint(name: str, decoding: Decoding) -> LanguageModel:
    from ratchet.models import OpenAICompatibleModel
    from ratchet.models.endpoint import Endpoint, key_in

    url, _, model = name.partition("#")
    if not model:
        raise InvalidInputError(
            f"an endpoint must name its model after #, as http://localhost:8000#model, got {name!r}"
        )
    variable = decoding.api_key_variable or None
    try:
        endpoint = Endpoint(url=url, model=model, api_key_variable=variable)
    except ValidationError as error:
        wrong = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidInputError(f"the endpoint of model {model!r}: {wrong}") from None
    return OpenAICompatibleModel(
        endpoint.url,
        model,
        api_key=key_in(os.environ, endpoint, needs="the endpoint needs its key"),
        api_key_variable=variable,
        salt=secrets.token_hex(8) if decoding.fresh else "",
    )


def _registered(name: str, settings: Settings) -> tuple[Path, Path | None]:
    """Return the folders of a version's own base model and of its adapter."""
    from ratchet.operate.base_model import base_of
    from ratchet.tracking import Tracker

    model_name = name.rpartition("/")[0] or settings.model_name
    tracker = Tracker(settings.tracking_uri, artifacts=settings.artifacts, model_name=model_name)
    version = tracker.version(name)
    adapter = tracker.adapter_folder(version)
    return base_of(settings, version, adapter), adapter
