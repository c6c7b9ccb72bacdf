"""Langfuse's API is read page by page, obeyed, and gone on with where the last look ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ratchet.collect.recognising import Recogniser
from ratchet.collect.report import IngestReport, combined
from ratchet.doors import langfuse_api
from ratchet.doors.configured import Source, harvest
from ratchet.doors.langfuse_api import Keys, LangfuseApi, address_of, keys_of
from ratchet.doors.pages import Server, look, preview_server
from ratchet.doors.servers import Access, given_of, server_of
from ratchet.errors import InvalidInputError, SourceError
from ratchet.store import EventStore
from tests.doors.bringing import answers, new_store, said
from tests.servers.langfuse_server import PROJECT, PUBLIC, SECRET, Langfuse, running_langfuse

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
START = datetime(2026, 11, 20, 10, tzinfo=UTC)
ENVIRON = {"LANGFUSE_PUBLIC_KEY": PUBLIC, "LANGFUSE_SECRET_KEY": SECRET}


def written(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def observation(number: int, **more: Any) -> dict[str, Any]:
    """Return a row of the API with all groups of fields: what is not known is an empty text."""
    at = START + timedelta(minutes=number)
    turns = {"messages": [{"role": "user", "content": f"question {number}"}]}
    return {
        "id": f"o{number}", "traceId": f"t{number}", "projectId": PROJECT, "type": "GENERATION",
        "parentObservationId": None, "startTime": written(at),
        "endTime": written(at + timedelta(seconds=1.5)), "name": "chat", "level": "DEFAULT",
        "statusMessage": "", "version": "", "environment": "default", "userId": "ana",
        "sessionId": f"s{number}", "completionStartTime": written(at + timedelta(seconds=0.25)),
        "createdAt": written(at), "updatedAt": written(at),
        "input": json.dumps(turns),
        "output": json.dumps({"role": "assistant", "content": f"answer {number}"}),
        "metadata": {"channel": "web"}, "providedModelName": "gpt-4o", "internalModelId": "clm1",
        "modelParameters": {}, "usageDetails": {"input": 9, "output": 4}, "costDetails": {},
        "totalCost": 0.001, "latency": 1.5, "timeToFirstToken": 0.25, "tags": ["web"],
        "release": "1.4", "traceName": "chat", "promptId": "", "promptName": "",
        "promptVersion": None,
    } | more  # fmt: skip


def score(key: str, value: Any, subject: dict[str, str], **more: Any) -> dict[str, Any]:
    at = more.pop("at", START + timedelta(hours=2))
    return {
        "id": key, "projectId": PROJECT, "name": "user-feedback", "value": value,
        "dataType": "NUMERIC", "source": "API", "timestamp": written(at),
        "environment": "default", "createdAt": written(at), "updatedAt": written(at),
        "comment": None, "configId": None, "metadata": {}, "authorUserId": None, "queueId": None,
        "subject": subject,
    } | more  # fmt: skip


def on_trace(number: int) -> dict[str, str]:
    return {"kind": "trace", "id": f"t{number}"}


def on_observation(number: int) -> dict[str, str]:
    return {"kind": "observation", "id": f"o{number}", "traceId": f"t{number}"}


class Project:
    """A project that is read into a store, and how long was waited for it."""

    def __init__(self, langfuse: Langfuse, address: str, folder: Path) -> None:
        self.langfuse, self.address, self.store = langfuse, address, new_store(folder)
        self.waited: list[float] = []

    def server(self, wait: Any = None) -> Server:
        api = LangfuseApi(self.address, Keys(PUBLIC, SECRET), wait=wait or self.waited.append)
        made = server_of(f"langfuse:{self.address}", Access("", ENVIRON))
        return Server(made.source, made.door, api.listings(PROJECT), made.says)

    def pages(
        self, now: datetime = NOW, since: datetime | None = None, wait: Any = None
    ) -> Iterator[IngestReport]:
        server, known = self.server(wait), Recogniser(self.store)
        given = given_of(server, None, now)
        return look(server, given, self.store, since=since, known=known, now=now)

    def look(self, now: datetime = NOW, **more: Any) -> IngestReport:
        return combined(self.pages(now, **more))

    def asked(self, path: str) -> list[dict[str, str]]:
        return [given for where, given in self.langfuse.asked if where.endswith(path)]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    langfuse = Langfuse()
    with running_langfuse(langfuse) as address:
        yield Project(langfuse, address, tmp_path / "store")


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_OBSERVATIONS", "_SCORES"):
        some = langfuse_api.replace(getattr(langfuse_api, name), page=2)
        monkeypatch.setattr(langfuse_api, name, some)


def test_answers_come_with_what_the_api_says_of_them(project: Project) -> None:
    project.langfuse.observations = [observation(1), observation(2, type="SPAN")]
    assert project.look().interactions == 1
    (kept,) = answers(project.store)
    assert (kept.prompt, kept.response, kept.user_id, kept.session_id, kept.model_version) == (
        "question 1", "answer 1", "ana", "s1", "gpt-4o"
    )  # fmt: skip
    assert (kept.created_at, kept.latency_seconds) == (
        START + timedelta(minutes=1, seconds=1.5), 1.5
    )  # fmt: skip
    told = {"channel": "web", "prompt_tokens": "9", "first_token_seconds": "0.25", "release": "1.4"}
    assert told.items() <= kept.metadata.items()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (score("s", 0, on_trace(1), comment="wrong"), [("comment", "wrong"), ("thumbs", "down")]),
        (score("s", True, on_observation(1), dataType="BOOLEAN"), [("thumbs", "up")]),
        (score("s", 0.25, on_trace(1), name="faithful"), [("judge_score", 0.25)]),
        (score("s", "down", on_trace(1), dataType="CATEGORICAL"), [("thumbs", "down")]),
        (score("s", "far too long", on_trace(1), dataType="TEXT", name="note"),
         [("comment", "far too long")]),
        (score("s", "42", on_observation(1), dataType="CORRECTION", name="output"),
         [("correction", "42")]),
        (score("s", "", on_observation(1), dataType="CORRECTION", name="output"), []),
    ],
)  # fmt: skip
def test_scores_of_every_type_are_feedback_on_their_subject(
    project: Project, given: dict[str, Any], expected: list[tuple[str, Any]]
) -> None:
    project.langfuse.observations = [observation(1)]
    project.langfuse.scores = [given]
    report = project.look()
    assert (report.set_aside, report.noted) == (0, ())
    assert said(project.store) == [("answer 1", kind, value) for kind, value in expected]


@pytest.mark.parametrize("kind", ["session", "experiment"])
def test_a_score_on_no_answer_is_set_aside_with_its_place(project: Project, kind: str) -> None:
    project.langfuse.scores = [score("s9", 1, {"kind": kind, "id": "x"})]
    (example,) = project.look().examples
    assert example.position == "score s9"
    assert "must be on an observation or a trace" in example.reason


@pytest.mark.usefixtures("small_pages")
def test_every_page_is_read_once_and_a_later_look_asks_for_what_is_new(project: Project) -> None:
    project.langfuse.observations = [observation(number) for number in range(7)]
    project.langfuse.scores = [
        score(f"s{number}", 1, on_trace(number), at=START + timedelta(hours=2, minutes=number))
        for number in range(5)
    ]
    first = project.look()
    assert (first.interactions, first.feedback, first.noted) == (7, 5, ())
    assert len(project.asked("observations")) == 4  # 2 + 2 + 2 + 1
    for asked in project.asked("observations"):  # a cursor needs the same filters again
        assert asked["type"] == "GENERATION"
        assert asked["toStartTime"] == written(NOW)

    later = NOW + timedelta(minutes=5)
    at = NOW - START + timedelta(minutes=2)
    project.langfuse.observations.append(observation(int(at / timedelta(minutes=1))))
    project.langfuse.asked.clear()
    again = project.look(later)
    assert (again.interactions, again.repeated) == (1, 0)
    (asked,) = project.asked("observations")
    assert asked["fromStartTime"] == written(NOW - timedelta(hours=1))


def test_scores_of_later_days_find_their_answers_and_changed_ones_replace(project: Project) -> None:
    project.langfuse.observations = [observation(1)]
    assert project.look().feedback == 0
    said_at = NOW + timedelta(days=3)
    given = score("s", 1, on_trace(1), at=said_at)
    project.langfuse.scores = [given]
    assert project.look(said_at + timedelta(minutes=1)).feedback == 1
    assert said(project.store) == [("answer 1", "thumbs", "up")]
    changed = given | {"value": 0, "updatedAt": written(said_at + timedelta(days=2))}
    project.langfuse.scores = [changed]  # its time stays
    assert project.look(said_at + timedelta(days=3)).set_aside == 0
    assert said(project.store) == [("answer 1", "thumbs", "down")]


def test_what_may_have_changed_is_read_again_once_an_hour(project: Project) -> None:
    for minutes in (0, 1, 2, 61):
        project.look(NOW + timedelta(minutes=minutes))
    begins = [asked.get("fromTimestamp") for asked in project.asked("scores")]
    assert begins == [
        None,
        written(NOW - timedelta(hours=1)),
        written(NOW + timedelta(minutes=1) - timedelta(hours=1)),
        written(NOW + timedelta(minutes=2) - timedelta(days=7)),
    ]


@pytest.mark.usefixtures("small_pages")
def test_a_look_that_was_stopped_goes_on_at_its_cursor(project: Project) -> None:
    project.langfuse.observations = [observation(number) for number in range(6)]
    stopped = project.pages()
    assert next(stopped).interactions == 2  # the newest two
    stopped.close()
    project.langfuse.asked.clear()
    later = NOW + timedelta(minutes=5)
    rest = project.look(later)
    assert (rest.interactions, rest.repeated) == (4, 0)
    assert len(answers(project.store)) == 6
    ends = [asked["toStartTime"] for asked in project.asked("observations")]
    assert ends == [written(NOW), written(NOW), written(later)]  # the rest, then what is new


@pytest.mark.usefixtures("small_pages")
def test_a_cursor_that_is_not_known_any_more_begins_the_pass_again(project: Project) -> None:
    project.langfuse.observations = [observation(number) for number in range(5)]
    pages = project.pages()
    assert next(pages).interactions == 2
    pages.close()
    project.langfuse.forgets_cursors = True
    again = project.look(NOW + timedelta(minutes=1))
    assert (again.interactions, again.repeated) == (3, 2)


def test_since_is_obeyed_and_an_earlier_one_reads_what_is_older(project: Project) -> None:
    project.langfuse.observations = [observation(number) for number in range(10)]
    assert project.look(since=START + timedelta(minutes=6)).interactions == 4
    same = project.look(NOW + timedelta(minutes=1), since=START + timedelta(minutes=6))
    assert same.interactions + same.repeated == 0
    earlier = project.look(NOW + timedelta(minutes=2), since=START + timedelta(minutes=2))
    assert (earlier.interactions, earlier.repeated) == (4, 4)
    assert project.asked("observations")[-1]["fromStartTime"] == written(
        START + timedelta(minutes=2)
    )


@pytest.mark.usefixtures("small_pages")
def test_a_rate_limit_is_obeyed_as_long_as_the_server_says(project: Project) -> None:
    project.langfuse.observations = [observation(number) for number in range(5)]

    def wait(seconds: float) -> None:
        project.waited.append(seconds)
        project.langfuse.allowed = 2

    server = project.server(wait)
    project.langfuse.allowed = 1
    given, known = given_of(server, None, NOW), Recogniser(project.store)
    found = combined(look(server, given, project.store, since=None, known=known, now=NOW))
    assert found.interactions == 5
    assert project.waited == [7.0, 7.0]  # four requests, of which 1, 2 and 1 were allowed


def test_a_server_that_asks_to_wait_for_long_ends_the_look_and_what_came_is_kept(
    project: Project,
) -> None:
    project.langfuse.observations = [observation(1)]
    project.langfuse.retry_after = "3600"
    pages = project.pages()
    project.langfuse.allowed = 1
    assert next(pages).interactions == 1
    with pytest.raises(SourceError, match="the word to wait 3,600 seconds; start again then"):
        next(pages)
    assert len(answers(project.store)) == 1
    project.langfuse.allowed = None
    project.langfuse.scores = [score("s", 1, on_trace(1))]
    assert project.look().feedback == 1


def test_pages_that_are_too_large_are_asked_for_in_smaller_parts(project: Project) -> None:
    long = {"output": json.dumps({"role": "assistant", "content": "word " * 1_000})}
    project.langfuse.observations = [observation(number, **long) for number in range(60)]
    project.langfuse.most_bytes = 160_000  # about 26 rows
    assert project.look().interactions == 60
    assert {int(asked["limit"]) for asked in project.asked("observations")} == {25}
    assert project.waited == [0.0, 0.0, 0.0]  # 200, 100 and 50 were too many


def test_a_server_that_fails_for_a_moment_is_asked_again_and_one_that_stays_away_is_told(
    project: Project,
) -> None:
    project.langfuse.observations = [observation(1)]
    server, project.langfuse.failing = project.server(), [502, 503]
    given, known = given_of(server, None, NOW), Recogniser(project.store)
    pages = look(server, given, project.store, since=None, known=known, now=NOW)
    assert next(pages).interactions == 1
    assert project.waited == [1.0, 2.0]
    project.langfuse.failing = [503] * 6
    with pytest.raises(SourceError, match="must answer, got 503"):
        next(pages)


def test_a_generation_that_has_not_ended_is_read_once_it_has(project: Project) -> None:
    project.langfuse.observations = [observation(1, endTime=None, output="")]
    report = project.look(START + timedelta(minutes=2))
    assert (report.interactions, report.set_aside) == (0, 0)
    assert report.passed == (("a generation that has not ended, which comes again once it has", 1),)
    project.langfuse.observations = [observation(1)]
    assert project.look(START + timedelta(minutes=20)).interactions == 1


def test_the_keys_say_which_project_it_is(project: Project) -> None:
    source = f"langfuse:{project.address}/project/{PROJECT}/traces"
    assert server_of(source, Access("", ENVIRON)).says == "the project 'helpdesk'"
    with pytest.raises(InvalidInputError, match="keys must be of the project 'p-2'"):
        server_of(f"langfuse:{project.address}/project/p-2", Access("", ENVIRON))
    wrong = ENVIRON | {"LANGFUSE_SECRET_KEY": "sk-wrong"}
    with pytest.raises(InvalidInputError, match="must accept the keys") as told:
        server_of(source, Access("", wrong))
    assert "sk-wrong" not in str(told.value)
    with pytest.raises(InvalidInputError, match=r"got --as openai; leave it out"):
        server_of(source, Access("", ENVIRON), as_format="openai")


def test_keys_come_from_the_environment_or_from_files_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("sk-2\n")
    environ = {"LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY_FILE": str(tmp_path / "secret")}
    assert keys_of(environ) == ("pk", "sk-2")
    with pytest.raises(InvalidInputError, match="got none in LANGFUSE_SECRET_KEY; export"):
        keys_of({"LANGFUSE_PUBLIC_KEY": "pk"})


@pytest.mark.parametrize(
    ("source", "environ", "address"),
    [
        ("langfuse:", {}, "https://cloud.langfuse.com"),
        ("langfuse:", {"LANGFUSE_BASE_URL": "https://us.cloud.langfuse.com/"},
         "https://us.cloud.langfuse.com"),
        ("langfuse:http://lf:3000/base/", {}, "http://lf:3000/base"),
        ("langfuse:http://lf:3000/api/public", {}, "http://lf:3000"),
        ("langfuse:https://lf.example/project/p/traces/t", {}, "https://lf.example"),
    ],
)  # fmt: skip
def test_a_source_names_the_address_of_a_server(
    source: str, environ: dict[str, str], address: str
) -> None:
    assert address_of(source, environ) == address


@pytest.mark.parametrize("source", ["langfuse:lf.example", "langfuse:https://pk:sk@lf.example"])
def test_a_source_that_is_no_address_or_holds_keys_is_refused(source: str) -> None:
    with pytest.raises(InvalidInputError, match="a source of Langfuse is"):
        address_of(source, {})


def test_a_server_of_before_is_told_from_one_that_has_the_api(project: Project) -> None:
    project.langfuse.failing = [404]
    with pytest.raises(InvalidInputError, match="before Langfuse 4 import its blob export"):
        project.server().listings[0].pages(None, None, NOW).__next__()


@pytest.mark.usefixtures("small_pages")
def test_a_dry_run_reads_a_few_pages_and_stores_nothing(project: Project) -> None:
    project.langfuse.observations = [observation(number) for number in range(9)]
    server = project.server()
    shown = preview_server(server, given_of(server, None, NOW), since=None, now=NOW)
    assert (shown.interactions, len(shown.first)) == (6, 3)
    assert answers(project.store) == []


def test_a_schedule_brings_it_in_since_its_cursor_and_goes_on_past_a_failure(
    project: Project,
) -> None:
    project.langfuse.observations = [observation(1)]
    source, gone = Source(source=f"langfuse:{project.address}"), Source(source="langfuse:nowhere")

    def brought(store: EventStore, now: datetime) -> list[tuple[int, bool]]:
        access = Access("", ENVIRON)
        found = harvest([gone, source], store, None, access, now)
        return [(one.interactions, bool(one.failed)) for one in found]

    assert brought(project.store, NOW) == [(0, True), (1, False)]
    assert brought(project.store, NOW + timedelta(minutes=1)) == [(0, True), (0, False)]
