"""Thousands of requests to one endpoint: workers, retries, pace, spend ceiling.

`EndpointRun` is the engine of `ratchet.models.asking.ask_endpoint`, which is what to call.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from ratchet.files.moments import retry_after_seconds
from ratchet.models.endpoint import (
    ChatReply,
    Endpoint,
    Question,
    Reply,
    checked_key,
    header_value,
    read_completion,
    refused,
    request_body,
    request_headers,
    shown,
)
from ratchet.models.limits import (
    Ledger,
    Limits,
    Pace,
    Tokens,
    backoff_seconds,
    estimate_input_tokens,
)

logger = logging.getLogger(__name__)

STOPPED = "it was told to stop"
CEILING_REACHED = "the spend ceiling would be exceeded"

_PASSING = {408, 409, 425, 429}  # 409: a gateway still works on a request of the same key
_MAYBE_BILLED = {502, 504}  # a gateway that lost the reply of a model that may have answered
_REFUSED = {401, 402, 403, 404, 405}
_LONGEST_PAUSE_SECONDS = 300.0
_GRACE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an attempt has no answer: a short reason to count by, and what the server said."""

    reason: str
    detail: str = ""
    passing: bool = False
    retry_after: float | None = None
    maybe_billed: bool = False


@dataclass(slots=True)
class _Arrival:
    reply: Reply
    saved: asyncio.Future[None]


def _acknowledge(group: Sequence[_Arrival]) -> None:
    for arrival in group:
        if not arrival.saved.done():
            arrival.saved.set_result(None)


