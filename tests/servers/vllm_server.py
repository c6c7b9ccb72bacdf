"""A server that behaves as vLLM does about LoRA adapters, and forgets them when it restarts.

In a thread (`with VllmServer() as server`), or as a process of its own, which prints its URL:
`python -m tests.servers.vllm_server [PORT]`. The answer names the model and echoes the last
message.

What it has of vLLM 0.33, with its quirks:
- `POST /v1/load_lora_adapter` takes `lora_name` and `lora_path`, a path on its own disk; it
  answers with plain text, with 400 and "has already been loaded" for a name that is taken, with 404
  and "No adapter found" for a path without an adapter, with 400 for a rank above `--max-lora-rank`
  (`max_rank`), and with 404 where it was not started with VLLM_ALLOW_RUNTIME_LORA_UPDATING
  (`updating`). It may see a folder elsewhere than others do (`mounts`), as in a container.
- `POST /v1/unload_lora_adapter` takes `lora_name`; 404 for a name that is not loaded.
- `GET /v1/models` lists the base model without and each adapter with a `parent`.
- A model that is not loaded is a 404 of type NotFoundError whose code is the number 404.
- Adapters live in memory alone: each replica has its own, and a restart begins with none.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web


class VllmServer:
    """See the module's text.

    Attributes:
        base: Name of the base model.
        aliases: Its other names, as by `--served-model-name base alias`.
        others: Other base models, as behind a router of several servers.
        broken: Names that are listed and answered with 500.
        updating: Whether adapters may be loaded while it runs.
        load_seconds: How long a load takes.
        adapters: What is loaded: path by name.
        answers: Status of each chat completion that was asked for, with the model's name.
        bodies: What was sent for each.
        calls: Loads and unloads that came, in order.
        lost_loads: How many of the next loads are acknowledged as taken and then not there.
        mounts: Folders of this machine by the path under which the server sees them; where any is
            given it sees nothing else.
        max_rank: Highest rank of an adapter that it takes.
        broken: Names that are listed and answer with 500.
    """

    def __init__(
        self,
        base: str = "base-model",
        *,
        port: int = 0,
        updating: bool = True,
        load_seconds: float = 0.0,
        mounts: Mapping[str, Path] | None = None,
        max_rank: int = 16,
        aliases: Sequence[str] = (),
        others: Sequence[str] = (),
    ) -> None:
        self.aliases, self.others, self.broken = tuple(aliases), tuple(others), set[str]()
        self.base, self.port, self.updating = base, port, updating
        self.load_seconds, self.mounts, self.max_rank = load_seconds, mounts, max_rank
        self.adapters: dict[str, str] = {}
        self.answers: list[tuple[int, str]] = []
        self.bodies: list[dict[str, object]] = []
        self.calls: list[tuple[str, str]] = []
        self.lost_loads = 0
        self._taken: set[str] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def __enter__(self) -> VllmServer:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, without any adapter."""
        self._do(self.listen())

    def stop(self) -> None:
        """Stop listening and drop every connection, as a killed process does."""
        self._do(self._close())

    def restart(self) -> None:
        self.stop()
        self.start()

    def forget(self) -> None:
        """Lose every adapter, as at a restart."""
        self.adapters.clear()
        self._taken.clear()

    async def listen(self) -> None:
        self.forget()
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._complete)
        if self.updating:
            app.router.add_post("/v1/load_lora_adapter", self._load)
            app.router.add_post("/v1/unload_lora_adapter", self._unload)
        self._runner = web.AppRunner(app, shutdown_timeout=0.0, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    async def _close(self) -> None:
        await self._runner.cleanup()

    def _do(self, work) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, _request: web.Request) -> web.Response:
        cards = [_card(name, self.base, None) for name in (self.base, *self.aliases)]
        cards += [_card(name, name, None) for name in self.others]
        cards += [_card(name, path, self.base) for name, path in self.adapters.items()]
        return web.json_response({"object": "list", "data": cards})

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        name, path = body.get("lora_name"), body.get("lora_path")
        self.calls.append(("load", str(name)))
        if not name or not path:
            return _error(400, "InvalidUserInput", "Both 'lora_name' and 'lora_path' must be "
                          "provided.")  # fmt: skip
        async with self._locks[name]:  # a second load of a name waits for the first
            return await self._load_alone(name, path, bool(body.get("load_inplace")))

    async def _load_alone(self, name: str, path: str, inplace: bool) -> web.Response:
        if (name in self.adapters or name in self._taken) and not inplace:
            return _error(
                400,
                "InvalidUserInput",
                f"The lora adapter '{name}' has already been loaded. If you want to load the "
                "adapter in place, set 'load_inplace' to True.",
            )
        config = self._seen(path) / "adapter_config.json"
        if not config.exists():
            return _error(404, "NotFoundError", f"No adapter found for {path}")
        rank = json.loads(config.read_text()).get("r", 1)
        if rank > self.max_rank:
            said = f"LoRA rank {rank} is greater than max_lora_rank {self.max_rank}."
            return _error(400, "BadRequestError", said)
        self._taken.add(name)
        await asyncio.sleep(self.load_seconds)
        if self.lost_loads:
            self.lost_loads -= 1
            return _error(500, "InternalServerError", "the engine died while it loaded")
        self.adapters[name] = path
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    def _seen(self, path: str) -> Path:
        """Return the folder of this machine that the server sees under a path."""
        for mount, folder in (self.mounts or {}).items():
            if Path(path).is_relative_to(mount):
                return folder / Path(path).relative_to(mount)
        return Path("nowhere") if self.mounts else Path(path)

    async def _unload(self, request: web.Request) -> web.Response:
        name = (await request.json()).get("lora_name")
        self.calls.append(("unload", str(name)))
        if name not in self.adapters and name not in self._taken:
            return _error(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        self.adapters.pop(name, None)
        self._taken.discard(name)
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        model = body.get("model")
        self.bodies.append(body)
        if model in self.broken:
            self.answers.append((500, model))
            return _error(500, "InternalServerError", "the engine is dead")
        if model not in (self.base, *self.aliases, *self.others, *self.adapters):
            self.answers.append((404, model))
            return _error(404, "NotFoundError", f"The model `{model}` does not exist.", "model")
        self.answers.append((200, model))
        text = await self.text_of(body)
        head = {"id": "chatcmpl-1", "created": 1, "model": model}
        if not body.get("stream"):
            message = {"role": "assistant", "content": text, "tool_calls": []}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            reply = head | {"object": "chat.completion", "choices": [choice]}
            return web.json_response(reply)
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        deltas = [({"role": "assistant", "content": ""}, None), ({"content": text}, None)]
        for delta, reason in [*deltas, ({}, "stop")]:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            chunk = head | {"object": "chat.completion.chunk", "choices": [choice]}
            await stream.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await stream.write(b"data: [DONE]\n\n")
        return stream

    async def text_of(self, body: dict[str, Any]) -> str:
        """Return the answer; a subclass has a model answer."""
        return f"{body['model']}: {body['messages'][-1]['content']}"


def _card(name: str, root: str, parent: str | None) -> dict[str, object]:
    return {
        "id": name, "object": "model", "created": 1, "owned_by": "vllm", "root": root,
        "parent": parent, "max_model_len": None if parent else 4096, "permission": [],
    }  # fmt: skip


def _error(status: int, kind: str, message: str, param: str | None = None) -> web.Response:
    error = {"message": message, "type": kind, "param": param, "code": status}
    return web.json_response({"error": error}, status=status)


async def _serve(port: int) -> None:
    server = VllmServer(port=port)
    await server.listen()
    print(server.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
