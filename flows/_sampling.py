"""Examples for the gate drawn from recorded traffic, where no file of examples is given."""

from __future__ import annotations

from ratchet.analyze.failures.traffic_sample import SampleRules, freeze_questions, questions_set
from ratchet.analyze.window import read_outcomes
from ratchet.flows._runtime import logger, now, workspace
from ratchet.improve.curation.dataset import trained_interactions
from ratchet.judges.usable import usable_versions
from ratchet.records import ExampleSet, TrainingSet
from ratchet.review.queue import open_safety_ids
from ratchet.safety.redaction import RedactionConfig, redactor
from ratchet.store.cycles import recorded_so_far
from ratchet.store.history import History


def sampled_examples(rules: SampleRules, max_new_tokens: int) -> ExampleSet:
    """Return the set that serves every cycle; draw it from all traffic where there is none yet.

    Raises:
        WaitingError: There is too little traffic.
    """
    return questions_set(workspace().store, rules) or _draw(rules, max_new_tokens)


def _draw(rules: SampleRules, max_new_tokens: int) -> ExampleSet:
    work = workspace()
    window = recorded_so_far(work.store, now())
    made = freeze_questions(
        work.store,
        read_outcomes(work.store, window, judges=usable_versions(work.store)),
        rules,
        redact=lambda texts: redactor(RedactionConfig()).redact(texts).texts,
        history=History.open(work.settings.history, of=work.store),
        now=now(),
        max_new_tokens=max_new_tokens,
        withheld=open_safety_ids(work.store),
        trained=trained_interactions(work.settings.home, work.store.records(TrainingSet)),
    )
    users = len({example.user_id for example in made.examples})
    logger.info("froze %s: %d questions of %d users", made.id, len(made.examples), users)
    return made
