"""What a gateway is told when it starts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ratchet.deploy.adapters import AdapterShelf
from ratchet.gateway.hosts import is_loopback
from ratchet.gateway.tokens import TOKEN_DAYS
from ratchet.processes import secrets_in
from ratchet.settings import Settings

NO_CHAMPION = (
    "no champion yet: requests go to the backend by the names that they bear, and nothing is "
    "compared; make what it serves the champion: ratchet adopt --backend URL"
)


class GatewayOptions(BaseModel):
    """Options of `ratchet serve`, frozen, handed to every worker.

    Attributes:
        settings: The home folder's settings.
        host: Address that is listened on.
        port: Its port.
        backend: Base URL of an OpenAI-compatible server; None for the local model.
        replicas: Base URLs of further servers of the same model, which share the requests.
        backend_model: Name that the backend is asked for, while one version is routed.
        backend_key: Key that the backend asks for.
        fallback: A second backend, asked when the first fails.
        fallback_model: Name of the model there, which its answers are recorded as; by default the
            one asked for.
        fallback_key: Key that the second backend asks for.
        load_adapters: Whether adapters are loaded into the backend, and unloaded, by vLLM's API.
        workers: Processes.
        gateways: Gateways behind one address, this one counted, which share the rates of callers.
        stall_seconds: Longest silence in a stream before the backend has failed.
        answer_seconds: Longest wait for an answer that is not streamed.
        rate_per_second: Events a key or address may send, in all workers of all gateways; 0 is no
            limit.
        most_bytes: Longest body of a request.
        most_waiting: Requests that are answered at a time, in all workers together; 0 is no limit.
        last_resort: What users are told when nobody answers; None: an error.
        most_answer_bytes: Longest answer of a backend, unpacked.
        header_bytes: Longest headers of a request.
        header_seconds: Longest time for them, from the connection or its last answer on.
        body_seconds: Longest time for a body.
        write_seconds: Longest time in which a client takes nothing of its answer.
        connections: Most connections of one worker.
        connections_per_address: Most of them from one address.
        proxies: Addresses and networks of proxies, whose `X-Forwarded-For` is believed.
        tls_cert: File of the certificate, with those that it hangs on; None serves plain HTTP.
        tls_key: File of its key.
        passed_fields: Fields of requests that Ratchet does not know and the backend gets; None is
            all.
        blobs: Folder in which bytes of pictures, sound and files are kept; None keeps none.
        token_days: So long a token gives feedback on its answer.
        origins: Web origins that may call, besides the gateway's own pages.
        open: Whether callers without a key are served though the address is not loopback.
        sync: Whether an answer waits until its record is on the disk, not only with the kernel.
        max_tokens: Length of an answer of the local model where a request names none.
        version: Version of Ratchet, for its description.
        store_file: Device and inode of the store's file, as the parent has it open.
        counts: Folder in which the workers write what they counted; None where there is one.
        worker: Number of this worker.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: Settings
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535)
    backend: str | None = None
    replicas: tuple[str, ...] = ()
    backend_model: str | None = None
    backend_key: str | None = Field(default=None, repr=False)
    fallback: str | None = None
    fallback_model: str | None = None
    fallback_key: str | None = Field(default=None, repr=False)
    load_adapters: bool = False
    workers: int = Field(default=1, ge=1, le=64)
    gateways: int = Field(default=1, ge=1, le=1_000)
    stall_seconds: float = Field(default=30.0, gt=0.0)
    answer_seconds: float = Field(default=600.0, gt=0.0)
    rate_per_second: float = Field(default=100.0, ge=0.0)
    most_bytes: int = Field(default=4_000_000, ge=1_000)
    most_waiting: int = Field(default=2_000, ge=0)
    last_resort: str | None = None
    most_answer_bytes: int = Field(default=64_000_000, ge=1_000)
    header_bytes: int = Field(default=32_768, ge=1_000)
    header_seconds: float = Field(default=10.0, gt=0.0)
    body_seconds: float = Field(default=60.0, gt=0.0)
    write_seconds: float = Field(default=60.0, gt=0.0)
    connections: int = Field(default=4_000, ge=2)
    connections_per_address: int = Field(default=1_000, ge=1)
    proxies: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    passed_fields: tuple[str, ...] | None = None
    blobs: Path | None = None
    token_days: float = Field(default=TOKEN_DAYS, gt=0.0, allow_inf_nan=False)
    origins: tuple[str, ...] = ()
    open: bool = False
    sync: bool = False
    max_tokens: int = Field(default=256, ge=1)
    version: str = "0"
    store_file: tuple[int, int] | None = None
    counts: Path | None = None
    worker: int = Field(default=0, ge=0)

    @property
    def shelf(self) -> AdapterShelf:
        """Where adapters lie for the backend."""
        settings = self.settings
        return AdapterShelf(settings.home, settings.adapter_root, settings.backend_adapter_root)

    @property
    def folder(self) -> Path:
        """Folder of the log and the secret."""
        return self.settings.home / "gateway"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        return is_loopback(self.host)


def told_to_worker(options: GatewayOptions, environ: Mapping[str, str]) -> bytes:
    """Return what a worker reads from its standard input: its options, and variables with secrets.

    Its environment holds neither, since others may be able to read that.
    """
    told = {"options": options.model_dump(mode="json"), "environment": secrets_in(environ)}
    return json.dumps(told).encode()


def heard_by_worker(told: bytes) -> tuple[GatewayOptions, dict[str, str]]:
    """Return the options and the variables that a worker was told."""
    heard = json.loads(told)
    return GatewayOptions.model_validate(heard["options"]), dict(heard["environment"])
