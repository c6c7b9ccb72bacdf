"""What a cycle of recorded traffic still lacks: all of it at once, before anything moves."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from ratchet.analyze.failures.traffic_sample import SampleRules, questions_set
from ratchet.deploy.backends import KEY_VARIABLE, Replicas
from ratchet.deploy.gate.answering import By
from ratchet.deploy.gate.policy import GatePolicy, Guardrail, policy_for_file, policy_for_loop
from ratchet.deploy.served import adoptions, is_served_elsewhere, served_name, unlisted
from ratchet.errors import RatchetError, WaitingError
from ratchet.files.text import counted
from ratchet.gateway.hosts import is_loopback
from ratchet.golden.rules import GoldenRules
from ratchet.golden.versions import golden_version, golden_versions
from ratchet.judges.judged_win_rate import pair_judge
from ratchet.judges.rubrics import load_judges
from ratchet.models.endpoint import key_from, server_address
from ratchet.operate.base_model import check_weights, why_not_champion
from ratchet.records import WIN_RATE, Candidate, Release, Rollout
from ratchet.settings import Settings
from ratchet.store import EVER, EventStore, Window
from ratchet.store.arrivals import count_answers, versions_in_use
from ratchet.store.cycles import await_traffic, nothing_recorded
from ratchet.store.exposures import count_users

BACKEND_SECONDS = 3.0
_EXAMPLES = "examples that both models answer at the gate"
_BY_FILE = "collect.examples"
_SHARES = ("empty_rate", "refusal_rate")


@dataclass(frozen=True, slots=True)
class NextCycle:
    """Options of the next cycle that name something which must exist before it begins.

    Attributes:
        examples: File of examples that both models answer at the gate; None where they are drawn
            from traffic.
        sample: How they are drawn.
        policy: The gate's rules, or the file that holds them; left out, those of such examples.
        judge: Name of the judge of pairs, where the settings' file has several.
        by: Who answers at the gate, as in `AnswerOptions`.
        golden: How the golden set grows, which is asked where there is a version of it and no file
            is given; None where it is not.
    """

    examples: Path | None = None
    sample: SampleRules = field(default_factory=SampleRules)
    policy: GatePolicy | Path | None = None
    judge: str | None = None
    by: By | None = None
    golden: GoldenRules | None = field(default_factory=GoldenRules)

    def asks_golden(self, store: EventStore) -> bool:
        """Tell whether the gate asks a version of the golden set."""
        return self.examples is None and self.golden is not None and bool(golden_versions(store))


def lacks(
    settings: Settings,
    store: EventStore,
    wanted: NextCycle,
    *,
    environ: Mapping[str, str],
    now: datetime,
    champion: str | None = None,
) -> list[str]:
    """Return what the next cycle of recorded traffic waits for, each with its way out.

    Nothing is loaded, converted or written; the backend is asked for its list of models.

    Args:
        settings: Of the home.
        store: The store.
        wanted: What the cycle is asked to do.
        environ: Has the backend's key.
        now: The time.
        champion: What the registry says, where it was asked; else the store's last release counts.
    """
    release = store.latest(Release)
    champion = champion or (None if release is None else release.champion)
    lines = [
        *_champion(settings, store, champion, now),
        *_traffic(store, champion, now),
        *_examples(store, wanted),
        *_policy(settings, store, wanted),
        *_backend(settings, store, champion, environ, wanted),
    ]
    try:
        check_weights(settings, store)
    except RatchetError as error:
        lines.append(f"a base model to train from: {error}")
    return lines


def warns(store: EventStore, wanted: NextCycle) -> list[str]:
    """Return why the next cycle may begin and yet its gate end without a decision, with ways out.

    A share of users asks the gate's questions. A guardrail with a margin is shown to hold from so
    many of them on; with fewer the best of challengers ends as inconclusive.
    """
    if wanted.examples is not None or questions_set(store, wanted.sample) is not None:
        return []
    if wanted.asks_golden(store):
        return []
    if _real_answers(store) < wanted.sample.fewest_answers:
        return []  # `lacks` says that more are needed
    try:
        policy = policy_for_file(wanted.policy, None)
    except RatchetError:
        return []  # `lacks` says it
    strictest = min(
        (rule.margin for rule in policy.guardrails if _is_shown_of_a_share(rule)), default=None
    )
    if strictest is None:
        return []
    asked = _fewest_without_any(strictest, policy.error_level)
    needed = math.ceil(asked / wanted.sample.user_share)
    users = count_users(store, Window(EVER, datetime.max.replace(tzinfo=UTC)))
    if users >= needed:
        return []
    return [
        f"its gate may end as inconclusive: {wanted.sample.user_share:.0%} of users ask its "
        f"questions, and a guardrail with a margin of {strictest:g} needs {asked} of them, so "
        f"{counted(needed, 'user')} in all, got {users:,}; wait for more, bring a log in with "
        "`ratchet ingest`, or set collect.sample.user_share or deploy.policy"
    ]


def _fewest_without_any(share: float, error_level: float) -> int:
    """Return of how many without one case it is shown that fewer than a share have one.

    The least n with (1 - share)^n <= error level: 59 for 5 points at 5 %.
    """
    return math.ceil(math.log(error_level) / math.log1p(-share))


def _is_shown_of_a_share(rule: Guardrail) -> bool:
    return (
        rule.requires == "shown"
        and not rule.relative
        and not rule.per_cluster
        and rule.examples is None
        and rule.metric in _SHARES
    )


def refuse_incomplete(lines: list[str]) -> None:
    """Refuse to begin a cycle that lacks something.

    Raises:
        WaitingError: With all that `lacks` said.
    """
    if lines:
        listed = "\n".join(f"- {line}" for line in lines)
        raise WaitingError(f"a cycle of recorded traffic waits for\n{listed}", "setup")


def _champion(
    settings: Settings, store: EventStore, champion: str | None, now: datetime
) -> Iterator[str]:
    why = None if champion else why_not_champion(settings, store, now)
    if why is not None:
        yield f"a champion: {why}"


def _traffic(store: EventStore, champion: str | None, now: datetime) -> Iterator[str]:
    try:
        window = await_traffic(store, now)
    except WaitingError:
        yield f"answers that no cycle had: {nothing_recorded(store)}"
        return
    adoption = adoptions(store).get(champion) if champion else None
    if adoption is None or window is None:
        return
    counts = {
        name: count_answers(store, replace(window, model_version=name))
        for name in versions_in_use(store, window.start, window.end)
    }
    if any(counts.get(name) for name in adoption.names):
        return
    other = max(sorted(counts), key=lambda name: counts[name])
    yield (
        f"answers of its champion: got none of {champion} and {counts[other]} of {other}; where "
        f"that was the same model, run `ratchet adopt --also {other}`"
    )


def _examples(store: EventStore, wanted: NextCycle) -> Iterator[str]:
    if wanted.examples is not None:
        if not wanted.examples.is_file():
            yield f"{_EXAMPLES}: there is no file {wanted.examples.name!r}; correct {_BY_FILE}"
    elif wanted.asks_golden(store):
        try:
            golden_version(store, wanted.golden.version if wanted.golden else None)
        except RatchetError as error:
            yield f"{_EXAMPLES}: {error}"
    elif questions_set(store, wanted.sample) is None:
        had = _real_answers(store)
        if had < wanted.sample.fewest_answers:
            yield (
                f"{_EXAMPLES}: drawn from traffic they need "
                f"{counted(wanted.sample.fewest_answers, 'answer')} at least, got {had:,}; wait "
                f"for more, bring a log in with `ratchet ingest`, name a file in {_BY_FILE}, or "
                "set collect.sample"
            )


def _real_answers(store: EventStore) -> int:
    return store.counts()["interactions"] - store.simulated_answers()


def _policy(settings: Settings, store: EventStore, wanted: NextCycle) -> Iterator[str]:
    try:
        policy = _policy_of(store, wanted)
    except RatchetError as error:
        yield f"a policy: {error}"
        return
    if WIN_RATE not in policy.metrics:
        return
    if settings.judges is None:
        yield (
            "a judge of pairs, since the policy is on win_rate: got none; name a file with one by "
            "RATCHET_JUDGES, or a policy by deploy.policy (examples without targets are gated on "
            "win_rate)"
        )
        return
    try:
        pair_judge(load_judges(settings.judges), wanted.judge)
    except RatchetError as error:
        yield f"a judge of pairs: {error}"


def _policy_of(store: EventStore, wanted: NextCycle) -> GatePolicy:
    """Return the gate's policy.

    Raises:
        RatchetError: It, or what says which one it is, cannot be used.
    """
    if not wanted.asks_golden(store):
        return policy_for_file(wanted.policy, wanted.examples)
    assert wanted.golden is not None
    version = golden_version(store, wanted.golden.version)
    return policy_for_loop(wanted.policy, None, metric=version.metric)


def _backend(
    settings: Settings,
    store: EventStore,
    champion: str | None,
    environ: Mapping[str, str],
    wanted: NextCycle,
) -> Iterator[str]:
    if not settings.backend:
        if champion in adoptions(store) and not is_served_elsewhere(store, champion):
            yield (
                f"the address of the server that answers as {champion}: got none; set "
                "RATCHET_BACKEND, or run `ratchet adopt --backend URL`"
            )
        return
    try:
        key = key_from(environ, KEY_VARIABLE)
        with Replicas.of(settings.backend, key=key) as replicas:
            names = {} if champion is None else {champion: served_name(store, champion)}
            for line in unlisted(replicas, names, seconds=BACKEND_SECONDS):
                yield f"the champion at the backend: {line}"
            if wanted.by in (None, "backend"):
                yield from _adapters(settings, store, replicas)
    except RatchetError as error:
        yield f"the backend: {error}"


def _adapters(settings: Settings, store: EventStore, replicas: Replicas) -> Iterator[str]:
    """Say what keeps the backend from being asked as a version that is trained only then.

    Raises:
        ModelError: A replica does not answer.
    """
    for replica in replicas:
        if not replica.loads_adapters(BACKEND_SECONDS):
            yield (
                f"adapters at the backend: {replica.url} does not load any while it runs; start "
                "vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, or set "
                "deploy.answers.by to process"
            )
    elsewhere = [url for url in settings.backend if not _is_this_machine(url)]
    if settings.adapter_root is None and elsewhere and not _had_adapters(store):
        yield (
            f"a folder of adapters that {elsewhere[0]} sees: got none, and it is not known to be "
            "this machine; set RATCHET_ADAPTER_ROOT to the folder that both share (where that is "
            f"the home's own, to {settings.home / 'adapters'}), or deploy.answers.by to process"
        )


def _is_this_machine(url: str) -> bool:
    """Tell whether an address is this machine by its name alone: nothing is looked up."""
    host = (urlsplit(server_address(url)).hostname or "").rstrip(".").lower()
    return host == socket.gethostname().lower() or is_loopback(host)


def _had_adapters(store: EventStore) -> bool:
    """Tell whether users have been sent to a version that was trained here: it was seen then."""
    trained = {item.reference for item in store.records(Candidate)}
    return any(item.champion in trained for item in store.records(Release)) or any(
        item.challenger.version in trained for item in store.records(Rollout)
    )
