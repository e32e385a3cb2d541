"""`make sbom`: shortens the bill of materials that cyclonedx-py makes to what stays true wherever it is made.

Reads CycloneDX JSON on stdin and prints it: without the tool's own components, addresses and descriptions, in the order
of the names.
"""

import json
import sys
from typing import Any

_KEPT = ("type", "bom-ref", "name", "version", "purl", "licenses")


def main() -> None:
    """Shorten what is on stdin."""
    bom = json.load(sys.stdin)
    root = _shortened(bom["metadata"]["component"], {})
    refs = {each["bom-ref"]: each["purl"] for each in bom["components"]}
    components = sorted((_shortened(each, refs) for each in bom["components"]), key=lambda each: each["name"].lower())
    dependencies = [
        {
            "ref": refs.get(each["ref"], each["ref"]),
            "dependsOn": sorted(refs[name] for name in each.get("dependsOn", [])),
        }
        for each in bom["dependencies"]
    ]
    shortened = {
        "$schema": bom["$schema"],
        "bomFormat": bom["bomFormat"],
        "specVersion": bom["specVersion"],
        "version": 1,
        "metadata": {"component": root},
        "components": components,
        "dependencies": sorted(dependencies, key=lambda each: each["ref"]),
    }
    json.dump(shortened, sys.stdout, indent=1)
    print()


def _shortened(component: dict[str, Any], refs: dict[str, str]) -> dict[str, Any]:
    """Return a component with its package URL as its reference: it is the same in each environment."""
    found = {name: component[name] for name in _KEPT if name in component}
    found["bom-ref"] = refs.get(component["bom-ref"], component["bom-ref"])
    if "licenses" in found:
        found["licenses"] = [_short_license(each) for each in found["licenses"]]
    return found


def _short_license(declared: dict[str, Any]) -> dict[str, Any]:
    """Return a license without its text: the packages have it."""
    if "license" in declared:
        return {"license": {name: value for name, value in declared["license"].items() if name in ("id", "name")}}
    return {"expression": declared["expression"]}


if __name__ == "__main__":
    main()
