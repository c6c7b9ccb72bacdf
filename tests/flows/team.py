"""A team that serves an assistant already: its servers, its users and what it types.

    with Team(folder, template, servers, judge, base) as team:
        team.ratchet("adopt", "--backend", servers[0].url)

The servers behave as vLLM does; users come with OpenAI's own client; Prefect, MLflow, the gateway's
processes and the training are the real ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import yaml
from openai import APIConnectionError, APIStatusError, OpenAI

from ratchet.deploy.rollout.canary import LOOK_SECONDS
from ratchet.improve.curation.dataset import trained_interactions
from ratchet.records import Interaction, TrainingSet
from ratchet.settings import Settings, load_settings
from ratchet.store import EventStore, Window
from tests.cli.in_process import run_in_process
from tests.flows.pair_sheet import compare_pairs
from tests.flows.prefect_home import ROOT, new_home, python_process
from tests.servers.judge_endpoint import Answer, JudgeEndpoint, Seen
from tests.servers.vllm_server import VllmServer

BASE = "acme/helpdesk-7b"
ALWAYS = Window(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
TOPICS = ("Billing", "Security", "Delivery", "Returns", "Profile", "Devices", "Sharing", "Backup")
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # noqa: E501
TOOL = {
    "type": "function",
    "function": {"name": "find_order", "parameters": {"type": "object", "properties": {}}},
}


def question(number: int) -> str:
    """Return a question of one topic, in words of its own."""
    topic = TOPICS[number % len(TOPICS)]
    digest = hashlib.sha256(str(number).encode()).digest()[:7]
    word = "".join(chr(ord("a") + byte % 16) for byte in digest)  # no digits: nothing is redacted
    return f"How do I change {topic} for order {word}?"


def orders(text: str) -> set[str]:
    """Return the orders that a text names: whose it is can be told from these alone."""
    return set(re.findall(r"order ([a-p]{7})\b", text))


def good_answer(text: str) -> str:
    topic = next((topic for topic in TOPICS if topic in text), "Help")
    return f"Open Settings, choose {topic}, then confirm."


def is_good(text: str) -> bool:
    return text.startswith("Open Settings")


def share_of(word: str, salt: str = "") -> float:
    """Return a number in [0, 1) that a word decides."""
    return int.from_bytes(hashlib.sha256(f"{salt}{word}".encode()).digest()[:4]) / 2**32


class ScriptedServer(VllmServer):
    """The base model helps with a third of the orders, every adapter with three quarters."""

    async def text_of(self, body: dict[str, Any]) -> str:
        said = body["messages"][-1]["content"]
        text = said if isinstance(said, str) else json.dumps(said)
        (*_, word) = ["", *re.findall(r"order ([a-p]{7})", text)]
        is_base = body["model"] == self.base
        helps = share_of(word) < 0.35 if is_base else share_of(word) > 0.25
        said = good_answer(text) if helps else "Please ask our desk, they will help you on."
        # as long as it comes, so that length tells nothing of who helps
        return said + " Thank you." * int(6 * share_of(word, f"length {is_base}"))


def judge_right_in(share: float) -> Callable[[Seen], Answer]:
    """Return a judge of pairs that names the better answer in a share of pairs, in either order."""

    def judge(seen: Seen) -> Answer:
        text = "\n".join(turn["content"] for turn in seen.body["messages"])
        one, two = (
            is_good(text.split(f"<{name} ", 1)[1].split(">\n", 1)[1])
            for name in ("answer A", "answer B")
        )
        if one == two:
            return Answer(text="Verdict: tie")
        (word, *_) = re.findall(r"order ([a-p]{7})", text)
        right = share_of(word, "judge") < share
        return Answer(text=f"Verdict: {'A' if one == right else 'B'}")

    return judge


@dataclass(frozen=True)
class Reply:
    """What a user's request came to."""

    status: int
    version: str = ""
    text: str = ""
    key: str = ""
    token: str = ""


