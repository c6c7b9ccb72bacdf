"""A server of chat completions that counts what it is asked and what it would bill.

In a thread (`with JudgeEndpoint(behaviour) as server`) or as a process of its own, whose behaviour
is to answer after a fixed latency:

    python tests/servers/judge_endpoint.py 0.1    # prints its port; GET /stats, GET /reset

Whoever sends a request pays for it, also when the reply is not fetched. A request that carries an
Idempotency-Key that was seen before is counted in `hits` and not in `billed`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen


@dataclass(frozen=True)
class Seen:
    """A request: its body, headers by lower-case name, and which one of its key it is (from 1)."""

    key: str
    body: dict
    headers: dict[str, str]
    hit: int

    @property
    def text(self) -> str:
        return self.body["messages"][-1]["content"]


@dataclass(frozen=True)
class Answer:
    """What to send after `delay` seconds; `drop` closes the connection instead."""

    status: int = 200
    text: str = "good"
    raw: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: bool = False
    usage: tuple[int, int] | None = (10, 2)

    def content(self) -> bytes:
        if self.raw is not None:
            return self.raw
        if self.status != 200:
            return json.dumps({"error": {"message": f"status {self.status}"}}).encode()
        message = {"role": "assistant", "content": self.text}
        reply = {"model": "judge-served", "choices": [{"index": 0, "message": message}]}
        if self.usage is not None:
            reply["usage"] = {
                "prompt_tokens": self.usage[0],
                "completion_tokens": self.usage[1],
            }
        return json.dumps(reply).encode()


class JudgeEndpoint:
    """See the module's text."""

    def __init__(self, behaviour: Callable[[Seen], Answer] = lambda seen: Answer()) -> None:
        self.behaviour = behaviour
        self.open: set[asyncio.Transport] = set()
        self.reset()

    def reset(self) -> None:
        self.hits: Counter[str] = Counter()
        self.billed: Counter[str] = Counter()
        self.seen: list[Seen] = []
        self.times: list[float] = []
        self.in_flight = self.most_in_flight = 0
        self.billed_tokens = [0, 0]  # of all requests with a usage, answered twice or not

    def __enter__(self) -> JudgeEndpoint:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _run(self, ready: threading.Event) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await self.listen()
        ready.set()
        await self._over.wait()
        server.close()
        for transport in list(self.open):
            transport.abort()
        await asyncio.sleep(0)

    async def listen(self) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=512)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    def take(self, body: bytes, headers: dict[str, str]) -> Answer:
        key = headers.get("idempotency-key", "")
        self.hits[key] += 1
        self.billed[key] = 1
        self.times.append(time.monotonic())
        seen = Seen(key, json.loads(body), headers, self.hits[key])
        self.seen.append(seen)
        answer = self.behaviour(seen)
        if answer.usage is not None and answer.status == 200:
            self.billed_tokens[0] += answer.usage[0]
            self.billed_tokens[1] += answer.usage[1]
        return answer

    def stats(self) -> dict:
        return {"hits": self.hits, "billed": self.billed, "most_in_flight": self.most_in_flight}


class _Connection(asyncio.Protocol):
    def __init__(self, server: JudgeEndpoint) -> None:
        self.server, self.buffer, self.working = server, b"", False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.server.open.add(transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        if first.startswith("GET "):
            if "/reset" in first:
                self.server.reset()
            self._send(Answer(raw=json.dumps(self.server.stats()).encode()))
            return
        self.working = True
        self.server.in_flight += 1
        self.server.most_in_flight = max(self.server.most_in_flight, self.server.in_flight)
        answer = self.server.take(rest[:length], headers)
        asyncio.get_running_loop().call_later(answer.delay, self._finish, answer)

    def connection_lost(self, error: Exception | None) -> None:
        self.server.open.discard(self.transport)
        self._release()

    def _release(self) -> None:
        self.server.in_flight -= self.working
        self.working = False

    def _finish(self, answer: Answer) -> None:
        self._release()
        if answer.drop:
            self.transport.close()
        elif not self.transport.is_closing():
            self._send(answer)

    def _send(self, answer: Answer) -> None:
        content = answer.content()
        lines = [f"HTTP/1.1 {answer.status} X", f"Content-Length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + content)


class EndpointProcess:
    """The server in a process of its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    def stats(self) -> dict:
        with urlopen(f"{self.url}/stats", timeout=10) as reply:
            return json.load(reply)

    def reset(self) -> None:
        urlopen(f"{self.url}/reset", timeout=10).close()


@contextmanager
def endpoint_process(latency_seconds: float) -> Iterator[EndpointProcess]:
    command = [sys.executable, str(Path(__file__)), str(latency_seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield EndpointProcess(process.stdout.readline().strip())
        finally:
            process.kill()


async def _serve(latency_seconds: float) -> None:
    server = JudgeEndpoint(lambda seen: Answer(delay=latency_seconds))
    listening = await server.listen()
    print(server.url, flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))
