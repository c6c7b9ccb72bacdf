"""Asks a model thousands of questions and keeps every answer as it comes.

    asked = ask_endpoint(questions, endpoint, limits, api_key=key, save=save)

An answer that was paid for is not paid for again: a worker takes its next question when its last
reply is saved, so that a process that is killed has at most `concurrency` replies that it did not
keep. One that is told to stop keeps all of them. Requests carry the question's key as
`Idempotency-Key`: a gateway that honours it bills no question twice, whatever happens here.

Requests run on an event loop in one thread, `save` and `progress` are called one after the other in
another, and the caller's thread only waits: an interrupt, which Python raises there, hits neither a
transaction nor a lock in the middle. The caller may itself run an event loop.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from ratchet.models.base import LanguageModel, only_given
from ratchet.models.endpoint import Endpoint, Question, Reply
from ratchet.models.endpoint_run import STOPPED, EndpointRun
from ratchet.models.limits import Limits

__all__ = [
    "Asked",
    "Endpoint",
    "Limits",
    "Progress",
    "ProgressLog",
    "Question",
    "Reply",
    "ask_endpoint",
    "ask_model",
]

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 1.0
_PATIENCE = 2  # interrupts: the first ends asking, the second the requests, a third also saving
Save = Callable[[Sequence[Reply]], None]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        done: Questions that are answered or failed.
        total: Different questions.
        failed: Questions without an answer, of those done.
        spent: In the currency of the configured prices.
        rate: Questions done per second, since the start.
        seconds_left: None before the first is done.
    """

    done: int
    total: int
    failed: int
    spent: float
    rate: float
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of the questions: `total = answered + failed + not_asked`.

    Attributes:
        asked: Questions that were put to the model, those that failed among them.
        failed: Count of questions by the reason why they have no answer.
        not_asked: Questions that were left.
        why_not_asked: Why some were left; None where none was.
        spent: In the currency of the prices. A request whose reply was lost counts at its worst.
        seconds: Wall time.
    """

    asked: int
    failed: Mapping[str, int]
    not_asked: int
    why_not_asked: str | None
    spent: float
    seconds: float

    @property
    def answered(self) -> int:
        """Questions whose reply was saved."""
        return self.asked - sum(self.failed.values())


class ProgressLog:
    """Logs progress, at most every few seconds."""

    def __init__(self, every_seconds: float = 5.0) -> None:
        self._every = every_seconds
        self._next = time.monotonic() + every_seconds

    def __call__(self, progress: Progress) -> None:
        """Log where it is time."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._every
        left = "" if progress.seconds_left is None else f", {progress.seconds_left:.0f} s left"
        logger.info(
            "asked %d of %d questions, %d failed, %.2f spent, %.1f a second%s",
            *(progress.done, progress.total, progress.failed, progress.spent, progress.rate, left),
        )


def ask_endpoint(
    questions: Sequence[Question],
    endpoint: Endpoint,
    limits: Limits,
    *,
    api_key: str | None,
    save: Save,
    progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
    fail: Callable[[str, str], None] | None = None,
) -> Asked:
    """Ask a server that speaks OpenAI's chat completions.

    A question that fails is counted and not saved, so that a later run asks it again. Passing
    failures (429, 5xx, timeouts, broken connections) are tried again up to `limits.attempts`
    times, as late as the server's Retry-After asks. Asking ends early when the spend ceiling would
    be exceeded, when the endpoint fails many questions in a row, and when it is told to stop.

    An interrupt (KeyboardInterrupt or whatever else a signal handler raises in this thread) works
    like `stop` and is raised again once what is in flight is saved; a second one gives up what is
    in flight, a third does not wait for `save` either. A SIGTERM ends the process at once unless
    the caller handles it: set `stop` there.

    Args:
        questions: What to ask, in this order; of several with one key the first is asked.
        endpoint: Whom.
        limits: Pace, attempts and spend ceiling.
        api_key: Sent as a bearer token; it is in no log and no error.
        save: Called with the replies that came since its last call, in their order; in another
            thread, with this one's context variables.
        progress: Called there about ten times a second; None logs every few seconds.
        stop: Set it, from any thread, to finish what is in flight and return.
        fail: Called in another thread with the key of a question that failed, and why.

    Raises:
        ModelError: The server refuses the key, does not know the model or the address is wrong.
        Exception: Whatever `save` or `progress` raises; nothing more is asked then.
    """
    unique = _unique(questions)
    meter = _Meter(len(unique), progress)
    if not unique:
        return meter.report(0, {}, None, 0.0)
    stop = stop or threading.Event()
    run = EndpointRun(unique, endpoint, limits, api_key=api_key, stop=stop, fail=fail)
    _supervise(run, lambda: _collect(run, save, meter))
    if run.error is not None:
        raise run.error
    return meter.report(run.asked, run.failed, run.why_closed, run.spent)


