"""Models and data sets of the Hugging Face Hub, each resolved once to a revision that is kept.

    found = fetch("model", "HuggingFaceTB/SmolLM2-135M-Instruct", cache)
    found.folder, found.revision       # of the commit; the same next week, whatever `main` is then

The files lie in huggingface_hub's own cache (`HF_HOME`), so what another program fetched is not
fetched again. `HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` work as its documentation says.
"""

from __future__ import annotations

import logging
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from ratchet.errors import ModelError
from ratchet.files.text import first_line
from ratchet.files.whole import file_digest, write_whole

logger = logging.getLogger(__name__)

Kind = Literal["model", "dataset"]
_WANTED: dict[Kind, list[str]] = {
    "model": ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "README.md", "LICENSE*"],
    "dataset": ["*.parquet", "*.jsonl*", "*.ndjson*", "*.json*", "*.csv*", "*.tsv*", "README.md"],
}
_UNWANTED: dict[Kind, list[str]] = {
    "model": ["*/*"],  # other formats of the weights
    "dataset": [],
}
_AT = " at revision "
_SNAPSHOT = re.compile(r"models--([^/]+)/snapshots/([0-9a-f]{40})$")


@dataclass(frozen=True, slots=True)
class Fetched:
    """What lies in the cache of the Hub.

    Attributes:
        folder: Its files.
        name: `owner/name`.
        revision: The commit that they are of.
    """

    folder: Path
    name: str
    revision: str

    @property
    def in_words(self) -> str:
        """What it is, for people; `id_in` reads the id again."""
        return f"{self.name}{_AT}{self.revision}"


def id_in(origin: str) -> str | None:
    """Return the id of the Hub in words of `Fetched.in_words`; None in other words."""
    name, at, _ = origin.partition(_AT)
    return name if at else None


def fetch(kind: Kind, wanted: str, cache: Path) -> Fetched:
    """Return a model or data set of the Hub at the revision that it was first resolved to.

    Args:
        kind: Which of the two.
        wanted: `owner/name`, or `owner/name@revision`.
        cache: Where the revision is noted, in `hub/`. Delete the note to take a newer one.

    Raises:
        ModelError: The Hub has none, does not give it, or is not reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, asked = wanted.partition("@")
    note = cache / "hub" / f"{kind}s--{wanted.replace('/', '--')}"
    noted = note.read_text("utf-8").strip() if note.is_file() else None

    def download(*, here: bool) -> Fetched:
        folder = snapshot_download(
            name,
            repo_type=kind,
            revision=noted or asked or None,
            allow_patterns=_WANTED[kind],
            ignore_patterns=_UNWANTED[kind],
            local_files_only=here,
        )
        return Fetched(Path(folder), name, Path(folder).name)

    if noted is not None:  # it was there whole, and the Hub need not be asked
        try:
            return download(here=True)
        except LocalEntryNotFoundError:
            logger.info("%s is not in the Hub's cache any more", name)
    try:
        found = download(here=False)
        write_whole(note, f"{found.revision}\n".encode(), mode=None)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"{wanted!r} must be a folder, or a {kind} on the Hugging Face Hub that can be "
            f"fetched, got: {first_line(error)}; correct the name, set HF_TOKEN where it is "
            "private, or name a folder"
        ) from error
    if noted is None:
        logger.info("%s is revision %s, from now on", name, found.revision)
    return found


def license_in(folder: Path) -> str:
    """Return the licence that the card of a model or data set names; "" where it names none."""
    from huggingface_hub import RepoCard

    card = folder / "README.md"
    if not card.is_file():
        return ""
    try:
        said = RepoCard.load(card, ignore_metadata_errors=True).data.to_dict().get("license")
    except (ValueError, OSError, yaml.YAMLError):  # a card is free text
        return ""
    return said if isinstance(said, str) else ""


def origin_of(folder: Path) -> Fetched | None:
    """Return which model of the Hub a folder holds, itself or by links to its files; or None."""
    places = [folder]
    config = folder / "config.json"
    if config.is_symlink():  # a folder of links, which has another chat template
        places.append(config.readlink().parent)
    for place in places:
        found = _SNAPSHOT.search(place.as_posix())
        if found:
            return Fetched(place, found[1].replace("--", "/"), found[2])
    return None


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was uploaded.

    Attributes:
        revision: Its commit.
        url: Where people see it.
        files: How many files were compared.
    """

    revision: str
    url: str
    files: int


def upload(folder: Path, address: str) -> Pushed:
    """Upload a folder as a model of the Hub, and see that the Hub has what the folder has.

    A repository that is not there is made, private. One that is there gets a commit, in which files
    that the folder does not have are gone.

    Args:
        folder: Its files lie side by side.
        address: `owner/name`, or `owner/name@branch`.

    Raises:
        ModelError: The Hub refuses it, or has other content afterwards.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, branch = address.partition("@")
    api = HfApi(library_name="ratchet")
    try:
        api.create_repo(name, private=True, exist_ok=True)
        if branch:
            api.create_branch(name, branch=branch, exist_ok=True)
        done = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            revision=branch or None,
            commit_message="Upload a model exported by Ratchet",
            delete_patterns="*",
        )
        revision = str(done.oid)
        names = sorted(path.name for path in folder.iterdir())
        with tempfile.TemporaryDirectory(prefix="ratchet-hub-") as cache:
            for file in names:
                there = hf_hub_download(name, file, revision=revision, cache_dir=cache)
                _check_same(folder / file, Path(there), name)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"the Hub must take an upload to {name!r}, got: {first_line(error)}; correct the name, "
            "or set HF_TOKEN to a token that may write there"
        ) from error
    return Pushed(revision, f"{api.endpoint}/{name}", len(names))


def _check_same(here: Path, there: Path, name: str) -> None:
    if file_digest(here) != file_digest(there):
        raise ModelError(
            f"the Hub must have what was uploaded, got another {here.name} in {name!r}; upload it "
            "again"
        )
