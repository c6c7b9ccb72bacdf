"""Bring the files of other projects that the pages serve, as `make vendor` does.

`vendored.json` beside them names package, version, licence and digests. Each package is fetched by
npm's own client, compared with its digest, and the named files are taken out of it. Nothing else
reaches the network; `tests/web/test_vendored.py` compares the files with their digests.

    python -m tests.vendor
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "src" / "ratchet" / "web" / "static" / "vendor"
INDEX = FOLDER / "vendored.json"


def packages() -> list[dict[str, Any]]:
    """Return what is vendored."""
    return list(json.loads(INDEX.read_text("utf-8")))


def integrity_of(content: bytes) -> str:
    """Return the digest of a package as npm writes it."""
    return f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}"


def fetched(name: str, folder: Path) -> Path:
    """Fetch a package by npm and return its archive."""
    command = ["npm", "pack", name, "--silent", "--pack-destination", str(folder)]
    subprocess.run(command, check=True, cwd=folder, stdin=subprocess.DEVNULL)
    (archive,) = folder.glob("*.tgz")
    return archive


def take(package: dict[str, Any], archive: Path) -> None:
    """Write a package's files, or leave all as it is where a digest differs."""
    name = f"{package['package']}@{package['version']}"
    if (found := integrity_of(archive.read_bytes())) != package["integrity"]:
        raise SystemExit(f"{name} must have the digest {package['integrity']}, got {found}")
    contents = {}
    with tarfile.open(archive) as opened:
        for target, told in package["files"].items():
            member = opened.extractfile(told["from"])
            assert member is not None
            contents[target] = member.read()
            digest = hashlib.sha256(contents[target]).hexdigest()
            if digest != told["sha256"]:
                raise SystemExit(f"{target} of {name} must be {told['sha256']}, got {digest}")
    for target, content in contents.items():
        (FOLDER / target).write_bytes(content)
        print(f"{target}  {name}  {package['licence']}")


def main() -> int:
    """Fetch and write all of them."""
    for package in packages():
        with tempfile.TemporaryDirectory() as folder:
            name = f"{package['package']}@{package['version']}"
            take(package, fetched(name, Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
