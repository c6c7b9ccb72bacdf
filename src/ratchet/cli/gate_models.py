"""Two models on one file of examples, for `ratchet gate` without the rest of the loop."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.errors import InvalidInputError, ModelError
from ratchet.settings import Settings

if TYPE_CHECKING:
    from ratchet.deploy.gate.policy import GatePolicy
    from ratchet.deploy.gate.scores import FloatArray, GateScores
    from ratchet.models import Completion, LanguageModel
    from ratchet.records import Example

logger = logging.getLogger("ratchet.gate")

DEFAULT_METRICS = ("exact_match", "token_f1", "length")


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

        return decoding_name(self.max_new_tokens) + ("" if self.one_line else "-lines")


@dataclass(frozen=True, slots=True)
class Answered:
    """One model's answers.

    Attributes:
        texts: In the order of the examples; None where it gave none.
        seconds: The same; the wall time of the batch that an answer was made in.
    """

    digest: str
    texts: list[str | None]
    seconds: list[float | None]


def load_named(name: str, settings: Settings, decoding: Decoding) -> LanguageModel:
    """Load what a name stands for.

    `smollm2` or a folder of a model; a folder of a LoRA adapter, on the base model of the settings;
    a registered version such as `support-router/3`; or an OpenAI-compatible server as
    `http://localhost:8000#model`.

    Raises:
        InvalidInputError: The name is none of these.
    """
    from ratchet.models import SMOLLM2, HuggingFaceModel, prepare_base_model

    if name.startswith(("http://", "https://")):
        return _endpoint(name, decoding)
    folder = Path(name).expanduser()
    if name == SMOLLM2 or (folder / "config.json").exists():
        base = prepare_base_model(name, settings.cache)
        return HuggingFaceModel.load(base, one_line=decoding.one_line)
    adapter: Path | None = folder
    if not (folder / "adapter_config.json").exists():
        if folder.is_dir() or not name.rpartition("/")[2].isdigit():
            raise InvalidInputError(
                f"a model must be a folder of a model or of an adapter, a registered version such "
                f"as {settings.model_name}/3, smollm2, or http://host:port#model, got {name!r}"
            )
        adapter = _registered(name, settings)
    base = prepare_base_model(settings.base_model, settings.cache)
    return HuggingFaceModel.load(base, adapter, one_line=decoding.one_line)


def answer_file(
    name: str, examples: Sequence[Example], settings: Settings, decoding: Decoding
) -> Answered:
    """Answer every example; answers that were recorded in the home before are not made again."""
    from ratchet.evaluation.paired import answer_examples, question_digest, questions
    from ratchet.store import EventStore

    model = load_named(name, settings, decoding)
    asked = questions(examples)
    settings.home.mkdir(parents=True, exist_ok=True)
    store = EventStore.open(f"sqlite:///{settings.home / 'gate-answers.db'}")
    fresh_seconds: dict[str, float] = {}

    def save(fresh: Mapping[str, Completion]) -> None:
        took = {key: completion.latency_seconds for key, completion in fresh.items()}
        fresh_seconds.update(took)
        if not decoding.fresh:
            made = {key: completion.text for key, completion in fresh.items()}
            store.add_answers(model.digest, decoding.name, made, took)

    keys = list(asked)
    known = {} if decoding.fresh else store.answers(model.digest, decoding.name, keys)
    seconds = {} if decoding.fresh else store.answer_seconds(model.digest, decoding.name, keys)
    logger.info("%s: %d of %d answers are recorded", name, len(known), len(asked))
    texts = answer_examples(
        model, list(asked.values()), known, save, max_new_tokens=decoding.max_new_tokens
    )
    store.close()
    seconds |= fresh_seconds
    places = [question_digest(example) for example in examples]
    return Answered(
        model.digest, [texts.get(key) for key in places], [seconds.get(key) for key in places]
    )


def scores_of(
    examples: Sequence[Example],
    champion: Answered,
    challenger: Answered,
    policy: GatePolicy,
    judged: Mapping[str, tuple[FloatArray, FloatArray]],
) -> GateScores:
    """Score both by every metric that the policy names."""
    from ratchet.deploy.gate.scores import GateScores, metric_scores
    from ratchet.evaluation.answer_scores import score_pairs
    from ratchet.evaluation.metrics import constant_answer_rate

    targets = [example.target for example in examples]
    pairs = score_pairs(
        policy.metrics,
        champion.texts,
        challenger.texts,
        targets,
        seconds=(champion.seconds, challenger.seconds),
        judged=judged,
    )
    metrics, names = metric_scores(
        pairs,
        users=[example.user_id for example in examples],
        clusters=[example.cluster for example in examples],
    )
    return GateScores(
        metrics=metrics,
        cluster_names=names,
        identical_outputs=None not in champion.texts and champion.texts == challenger.texts,
        constant_answer_rate=constant_answer_rate(targets),
    )


def write_scores(
    path: Path,
    examples: Sequence[Example],
    champion: Answered,
    challenger: Answered,
    scores: GateScores,
) -> None:
    """Write what was decided on as a file for `ratchet gate --scores`."""
    from ratchet.deploy.gate.scores import OPTIONAL, REQUIRED

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((*REQUIRED, *OPTIONAL))
        for metric, found in scores.metrics.items():
            values = zip(found.champion.tolist(), found.challenger.tolist(), strict=True)
            outputs = zip(champion.texts, challenger.texts, strict=True)
            for example, pair, said in zip(examples, values, outputs, strict=True):
                numbers = ["" if number != number else repr(number) for number in pair]
                whose = (example.user_id or "", example.cluster or "")
                writer.writerow((example.id, metric, *numbers, *whose, *said))


def unanswered(name: str, answered: Answered) -> str | None:
    """Say that a model answered nothing, which is a failed evaluation."""
    if all(text is None for text in answered.texts):
        return f"{name} answered none of {len(answered.texts)} examples; is it up?"
    return None


def _endpoint(name: str, decoding: Decoding) -> LanguageModel:
    from ratchet.models import OpenAICompatibleModel

    address, _, model = name.partition("#")
    if not model:
        raise InvalidInputError(
            f"an endpoint must name its model after #, as http://localhost:8000#model, got {name!r}"
        )
    variable = decoding.api_key_variable
    key = os.environ.get(variable) if variable else None
    if variable and not key:
        raise ModelError(f"the endpoint's key must be in {variable}, got nothing there; set it")
    url = address.rstrip("/").removesuffix("/v1")
    return OpenAICompatibleModel(url, model, api_key=key)


def _registered(name: str, settings: Settings) -> Path | None:
    from ratchet.tracking import Tracker

    model_name = name.rpartition("/")[0] or settings.model_name
    tracker = Tracker(settings.tracking_uri, artifacts=settings.artifacts, model_name=model_name)
    return tracker.adapter_folder(tracker.version(name))
