"""Which base model training begins from, and that none becomes the champion unasked.

A home in front of a server knows its champion by the server's name. Its weights are the user's to
name: to train an adapter of another model than the one that answers would be a silent mistake.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.deploy.served import adoptions
from ratchet.errors import InvalidInputError, ModelError
from ratchet.files.hub_ids import is_hub_id
from ratchet.models.given_template import given_text
from ratchet.models.own_base import belongs_to
from ratchet.models.weights import (
    SMOLLM2,
    model_digest,
    prepare_base_model,
    require_safetensors,
    smollm2_file,
)
from ratchet.settings import Settings
from ratchet.store import EVER, EventStore
from ratchet.store.arrivals import versions_in_use

if TYPE_CHECKING:
    from ratchet.tracking import ModelVersion, Tracker

_NAMED = 5


def why_not_champion(settings: Settings, store: EventStore, now: datetime) -> str | None:
    """Say why the base model cannot be the champion, with the way out; None where it can.

    It cannot where the home stands in front of a server, or has answers of models that are not its
    own and nobody said which base model it has.
    """
    way = "make what answers your users the champion: `ratchet adopt --backend URL`"
    or_elsewhere = "`ratchet adopt --elsewhere NAME` where somebody else serves it"
    if settings.backend:
        return f"got none in front of {' '.join(settings.backend)}; {way}"
    own = (f"{settings.model_name}/", Path(settings.base_model).name)
    others = [name for name in versions_in_use(store, EVER, now) if not name.startswith(own)]
    if others and not settings.states_base_model:
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        return (
            f"got none in a home with answers of {', '.join(others[:_NAMED])}{more}; {way}, "
            f"{or_elsewhere}, or set RATCHET_BASE_MODEL to begin with that model"
        )
    return None


def refuse_as_champion(settings: Settings, store: EventStore, now: datetime) -> None:
    """Refuse to make the base model the champion where something else answers users.

    Raises:
        InvalidInputError: It cannot be.
    """
    why = why_not_champion(settings, store, now)
    if why is not None:
        raise InvalidInputError(f"a cycle needs a champion, {why}")


def register_base(
    settings: Settings, store: EventStore, tracker: Tracker, now: datetime
) -> ModelVersion:
    """Register the base model as the first version, once.

    Raises:
        InvalidInputError: Something else answers the users of this home, or nobody said where the
            weights of what does are.
    """
    refuse_as_champion(settings, store, now)
    check_stated(settings, store)
    folder = prepare_base_model(settings.base_model, settings.cache, settings.chat_template)
    return tracker.register_base(settings.base_model, model_digest(folder), settings.chat_template)


def base_of(settings: Settings, version: ModelVersion, adapter: Path | None) -> Path:
    """Return the folder of a version's own base model, which the settings may not name any more.

    Args:
        settings: Name the base model of today, which is taken where the version is of it.
        version: Of the registry.
        adapter: Its folder; None of a base model alone.

    Raises:
        ModelError: It is of another base model, which cannot be found.
    """
    today = prepare_base_model(settings.base_model, settings.cache, settings.chat_template)
    if version.base is None or is_of(today, version, adapter):
        return today
    try:
        own = prepare_base_model(version.base, settings.cache, version.chat_template)
        if is_of(own, version, adapter):
            return own
        why = "other weights lie there now"
    except ModelError as error:
        why = str(error)
    raise ModelError(
        f"{version.reference} must be read over its own base model, {version.base}, got "
        f"{settings.base_model} in the settings, and: {why}; bring the weights back to where they "
        "were, or gate against a version of today's base model"
    )


def is_of(base: Path, version: ModelVersion, adapter: Path | None) -> bool:
    """Tell whether a version is of a base model."""
    if adapter is not None:
        return belongs_to(base, adapter)
    return version.base is None or model_digest(base) == version.digest


def check_stated(settings: Settings, store: EventStore) -> None:
    """Refuse to take the default for the weights of a model that a server has.

    Raises:
        InvalidInputError: A model was adopted, and nobody said where its weights are.
    """
    adopted = adoptions(store)
    if adopted and not settings.states_base_model:
        name = list(adopted.values())[-1]
        without = (
            "; where nobody has them nothing is trained, and `ratchet collect`, `analyze` and "
            "`curate` do the rest"
        )
        raise InvalidInputError(
            f"the weights of {name.parent or name.version} must be named, got no "
            "RATCHET_BASE_MODEL; set it to their folder (safetensors)"
            + (without if name.elsewhere else "")
        )


def check_weights(settings: Settings, store: EventStore) -> None:
    """Refuse what training could not begin from, without reading the weights.

    Raises:
        InvalidInputError: As `check_stated`.
        ModelError: The folder, package or given template is not there, or the folder has no
            safetensors weights.
    """
    check_stated(settings, store)
    if settings.chat_template:
        given_text(settings.chat_template)
    if settings.base_model == SMOLLM2:
        smollm2_file()
        return
    if is_hub_id(settings.base_model):
        return  # it is fetched, and refused, when training begins
    folder = Path(settings.base_model).expanduser().resolve()
    require_safetensors(folder, "model*.safetensors")
    if not (folder / "config.json").exists():
        raise ModelError(
            f"RATCHET_BASE_MODEL must be a folder in Hugging Face's format, got {folder.name!r} "
            "without config.json; name the folder that holds config.json, tokenizer and weights"
        )


def check_answers_here(store: EventStore, version: str) -> None:
    """Refuse to answer in this process as a version whose weights are not here.

    Raises:
        InvalidInputError: It is an adapter that only the server has.
    """
    adopted = adoptions(store).get(version)
    if adopted is not None and adopted.parent is not None:
        raise InvalidInputError(
            f"{version} is an adapter of {adopted.parent} that only its server has, and cannot "
            "answer in this process; have the backend answer"
        )
