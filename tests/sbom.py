"""Make a bill of materials of what Ratchet needs to run, and a list of licences: `make sbom`.

The environment holds tools of the tests as well. What is not reached from Ratchet's own
dependencies, by the graph in the bill itself, is left out.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

BILL, LICENCES = "sbom.cdx.json", "licences.csv"
OWN = "ratchet-llm"


def reachable(bill: Mapping[str, Any]) -> set[str]:
    """Return the references that the bill's own component depends on, itself among them."""
    graph = {item["ref"]: item.get("dependsOn", []) for item in bill["dependencies"]}
    waiting, found = [bill["metadata"]["component"]["bom-ref"]], set[str]()
    while waiting:
        reference = waiting.pop()
        if reference not in found:
            found.add(reference)
            waiting += graph.get(reference, [])
    return found


def of_running(bill: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bill without what only tests and tools need.

    Raises:
        ValueError: The bill names nothing that Ratchet depends on.
    """
    wanted = reachable(bill)
    components = [item for item in bill["components"] if item["bom-ref"] in wanted]
    if not components:
        raise ValueError("a bill must name what ratchet-llm depends on, got nothing")
    kept = [item for item in bill["dependencies"] if item["ref"] in wanted]
    return {**bill, "components": components, "dependencies": kept}


def licence_of(component: Mapping[str, Any]) -> str:
    """Return a component's licence as its package says it; `unknown` where it says none."""
    said = []
    for item in component.get("licenses", []):
        named = item.get("license", {})
        said.append(item.get("expression") or named.get("id") or named.get("name"))
    return " AND ".join(dict.fromkeys(filter(None, said))) or "unknown"


def licences(bill: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """Yield name, version and licence of each component, by name."""
    for item in sorted(bill["components"], key=lambda item: str(item["name"]).lower()):
        if item["name"] != OWN:
            yield item["name"], item.get("version", ""), licence_of(item)


def main(source: Path, folder: Path) -> None:
    """Write both files."""
    bill = of_running(json.loads(source.read_text("utf-8")))
    (folder / BILL).write_text(json.dumps(bill, indent=2) + "\n", "utf-8")
    with (folder / LICENCES).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("package", "version", "licence"))
        writer.writerows(rows := list(licences(bill)))
    unknown = sum(licence == "unknown" for *_, licence in rows)
    print(f"{len(rows)} packages, {unknown} of unknown licence: {folder / BILL}, {LICENCES}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
