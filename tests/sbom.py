"""Make a bill of materials of what Ratchet needs to run, and a list of licences: `make sbom`.

The environment holds tools of the tests as well. What Ratchet's own requirements do not lead to, as
they hold on this machine and without extras, is left out.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

BILL, LICENCES = "sbom.cdx.json", "licences.csv"
OWN = "ratchet-llm"


def needed(requires: Callable[[str], Iterable[str] | None], package: str = OWN) -> set[str]:
    """Return what a package needs to run here, itself among them, by normal names.

    Args:
        requires: Returns the requirements of an installed package, as its metadata writes them.
        package: The package.
    """
    waiting, found = [(package, frozenset[str]())], set[tuple[str, frozenset[str]]]()
    while waiting:
        name, extras = waiting.pop()
        if (normal(name), extras) in found:
            continue
        found.add((normal(name), extras))
        for requirement in map(Requirement, requires(name) or ()):
            asked = [{"extra": extra} for extra in ("", *extras)]
            marker = requirement.marker
            if marker is None or any(marker.evaluate(one) for one in asked):
                waiting.append((requirement.name, frozenset(requirement.extras)))
    return {name for name, _ in found}


def installed(name: str) -> Iterable[str] | None:
    """Return the requirements of an installed package; none of one that is not."""
    try:
        return metadata.requires(name)
    except metadata.PackageNotFoundError:
        return None


def normal(name: str) -> str:
    """Return a package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def of_running(bill: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """Return the bill of these packages alone, without what only tests and tools need.

    Raises:
        ValueError: It has none of them.
    """
    components = [item for item in bill["components"] if normal(item["name"]) in names]
    if not components:
        raise ValueError("a bill must name what ratchet-llm depends on, got nothing")
    own = bill["metadata"]["component"]["bom-ref"]
    kept = {own, *(item["bom-ref"] for item in components)}
    graph = [
        {**item, "dependsOn": [to for to in item.get("dependsOn", ()) if to in kept]}
        for item in bill["dependencies"]
        if item["ref"] in kept
    ]
    return {**bill, "components": components, "dependencies": graph}


def licence_of(component: Mapping[str, Any]) -> str:
    """Return a component's licence as its package says it; `unknown` where it says none."""
    said = []
    for item in component.get("licenses", []):
        named = item.get("license", {})
        said.append(item.get("expression") or named.get("id") or named.get("name"))
    plain = [re.sub(r"^License :: (OSI Approved :: )?", "", text) for text in said if text]
    return " AND ".join(dict.fromkeys(plain)) or _told_by_package(component["name"])


def _told_by_package(name: str) -> str:
    """Return the licence in words of a package's own, which a bill has no field for."""
    try:
        said = metadata.metadata(name).get("License") or ""
    except metadata.PackageNotFoundError:
        said = ""
    return said.strip().split("\n")[0][:80] or "unknown"


def licences(bill: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """Yield name, version and licence of each component, by name."""
    for item in sorted(bill["components"], key=lambda item: str(item["name"]).lower()):
        if item["name"] != OWN:
            yield item["name"], item.get("version", ""), licence_of(item)


def main(source: Path, folder: Path) -> None:
    """Write both files."""
    bill = of_running(json.loads(source.read_text("utf-8")), needed(installed))
    (folder / BILL).write_text(json.dumps(bill, indent=2) + "\n", "utf-8")
    with (folder / LICENCES).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("package", "version", "licence"))
        writer.writerows(rows := list(licences(bill)))
    unknown = sum(licence == "unknown" for *_, licence in rows)
    print(f"{len(rows)} packages, {unknown} of unknown licence: {folder / BILL}, {LICENCES}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