@dataclass
class Team:
    """See the module's text.

    Attributes:
        folder: Where the team works; the home is `home` in it.
        template: Of the home: MLflow's and Prefect's tables, which take seconds to make.
        servers: The replicas.
        judge: Where its judge answers.
        base: Folder of the served model's weights.
        replies: Of all requests of users, in order.
    """

    folder: Path
    template: Path
    servers: Sequence[VllmServer]
    judge: JudgeEndpoint
    base: Path
    replies: list[Reply] = field(default_factory=list)
    _run: Callable[[str], str] | None = None

    def __enter__(self) -> Team:
        self._held = ExitStack()
        judges = self.folder / "judges.yaml"
        spec = {
            "name": "careful", "mode": "pairwise",
            "endpoint": {"url": self.judge.url, "model": "careful"},
        }  # fmt: skip
        judges.write_text(yaml.safe_dump({"judges": [spec]}))
        made = new_home(
            self.folder, self.template, RATCHET_JUDGES=str(judges),
            RATCHET_BASE_MODEL=str(self.base), RATCHET_EMBEDDING="words",
        )  # fmt: skip
        self.environ = self._held.enter_context(made.serving())
        for name in ("RATCHET_SETTINGS", "RATCHET_MODEL_NAME", "RATCHET_BACKEND"):
            self.environ.pop(name, None)
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    @property
    def settings(self) -> Settings:
        return load_settings(self.environ, self.folder)

    @property
    def store(self) -> EventStore:
        return EventStore.open(self.settings.store_url)

    # What people type -------------------------------------------------------------------------

    def ratchet(self, *words: object, code: int = 0) -> str:
        """Run the command in the team's folder; it has to end with this code."""
        ours = {name: value for name, value in self.environ.items() if name.startswith(_OURS)}
        done = run_in_process(*words, folder=self.folder, environment=ours)
        assert done.returncode == code, (words, done.stdout[-3000:], done.stderr[-3000:])
        return done.stdout + done.stderr

    def serve(self, *words: str) -> None:
        """Start the gateway and wait until it answers."""
        log = (self.folder / "gateway.log").open("ab")
        self.gateway = subprocess.Popen(
            [sys.executable, "-m", "ratchet.cli", "serve", "--port", str(self.port), *words],
            env=self.environ, cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        self._held.callback(self._stop_gateway)
        self._held.callback(log.close)
        until(lambda: _answers(f"{self.url}/healthz"), 60.0)

    def _stop_gateway(self) -> None:
        self.gateway.send_signal(signal.SIGINT)
        try:
            self.gateway.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.gateway.pid, signal.SIGKILL)
            self.gateway.wait()

    def run(self, statements: str) -> str:
        """Run statements in a process in which the flows are imported; return what it printed."""
        if self._run is None:
            first = f"import os; os.chdir({str(self.folder)!r})\n" + _FLOWS
            process = python_process(self.environ | _AT_ROOT, first, seconds=_MOST_SECONDS)
            self._run = self._held.enter_context(process)
        printed = self._run(statements)
        with (self.folder / "flows.log").open("a") as log:
            log.write(printed)
        return printed

    def await_look(self, lag: float) -> None:
        """Wait until a look at a rollout reads what has been said; one is taken a minute."""
        read = time.time() + lag
        time.sleep(LOOK_SECONDS - read % LOOK_SECONDS + lag + 0.5)

    # What came of it --------------------------------------------------------------------------

    def trained(self) -> list[str]:
        """Return the ids of the interactions that the latest training set holds."""
        found = self.store.latest(TrainingSet)
        assert found is not None
        return sorted(trained_interactions(self.settings.home, [found]))

    def user_of(self, interaction: str) -> str | None:
        """Return who asked."""
        found = self.store.stored_interactions([interaction])
        return found[interaction].user_id if interaction in found else None

    def compare(self, sheet: Path) -> None:
        """Fill in a sheet of pairs as a person who knows which answer is better."""
        compare_pairs(sheet, is_good)

    def files_beside_the_store(self) -> list[Path]:
        """Return all files but those that keep or analyze what everybody said, whatever they allow.

        Consent is about training: a page of failures shows what went wrong, whoever said it.
        """
        home = self.settings.home
        keeping = (home / "gateway", home / "history")
        return [
            path
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
            and not path.name.startswith(("store.db", "failures."))
            and not any(path.is_relative_to(folder) for folder in keeping)
        ]

    def text_of(self, path: Path) -> str:
        """Return all texts of a file."""
        if path.suffix == ".parquet":
            return str(pq.read_table(path).to_pylist())
        return path.read_bytes().decode("utf-8", "replace")

    # What users do ----------------------------------------------------------------------------

    def client(self) -> OpenAI:
        made = OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=180.0)
        self._held.callback(made.close)
        return made

    def ask(self, client: OpenAI, user: str, content: Any, **fields: Any) -> Reply:
        """Send one request as an application does; what came of it is kept."""
        stream = fields.pop("stream", False)
        request: dict[str, Any] = {
            "model": BASE, "user": user, "messages": [{"role": "user", "content": content}],
        } | fields  # fmt: skip
        try:
            reply = _streamed(client, request) if stream else _whole(client, request)
        except APIStatusError as error:
            reply = Reply(error.status_code)
        except APIConnectionError:
            reply = Reply(0)
        self.replies.append(reply)
        return reply

    def feedback(self, *events: dict[str, Any]) -> None:
        """Send what users said of answers."""
        done = httpx.post(f"{self.url}/v1/feedback", json={"events": list(events)}, timeout=30.0)
        assert done.status_code == 200, done.text
        assert done.json() == {"accepted": len(events), "rejected": []}, done.text

    def react(self, reply: Reply, text: str) -> list[dict[str, Any]]:
        """Return what a user says of an answer: thumbs, and the right answer for a bad one."""
        about = {"interaction_id": reply.key, "token": reply.token}
        good = is_good(reply.text)
        said = [{"id": f"{reply.key}-t", "kind": "thumbs", "value": "up" if good else "down"}]
        if not good:
            right = {"kind": "correction", "value": good_answer(text)}
            said.append({"id": f"{reply.key}-c"} | right)
        return [event | about for event in said]

    def interactions(self) -> list[Interaction]:
        """Return what is stored, once all that users were answered has arrived there."""
        with_key = {reply.key for reply in self.replies if reply.key}
        store = self.store
        until(lambda: len(store.stored_interactions(sorted(with_key))) == len(with_key), 30.0)
        return [row for rows in store.iter_interactions(ALWAYS) for row in rows]


def until(condition: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.1)


def _whole(client: OpenAI, request: dict[str, Any]) -> Reply:
    answer = client.chat.completions.create(**request)
    told: Any = answer.model_extra or {}
    text = answer.choices[0].message.content or ""
    return Reply(200, answer.model, text, answer.id, told["ratchet"]["token"])


def _streamed(client: OpenAI, request: dict[str, Any]) -> Reply:
    parts: list[str] = []
    with client.chat.completions.with_streaming_response.create(**request, stream=True) as raw:
        token, key = raw.headers["x-ratchet-token"], raw.headers["x-ratchet-interaction"]
        version = raw.headers["x-ratchet-version"]
        for line in raw.iter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line[6:])
                assert "error" not in chunk, line
                for choice in chunk["choices"]:
                    parts.append(choice["delta"].get("content") or "")
    return Reply(200, version, "".join(parts), key, token)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5.0).status_code == 200
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_MOST_SECONDS = 3_600.0
_OURS = ("RATCHET_", "PREFECT_", "MLFLOW_")
_AT_ROOT = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
_FLOWS = """
import json
from ratchet.flows.loop import main as loop
from ratchet.flows.rollout import rollout
def cycle(options):
    print("ended with", loop([json.dumps(options)]))
"""
