"""A few answers before and after training, for people to look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from ratchet.improve.curation.rows import answer_of_trainer, of_trainer
from ratchet.improve.training.examples import Example, last_asked, tools_of
from ratchet.models import HuggingFaceModel

_FILE = "samples.json"
_TOKENS = 48
_SAMPLED_AT_ONCE = 8


class Sample(BaseModel):
    """A prompt with its answers before and after training.

    Attributes:
        wanted: The answer that was to be learnt; for KTO the one that got the thumb.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str
    wanted: str
    before: str
    after: str


def choose(examples: Sequence[Example], count: int, rng: np.random.Generator) -> list[Example]:
    """Choose examples to answer, in their order; of thumbs only those that went up."""
    wanted = [example for example in examples if example.get("label", True)]
    places = rng.permutation(len(wanted))[:count]
    return [wanted[place] for place in sorted(places)]


def answers_before(trainer: Any, chosen: Sequence[Example], work: Path) -> list[str]:
    """Answer with the model that training starts from, once a run.

    Args:
        trainer: Before its first step.
        chosen: From `choose`.
        work: The run's folder, which keeps them for a run that goes on later.
    """
    path = work / _FILE
    if path.exists():
        return list(json.loads(path.read_text("utf-8")))
    texts = answers(trainer, chosen)
    path.write_text(json.dumps(texts), "utf-8")
    return texts


def answers(trainer: Any, chosen: Sequence[Example]) -> list[str]:
    """Answer with the trainer's model as it is."""
    tokenizer = copy(trainer.processing_class)
    tokenizer.padding_side = "left"
    trained = trainer.accelerator.unwrap_model(trainer.model)
    was_training = trained.training
    trained.eval()
    model = HuggingFaceModel(trained, tokenizer, "", _SAMPLED_AT_ONCE, one_line=False)
    conversations = [[of_trainer(turn) for turn in example["prompt"]] for example in chosen]
    offered = [tools_of(example) for example in chosen]
    completions = model.generate(conversations, max_new_tokens=_TOKENS, tools=offered)
    trained.train(was_training)
    return [completion.text for completion in completions]


def compare(
    chosen: Sequence[Example], before: Sequence[str], after: Sequence[str]
) -> tuple[Sample, ...]:
    """Put prompts, what was wanted and both answers together."""
    return tuple(
        Sample(
            prompt=last_asked(example),
            wanted=answer_of_trainer(example.get("completion") or example["chosen"]),
            before=first,
            after=second,
        )
        for example, first, second in zip(chosen, before, after, strict=True)
    )