def ask_model(
    questions: Sequence[Question],
    model: LanguageModel,
    *,
    max_new_tokens: int,
    save: Save,
    progress: Callable[[Progress], None] | None = None,
    batch_size: int = 32,
    stop: threading.Event | None = None,
) -> Asked:
    """Ask a model in this process, batch by batch; each batch is saved before the next begins.

    Args:
        questions: What to ask, in this order; of several with one key the first is asked.
        model: Whom. It is not told the questions' schemas.
        max_new_tokens: Longest answer.
        save: Called with each batch's replies.
        progress: Called after each batch; None logs every few seconds.
        batch_size: Questions a batch.
        stop: Set it to return after the batch that is at work.
    """
    unique = _unique(questions)
    meter = _Meter(len(unique), progress)
    name = f"local:{model.digest[:12]}"
    failed: Counter[str] = Counter()
    asked = 0
    while asked < len(unique) and not (stop is not None and stop.is_set()):
        batch = unique[asked : asked + batch_size]
        conversations = [question.conversation for question in batch]
        asked_with = only_given(
            [question.tools or None for question in batch],
            [question.response_format for question in batch],
        )
        completions = model.generate(conversations, max_new_tokens=max_new_tokens, **asked_with)
        replies = []
        for question, completion in zip(batch, completions, strict=True):
            if completion.error is None:
                seconds = completion.latency_seconds
                replies.append(
                    Reply(question.key, completion.text, model=name, latency_seconds=seconds)
                )
            else:
                failed[completion.error] += 1
        if replies:
            save(replies)
        asked += len(batch)
        meter.tell(asked, failed.total(), 0.0)
    return meter.report(asked, failed, STOPPED, 0.0)


class _Meter:
    """Measures time and tells progress."""

    def __init__(self, total: int, progress: Callable[[Progress], None] | None) -> None:
        self._total, self._started = total, time.monotonic()
        self._progress = progress or ProgressLog()

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def tell(self, done: int, failed: int, spent: float) -> None:
        rate = done / max(self._seconds, 1e-9)
        left = (self._total - done) / rate if done else None
        self._progress(Progress(done, self._total, failed, spent, rate, left))

    def report(self, asked: int, failed: Mapping[str, int], why: str | None, spent: float) -> Asked:
        left = self._total - asked
        result = Asked(asked, dict(failed), left, why if left else None, spent, self._seconds)
        logger.info(
            "%d of %d questions answered in %.0f s, %d failed, %d not asked%s, %.2f spent",
            *(result.answered, self._total, result.seconds, sum(failed.values()), left),
            *(f" ({result.why_not_asked})" if left else "", spent),
        )
        return result


def _unique(questions: Iterable[Question]) -> list[Question]:
    first: dict[str, Question] = {}
    for question in questions:
        first.setdefault(question.key, question)
    return list(first.values())


def _collect(run: EndpointRun, save: Save, meter: _Meter) -> None:
    """Save what arrives until the run is over.

    One call of `save` takes all that arrived during the one before, so that a slow database makes
    larger groups rather than a queue.
    """
    told = float("-inf")
    try:
        run.start()
        over = False
        while not over:
            over = run.wait(_TICK_SECONDS)
            if group := run.arrived():
                save(group)
                run.confirm(len(group))
            if over or time.monotonic() >= told + _TICK_SECONDS:
                told = time.monotonic()
                meter.tell(run.done, run.failed.total(), run.spent)
    finally:
        run.cancel()
        run.join()


def _supervise(run: EndpointRun, collect: Callable[[], None]) -> None:
    """Run `collect` in a thread and wait for it; interrupts end the run in steps.

    The two threads share a SimpleQueue alone. Its lock is C's: an interrupt within one of Python's
    locks, as in `threading.Event`, can leave it locked for ever.
    """
    context = contextvars.copy_context()
    outcome: list[BaseException | None] = []
    ended: SimpleQueue[None] = SimpleQueue()

    def work() -> None:
        try:
            context.run(collect)
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)
        ended.put(None)

    interrupts: list[BaseException] = []
    threading.Thread(target=work, name="ratchet-saving", daemon=True).start()
    while not outcome:
        try:
            with suppress(Empty):
                ended.get(timeout=_LONGEST_WAIT_SECONDS)
        except BaseException as interrupt:
            interrupts.append(interrupt)
            if len(interrupts) > _PATIENCE:
                raise
            run.close(STOPPED)
            if len(interrupts) == _PATIENCE:
                run.cancel()
    if outcome[0] is not None:
        raise outcome[0]
    if interrupts:
        raise interrupts[0]
