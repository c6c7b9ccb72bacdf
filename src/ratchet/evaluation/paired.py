"""Champion and challenger on the same frozen examples, answer by answer.

Answers are recorded as they come, keyed by model digest, decoding and the digest of what is asked,
so that an evaluation that was interrupted goes on and one that was done is not done again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ratchet.errors import ModelError
from ratchet.evaluation.matching import exact_match
from ratchet.models import Completion, LanguageModel, OpenAICompatibleModel
from ratchet.models.base import only_given
from ratchet.records import Example, digest

logger = logging.getLogger(__name__)

_CHUNK = 64
FAILED_SHARE = 0.2
"""With more questions than this share without an answer an evaluation says nothing of a model."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models' answers to the same examples, scored.

    Attributes:
        champion: Right or wrong by example id; None where there is no answer, or none is known to
            be right.
        challenger: The same for the challenger.
        identical_outputs: Whether every answer was the same text.
    """

    champion: dict[str, bool | None]
    challenger: dict[str, bool | None]
    identical_outputs: bool


@dataclass(frozen=True, slots=True)
class Draw:
    """One of several sampled answers to each question.

    Attributes:
        temperature: Above 0.
        seed: Of the whole evaluation.
        number: Which of the answers, from 0.
    """

    temperature: float
    seed: int
    number: int

    def decoding(self, greedy: str) -> str:
        """Name the decoding for the record of answers, after that of the greedy one.

        Example:
            >>> Draw(0.8, 0, 3).decoding("greedy-256")
            'sampled-t0.8-seed0-3-256'
        """
        name = f"sampled-t{self.temperature:g}-seed{self.seed}-{self.number}"
        way, _, rest = greedy.partition("-")
        return f"{name}-{rest}" if way == "greedy" else f"{name}-{way}-{rest}"

    def seed_of(self, key: str) -> int:
        """Return the seed of a batch that begins with a question, below 2^31 less a batch."""
        return int(digest([self.seed, self.number, key])[:7], 16)


def decoding_name(max_new_tokens: int, *, one_line: bool = True, way: str = "greedy") -> str:
    """Name the decoding for the record of answers.

    Args:
        max_new_tokens: Longest answer.
        one_line: Whether an answer of a local model ends at the first line break.
        way: A word, without a hyphen, for who answers and how tokens are chosen.
    """
    return f"{way}-{max_new_tokens}" + ("" if one_line else "-lines")


def question_digest(example: Example) -> str:
    """Name what an example asks: examples that ask for the same have the same answer."""
    said: list[object] = [message.canonical() for message in example.messages]
    if example.tools is not None or example.response_format is not None:
        said.append([example.tools, example.response_format])
    return digest(said)


def questions(examples: Sequence[Example]) -> dict[str, Example]:
    """Return each question once, under its digest, in the order of the examples."""
    named = {question_digest(example): example for example in examples}
    return {key: example.model_copy(update={"id": key}) for key, example in named.items()}


def answer_examples(
    model: LanguageModel,
    examples: Sequence[Example],
    recorded: Mapping[str, str],
    save: Callable[[Mapping[str, Completion]], None],
    *,
    max_new_tokens: int,
    draw: Draw | None = None,
    name: str = "the model",
) -> dict[str, str]:
    """Answer the examples that have no recorded answer yet.

    A single failure is an answer that is missing. Where the model fails for good (a dead endpoint,
    a model that the server does not have, answers without text alone) it stops early.

    Args:
        model: The model under evaluation.
        examples: The frozen examples.
        recorded: Answers by example id from before.
        save: Called with each chunk's new answers by example id before the next chunk begins.
        max_new_tokens: Longest answer.
        draw: Which sampled answer is made; None for the greedy one.
        name: Of the model, for messages.

    Returns:
        Answers by example id. An example whose answer failed is missing.

    Raises:
        ModelError: The model fails on more than `FAILED_SHARE` of the examples, on all of the first
            chunk, or a server answers with nothing but white space. What was answered is kept.
    """
    answers = dict(recorded)
    open_examples = [example for example in examples if example.id not in answers]
    # a local model answers prompts of similar lengths together with little padding
    open_examples.sort(key=_length)
    started = time.monotonic()
    for start in range(0, len(open_examples), _CHUNK):
        chunk = open_examples[start : start + _CHUNK]
        asked = [example.messages for example in chunk]
        with_ = only_given(
            [example.tools for example in chunk], [example.response_format for example in chunk]
        )
        if draw is None:
            completions = model.generate(asked, max_new_tokens=max_new_tokens, **with_)
        else:
            completions = model.generate(
                asked,
                max_new_tokens=max_new_tokens,
                temperature=draw.temperature,
                seed=draw.seed_of(chunk[0].id),
                **with_,
            )
        fresh = {
            example.id: completion
            for example, completion in zip(chunk, completions, strict=True)
            if completion.error is None
        }
        texts = answers | {key: completion.text for key, completion in fresh.items()}
        if isinstance(model, OpenAICompatibleModel):
            _refuse_silence(name, texts)
        save(fresh)
        answers = texts
        done = start + len(chunk)
        _refuse_failure(name, completions, len(answers), done, len(open_examples), len(examples))
        left = (time.monotonic() - started) / done * (len(open_examples) - done)
        answered = len(answers) - len(recorded)
        logger.info(
            "answered %d of %d examples%s, %.0f s left",
            answered,
            len(open_examples),
            _failures(completions, done - answered),
            left,
        )
    return answers


def _length(example: Example) -> int:
    return sum(len(message.text) for message in example.messages)


def _refuse_silence(name: str, texts: Mapping[str, str]) -> None:
    """Refuse answers that are all empty, before they are recorded."""
    if texts and not any(text.strip() for text in texts.values()):
        raise ModelError(
            f"{name} must answer with text, got {len(texts)} of {len(texts)} answers without any; "
            "see its chat template, and whether its reasoning uses up max_tokens, then start again"
        )


def _refuse_failure(
    name: str, completions: Sequence[Completion], there: int, done: int, open_: int, total: int
) -> None:
    """Refuse to go on with a model that does not answer.

    Args:
        name: Of the model.
        completions: The last chunk's.
        there: Answers that there are.
        done: Questions that were asked, of those that were open.
        open_: Those.
        total: All questions.
    """
    missing = done - (there - (total - open_))
    is_dead = there == 0 or missing > max(1, FAILED_SHARE * total)
    errors = [completion.error for completion in completions if completion.error is not None]
    if is_dead and errors:
        raise ModelError(
            f"{name} must answer what it is asked, got no answer to {missing} of {done} questions: "
            f"{errors[-1]}; see that it is up and serves this model, then start again: what was "
            "answered is kept"
        )


def _failures(completions: Sequence[Completion], failed: int) -> str:
    """Say how many questions have no answer so far, and why the last one has none."""
    errors = [completion.error for completion in completions if completion.error is not None]
    why = f" ({errors[-1]})" if errors else ""
    return f", {failed} asked without an answer{why}" if failed else ""


def compare(
    examples: Sequence[Example], champion: Mapping[str, str], challenger: Mapping[str, str]
) -> Comparison:
    """Score both models' answers by exact match after normalisation."""
    same = all(champion.get(e.id) == challenger.get(e.id) is not None for e in examples)
    return Comparison(
        champion={e.id: _score(e, champion) for e in examples},
        challenger={e.id: _score(e, challenger) for e in examples},
        identical_outputs=same,
    )


def _score(example: Example, answers: Mapping[str, str]) -> bool | None:
    answer = answers.get(example.id)
    target = example.right_answer
    return None if answer is None or target is None else exact_match(answer, target)
