"""Whether a version answers, asked before users are sent to it.

Each replica of the backend has to list the version and to answer a question of one token. What
`GET /v1/models` shows is believed, not what a load answers. An adapter that a replica lacks is
brought to where the backend sees it and loaded. Without a backend the gateway's local model
answers: then the version must be a known one, with its adapter in place.

A check takes seconds, and `CHECK_SECONDS` at most beside the time that MLflow takes to send an
adapter. It writes nothing to the store; call it outside of the store's transactions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from ratchet.deploy.adapters import AdapterShelf, candidate_of, place_adapter, placed
from ratchet.deploy.backends import KEY_VARIABLE, Replica, Replicas, named
from ratchet.deploy.routing import current_routing
from ratchet.deploy.served import served_name
from ratchet.errors import ModelError, NotAnsweringError, RatchetError, TrackingError
from ratchet.models.endpoint import checked_key
from ratchet.records import Candidate, Release, RoutingFollowed
from ratchet.store import EventStore
from ratchet.tracking import Tracker

CHECK_SECONDS = 60.0
_KNOWN = 8
"""So many names are listed of those that could have been meant."""
_LISTED_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Answering:
    """What answers users of a home, and how its adapters get there.

    Attributes:
        store: The home's store.
        tracker: Opens MLflow, where a version or an adapter has to be looked up.
        shelf: Where adapters lie for the backend.
        backend: URLs of the backend's replicas; none for the gateway's local model.
        key: That the backend asks for.
    """

    store: EventStore
    tracker: Callable[[], Tracker]
    shelf: AdapterShelf
    backend: Sequence[str] = ()
    key: str | None = field(default=None, repr=False)

    def require(self, version: str) -> None:
        """Refuse a version that does not answer.

        Raises:
            NotAnsweringError: It does not, with the replica and the reason.
        """
        problem = self.problem(version)
        if problem is not None:
            raise NotAnsweringError(
                f"users are sent to a version once it answers, got {version}: {problem}; "
                "what users have now stays"
            )

    def problem(self, version: str, *, seconds: float = CHECK_SECONDS) -> str | None:
        """Say why a version does not answer; None where it does.

        Args:
            version: The version.
            seconds: So long all replicas together may take.
        """
        relabelled = _relabelled(self.store, version)
        if relabelled is not None:
            return relabelled
        if not self.backend:
            return self._local_problem(version)
        try:
            key = checked_key(self.key, KEY_VARIABLE)
        except RatchetError as error:
            return str(error)
        with Replicas.of(self.backend, key=key) as replicas:
            name = served_name(self.store, version)
            listed = _together(replicas.each, Replica.models, seconds)
            path = None
            if any(isinstance(found, dict) and name not in found for found in listed.values()):
                try:
                    path = placed(self.shelf, self.store, self.tracker, version)
                except RatchetError as error:
                    return _unlisted(listed, name, str(error))
            load = partial(_answer_as, name=name, path=path)
            answered = _together(replicas.each, load, seconds)
        reasons = [said for said in answered.values() if isinstance(said, str)]
        return "; ".join(reasons) or None

    def _local_problem(self, version: str) -> str | None:
        """Say what keeps the gateway's own model from answering as a version."""
        try:
            if place_adapter(self.shelf, self.store, self.tracker, version) is not None:
                return None
        except TrackingError as error:
            known = _known(self.store)
            if candidate_of(self.store, version) is None and version in known:
                return None  # MLflow is away, and users had this one
            return f"{error} (known here: {', '.join(known[:_KNOWN]) or 'none'})"
        except ModelError as error:
            return str(error)
        return None  # the base model, which the gateway loads when it starts


def _relabelled(store: EventStore, version: str) -> str | None:
    """Say why a gateway that asks for one name, whatever the version, cannot have another one."""
    followed, routing = store.latest(RoutingFollowed), current_routing(store)
    if followed is None or followed.asks_for is None or routing is None:
        return None
    if version in {variant.version for variant in routing.variants}:
        return None
    return (
        f"the gateway {followed.process} asks its backend for {followed.asks_for!r} whatever the "
        "version (--backend-model), so that answers of one model would be recorded as several "
        "versions; start it without, and `ratchet adopt` says which version the backend's name is"
    )


def _answer_as(replica: Replica, *, name: str, path: str | None) -> None:
    """Have a replica answer under a name, with the adapter loaded if it lacks it.

    Raises:
        ModelError: It does not.
    """
    if path is not None:
        replica.answer_as(name, path)
    elif name not in (listed := replica.models()):
        raise ModelError(f"{replica.url} does not list {name!r}, {named(listed)}")
    replica.probe(name)


def _together(
    replicas: Sequence[Replica], ask: Callable[[Replica], object], seconds: float
) -> dict[str, object]:
    """Ask all replicas at once; return by URL what was returned, or a text why nothing was.

    A replica that keeps silent is not waited for: its thread ends with its connection.
    """
    found: dict[str, object] = {
        replica.url: f"{replica.url} does not answer within {seconds:g} s" for replica in replicas
    }

    def work(replica: Replica) -> None:
        try:
            found[replica.url] = ask(replica)
        except RatchetError as error:
            found[replica.url] = str(error)
        except Exception as error:
            found[replica.url] = f"{replica.url} cannot be asked: {type(error).__name__}: {error}"

    threads = [threading.Thread(target=work, args=(one,), daemon=True) for one in replicas]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return dict(found)


def _unlisted(listed: Mapping[str, object], name: str, why: str) -> str:
    """Return which replicas lack a name that no adapter can be loaded for."""
    said = [
        f"{url} does not list {name!r}, {named(found)}" if isinstance(found, dict) else str(found)
        for url, found in listed.items()
        if not (isinstance(found, dict) and name in found)
    ]
    return "; ".join([*said, why])


def _known(store: EventStore) -> list[str]:
    """Return the versions that users had, and before them those that were trained last."""
    trained = [
        candidate.reference for candidate in store.records(Candidate, latest=_LISTED_AT_ONCE)
    ]
    released = {release.champion for release in store.records(Release)}
    return list(dict.fromkeys([*reversed(trained), *sorted(released)]))
