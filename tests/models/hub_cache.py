"""The cache of the Hugging Face Hub as huggingface_hub lays it out, for tests without a network."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path


def write_to_cache(home: Path, kind: str, name: str, folder: Path, *, ref: str = "main") -> str:
    """Put a folder into the cache of a `HF_HOME` as a commit of a repository; return the commit.

    Blobs are named by content, snapshots hold links to them, and `refs` says where a branch is.
    """
    repo = home / "hub" / f"{kind}s--{name.replace('/', '--')}"
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    content = b"".join(path.read_bytes() for path in files)
    commit = hashlib.sha1(content).hexdigest()
    for path in files:
        blob = repo / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, blob)
        link = repo / "snapshots" / commit / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    (repo / "refs").mkdir(exist_ok=True)
    (repo / "refs" / ref).write_text(commit, "utf-8")
    return commit
