"""What a gateway is told when it starts."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ratchet.deploy.adapters import AdapterShelf
from ratchet.settings import Settings

NO_CHAMPION = (
    "no champion yet: requests go to the backend by the names that they bear, and nothing is "
    "compared; make what it serves the champion: ratchet adopt --backend URL"
)
LOOPBACK = ("127.0.0.1", "::1", "localhost")


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
        stall_seconds: Longest silence in a stream before the backend has failed.
        answer_seconds: Longest wait for an answer that is not streamed.
        rate_per_second: Requests a key or address may send, in all workers together; 0 is no limit.
        most_bytes: Longest body of a request.
        most_waiting: Requests that are answered at a time, in all workers together; 0 is no limit.
        last_resort: What users are told when nobody answers; None: an error.
        origins: Web origins that may call, besides the gateway's own pages.
        open: Whether callers without a key are served though the address is not loopback.
        sync: Whether an answer waits until its record is on the disk, not only with the kernel.
        max_tokens: Length of an answer of the local model where a request names none.
        log_level: Of the worker's own log.
        version: Version of Ratchet, for its description.
        store_file: Device and inode of the store's file, as the parent has it open.
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
    stall_seconds: float = Field(default=30.0, gt=0.0)
    answer_seconds: float = Field(default=600.0, gt=0.0)
    rate_per_second: float = Field(default=100.0, ge=0.0)
    most_bytes: int = Field(default=4_000_000, ge=1_000)
    most_waiting: int = Field(default=2_000, ge=0)
    last_resort: str | None = None
    origins: tuple[str, ...] = ()
    open: bool = False
    sync: bool = False
    max_tokens: int = Field(default=256, ge=1)
    log_level: str = "warning"
    version: str = "0"
    store_file: tuple[int, int] | None = None

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
        return self.host in LOOPBACK or self.host.startswith("127.")