class EndpointRun:
    """One run over questions, on an event loop in its own thread.

    Public methods are for the thread that collects the replies, all others run on the loop.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        endpoint: Endpoint,
        limits: Limits,
        *,
        api_key: str | None,
        stop: threading.Event,
        fail: Callable[[str, str], None] | None = None,
    ) -> None:
        self._tell_failure = fail
        self._open: Iterator[Question] = iter(questions)
        self._workers = min(limits.concurrency, len(questions))
        self._endpoint, self._limits, self._stop = endpoint, limits, stop
        self._api_key = checked_key(api_key, endpoint.api_key_variable)
        self._ledger = Ledger(limits)
        self._request_pace = Pace(limits.requests_per_minute)
        self._token_pace = Pace(limits.tokens_per_minute)
        self._paused_until = float("-inf")
        self._unanswered = 0  # questions in a row that failed for the endpoint's sake
        self._changed = asyncio.Event()
        self._closed = asyncio.Event()
        self._arrived: list[_Arrival] = []
        self._news = threading.Event()
        self._thread = threading.Thread(target=self._main, name="ratchet-asking", daemon=True)
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._over = False
        self._came = 0
        self.asked = 0
        self.failed: Counter[str] = Counter()
        self.why_closed: str | None = None
        self.error: BaseException | None = None

    @property
    def done(self) -> int:
        """Questions whose reply is saved or that failed."""
        return self._came - len(self._arrived) + self.failed.total()

    @property
    def spent(self) -> float:
        """What it cost so far."""
        return self._ledger.spent

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait for news; return whether the run is over, so that nothing more arrives."""
        self._news.wait(seconds)
        self._news.clear()
        if self._stop.is_set():
            self.close(STOPPED)
        return self._over

    def arrived(self) -> list[Reply]:
        """Return replies that are not confirmed, in the order in which they came."""
        return [arrival.reply for arrival in self._arrived.copy()]

    def confirm(self, count: int) -> None:
        """Take the first replies off, which are saved; whoever asked for them goes on."""
        group = self._arrived[:count]
        self._call(lambda: _acknowledge(group))
        del self._arrived[:count]

    def close(self, why: str) -> None:
        """Ask nothing more; what is in flight goes on."""
        self._call(lambda: self._close(why))

    def cancel(self) -> None:
        """Give up what is in flight."""
        self._call(self._cancel)

    def join(self) -> None:
        """Wait for the end of the thread."""
        if self._thread.ident is not None:
            self._thread.join()
        else:
            self._loop.close()

    def _call(self, function: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(function)
            except RuntimeError:  # the loop was closed since
                logger.debug("the run was over already")

    # On the loop -----------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._ask_all())
        except asyncio.CancelledError:
            logger.debug("requests in flight were given up")
        except BaseException as error:
            self.error = self.error or error
        finally:
            self._over = True
            self._news.set()

    async def _ask_all(self) -> None:
        self._task = asyncio.current_task()
        headers = request_headers(self._api_key)
        # The workers bound the connections. A bound in the pool would add a way to hang: httpcore
        # loses the slot of a connection whose request is cancelled while it opens.
        kept = httpx.Limits(max_keepalive_connections=self._workers, max_connections=None)
        timeout = self._limits.timeout_seconds
        async with httpx.AsyncClient(headers=headers, timeout=timeout, limits=kept) as client:
            await asyncio.gather(*(self._work(client) for _ in range(self._workers)))

    async def _work(self, client: httpx.AsyncClient) -> None:
        for question in self._open:
            result = await self._answer(client, question)
            if isinstance(result, Reply):
                arrival = _Arrival(result, self._loop.create_future())
                self._came += 1
                self._arrived.append(arrival)
                self._news.set()
                await arrival.saved
            elif result is not None:
                self._fail(question, result)
            if self._is_closed():
                return

    def _fail(self, question: Question, failure: _Failure) -> None:
        if failure.reason not in self.failed:
            logger.warning(
                "question %s failed: %s %s", question.key, failure.reason, failure.detail
            )
        self.failed[failure.reason] += 1
        if self._tell_failure is not None:
            detail = f": {failure.detail}" if failure.detail else ""
            self._tell_failure(question.key, f"{failure.reason}{detail}")
        self._news.set()
        if failure.passing:
            self._unanswered += 1
            if self._unanswered >= max(20, 2 * self._limits.concurrency):
                self._close(
                    f"the endpoint failed {self._unanswered} questions in a row, "
                    f"the last with: {failure.reason}"
                )

    async def _answer(
        self, client: httpx.AsyncClient, question: Question
    ) -> Reply | _Failure | None:
        """Ask one question, again where that helps; None where it could not be asked at all."""
        body = request_body(self._endpoint, question)
        texts = [message.text for message in question.conversation]
        if self._endpoint.structured and question.schema is not None:
            texts.append(json.dumps(question.schema))
        texts += [
            json.dumps(asked) for asked in (question.tools, question.response_format) if asked
        ]
        estimate = Tokens(estimate_input_tokens(*texts), self._endpoint.max_tokens)
        failure: _Failure | None = None
        for attempt in range(1, self._limits.attempts + 1):
            if not await self._admit(estimate):
                break
            self.asked += attempt == 1
            result = await self._attempt(client, question, body, estimate, attempt)
            if isinstance(result, Reply):
                self._unanswered = 0
                return result
            failure = result
            if not failure.passing:
                self._unanswered = 0
                break
            if attempt < self._limits.attempts:
                await self._back_off(question, failure, attempt)
        return failure

    async def _admit(self, estimate: Tokens) -> bool:
        """Wait for room under the ceiling and for the pace; False where no more may be asked."""
        while not self._is_closed() and not self._ledger.fits(estimate):
            if self._ledger.is_idle:
                self._close(CEILING_REACHED)
            else:
                await self._changed.wait()
        if self._is_closed():
            return False
        self._ledger.reserve(estimate)
        now = time.monotonic()
        wait = max(self._request_pace.take(1, now), self._token_pace.take(estimate.total, now))
        await self._sleep(wait)
        while not self._is_closed() and (wait := self._paused_until - time.monotonic()) > 0:
            await self._sleep(wait)
        if self._is_closed():
            self._settle(estimate, 0.0)
            return False
        return True

    async def _attempt(
        self,
        client: httpx.AsyncClient,
        question: Question,
        body: bytes,
        estimate: Tokens,
        attempt: int,
    ) -> Reply | _Failure:
        worst = cost = self._ledger.worst_case(estimate)
        counted: Tokens | None = None
        started = time.monotonic()
        try:
            result = await self._send(client, question.key, body)
            if isinstance(result, _Failure):
                cost = worst if result.maybe_billed else 0.0
                return result
            if result.input_tokens is not None and result.output_tokens is not None:
                counted = Tokens(result.input_tokens, result.output_tokens)
                cost = self._ledger.cost(counted)
            return Reply(
                key=question.key,
                text=result.text,
                model=result.model or self._endpoint.model,
                input_tokens=result.input_tokens,
                output_tokens=result.output_tokens,
                cost=cost,
                latency_seconds=time.monotonic() - started,
                attempts=attempt,
                cut_off=result.cut_off,
                refused=result.refused,
            )
        finally:
            self._settle(estimate, cost, counted)

    async def _send(self, client: httpx.AsyncClient, key: str, body: bytes) -> ChatReply | _Failure:
        headers = {"Idempotency-Key": header_value(key)}
        try:
            # httpx bounds the wait for each piece of a reply, the outer clock that for all of it.
            async with asyncio.timeout(self._limits.timeout_seconds + _GRACE_SECONDS):
                response = await client.post(self._endpoint.address, content=body, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return _Failure("no connection", self._shown(str(error)), passing=True)
        except (httpx.TimeoutException, TimeoutError):
            return _Failure("timed out", passing=True, maybe_billed=True)
        except (httpx.HTTPError, OSError) as error:
            detail = self._shown(f"{type(error).__name__} {error}")
            return _Failure("connection lost", detail, passing=True, maybe_billed=True)
        if not response.is_success:
            return self._refusal(response)
        try:
            return read_completion(response.content)
        except ValueError as error:
            reason = f"not a chat completion: {error}"
            return _Failure(reason, self._shown(response.text), maybe_billed=True)

    def _refusal(self, response: httpx.Response) -> _Failure:
        status = response.status_code
        said = self._shown(response.text)
        if status in _REFUSED or response.is_redirect:
            self.error = self.error or refused(self._endpoint, self._api_key, status, said)
            self._close(f"the endpoint refuses requests with HTTP {status}")
            return _Failure(f"HTTP {status}", said)
        if status not in _PASSING and status < 500:
            return _Failure(f"HTTP {status}", said)
        asked_for = retry_after_seconds(response.headers.get("Retry-After"), datetime.now(UTC))
        return _Failure(f"HTTP {status}", said, True, asked_for, status in _MAYBE_BILLED)

    async def _back_off(self, question: Question, failure: _Failure, attempt: int) -> None:
        wait = backoff_seconds(question.key, attempt, self._limits.backoff_seconds)
        if failure.retry_after is not None:
            if failure.retry_after > _LONGEST_PAUSE_SECONDS:
                self._close(f"the endpoint asks to wait {failure.retry_after:.0f} s")
            wait = max(wait, failure.retry_after)
            # It means the account, not the one question: everybody waits.
            until = time.monotonic() + failure.retry_after
            self._paused_until = max(self._paused_until, until)
        await self._sleep(wait)

    def _settle(self, estimate: Tokens, cost: float, counted: Tokens | None = None) -> None:
        self._ledger.settle(estimate, cost, counted.input if counted else None)
        if counted is not None:
            self._token_pace.give_back(estimate.total - counted.total)
        self._wake()

    def _cancel(self) -> None:
        self._close(STOPPED)
        if self._task is not None:
            self._task.cancel()

    def _close(self, why: str) -> None:
        if self.why_closed is None:
            self.why_closed = why
            self._closed.set()
            self._wake()

    def _is_closed(self) -> bool:
        if self._stop.is_set():
            self._close(STOPPED)
        return self.why_closed is not None

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but not once nothing more may be asked."""
        if seconds > 0 and not self._is_closed():
            try:
                async with asyncio.timeout(seconds):
                    await self._closed.wait()
            except TimeoutError:
                return

    def _shown(self, text: str) -> str:
        return shown(text, self._api_key)
