"""An OpenAI-compatible server that echoes: the last user message comes back as the answer.

In a thread (`with MockBackend() as server`), or as a process of its own, which prints its URL:
`python tests/servers/mock_backend.py [PORT] [SECONDS]`. It reads just enough HTTP.

`behaviour` may return an HTTP status to answer with instead, "stall" to say nothing, "drop" to hang
up, "break" to end a stream in the middle, or a `Raw` reply to send as it is.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Raw:
    """A reply that is sent as it is; a stream that goes on stays open after it."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    goes_on: bool = False


class MockBackend:
    def __init__(
        self,
        behaviour: Callable[[dict], int | str | Raw | None] = lambda body: None,
        *,
        delay: float = 0.0,
    ) -> None:
        self.behaviour, self.delay = behaviour, delay
        self.seen: list[dict] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []  # their names in lower case
        self.open: set[asyncio.Transport] = set()
        self.left = 0  # connections that the other side closed while it waited for an answer

    def __enter__(self) -> MockBackend:
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
        server = await self.listen(0)
        ready.set()
        await self._over.wait()
        server.close()
        for transport in list(self.open):
            transport.abort()
        await asyncio.sleep(0)

    async def listen(self, port: int) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", port, backlog=512)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server


class _Connection(asyncio.Protocol):
    def __init__(self, server: MockBackend) -> None:
        self.server, self.buffer, self.waiting = server, b"", False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.server.open.add(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.server.open.discard(self.transport)
        self.server.left += self.waiting

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lines = [line.decode("latin-1").partition(":") for line in head.split(b"\r\n")[1:]]
        headers = {name.lower(): value.strip() for name, _, value in lines}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        if head.startswith(b"GET /v1/models HTTP"):  # asked every second; it lists none
            self._send(404, {"error": {"message": "not found", "code": "not_found"}})
            return
        body = json.loads(rest[:length] or b"{}")
        self.server.seen.append(body)
        path = head.split(b" ")[1].decode()
        self.server.paths.append(path)
        self.server.headers.append(headers)
        for kept in (self.server.seen, self.server.paths, self.server.headers):
            del kept[:-10_000]
        if self.server.delay:
            asyncio.get_running_loop().call_later(self.server.delay, self._answer, body, path)
        else:
            self._answer(body, path)

    def _answer(self, body: dict, path: str) -> None:
        wanted = self.server.behaviour(body)
        if wanted == "drop":
            self.transport.close()
        elif wanted == "stall":
            self.waiting = True
        elif isinstance(wanted, Raw):
            self._send_raw(wanted)
        elif isinstance(wanted, int):
            self._send(wanted, {"error": {"message": f"planned {wanted}", "code": "planned"}})
        elif path.endswith("/responses"):
            self._respond(body, whole=wanted != "break")
        elif body.get("stream"):
            self._stream(body, whole=wanted != "break")
        else:
            message = {"role": "assistant", "content": _echo(body)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            reply = _envelope("chat.completion", body, [choice])
            self._send(200, reply | {"usage": _USAGE})

    def _send(self, status: int, reply: dict) -> None:
        content = json.dumps(reply).encode()
        self.transport.write(
            b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (status, len(content), content)
        )

    def _respond(self, body: dict, *, whole: bool) -> None:
        """Answer as the Responses API does."""
        given = body.get("input")
        text = given if isinstance(given, str) else "nothing"
        part = {"type": "output_text", "text": text, "annotations": []}
        message = {
            "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": [part],
        }  # fmt: skip
        response = {
            "id": "resp_upstream", "object": "response", "created_at": 1, "status": "completed",
            "model": body.get("model", "mock"), "output": [message],
            "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
        }  # fmt: skip
        if not body.get("stream"):
            self._send(200, response)
            return
        begun = response | {"status": "in_progress", "output": []}
        events = [{"type": "response.created", "response": begun}]
        events += [
            {"type": "response.output_text.delta", "output_index": 0, "content_index": 0,
             "item_id": "msg_1", "delta": text[start : start + 5]}
            for start in range(0, len(text), 5)
        ]  # fmt: skip
        if whole:
            events.append({"type": "response.completed", "response": response})
        self._send_raw(Raw(events_of(events)))

    def _send_raw(self, reply: Raw) -> None:
        headers = {"Content-Type": "text/event-stream", "Connection": "close", **reply.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(f"HTTP/1.1 {reply.status} X\r\n{lines}\r\n".encode() + reply.body)
        if not reply.goes_on:
            self.transport.close()

    def _stream(self, body: dict, *, whole: bool) -> None:
        text = _echo(body)
        pieces = [text[start : start + 5] for start in range(0, len(text), 5)] or [""]
        deltas = [({"role": "assistant", "content": ""}, None)]
        deltas += [({"content": piece}, None) for piece in pieces]
        if whole:
            deltas.append(({}, "stop"))
        events = [
            _envelope(
                "chat.completion.chunk",
                body,
                [{"index": 0, "delta": delta, "finish_reason": reason}],
            )
            for delta, reason in deltas
        ]
        lines = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
        if whole:
            lines.append(b"data: [DONE]\n\n")
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in lines)
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + chunks + (b"0\r\n\r\n" if whole else b"")
        )
        if not whole:
            self.transport.close()


def events_of(events: list[dict]) -> bytes:
    """Return events of the Responses API as they are streamed."""
    numbered = (event | {"sequence_number": n} for n, event in enumerate(events))
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode())
        for event in numbered
    )


_USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def _echo(body: dict) -> str:
    said = [m.get("content") for m in body.get("messages", ()) if m.get("role") == "user"]
    return said[-1] if said and isinstance(said[-1], str) else "nothing"


def _envelope(kind: str, body: dict, choices: list[dict]) -> dict:
    model = body.get("model", "mock")
    return {"id": "upstream", "object": kind, "created": 1, "model": model, "choices": choices}


async def _serve(port: int, delay: float) -> None:
    server = MockBackend(delay=delay)
    listening = await server.listen(port)
    print(server.url, flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    arguments = [*sys.argv[1:], "0", "0"][:2] if len(sys.argv) < 3 else sys.argv[1:3]
    asyncio.run(_serve(int(arguments[0]), float(arguments[1])))
