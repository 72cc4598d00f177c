"""The software bill of materials of this installation: CycloneDX, of what runs; without the tools of the tests.

    python -m tests.helpers.sbom FILE

cyclonedx-bom lists the environment; kept is what the project needs at run time. The same environment gives the same
file: it has neither a serial number nor a date.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

import dicomnode
from tests.helpers.prerequisites import ROOT
from tests.helpers.runtime_packages import closure, requirements

SPECIFICATION = "1.6"
_OWN = "dicomnode"


def bill() -> dict[str, Any]:
    """Return the bill."""
    command = [str(Path(sys.executable).with_name("cyclonedx-py")), "environment", "--pyproject", "pyproject.toml"]
    command += [
        "--sv",
        SPECIFICATION,
        "--output-reproducible",
        "--no-validate",
        "--of",
        "JSON",
        "-o",
        "-",
        sys.executable,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    made: dict[str, Any] = json.loads(done.stdout)
    own = made["metadata"]["component"]
    own["version"] = dicomnode.__version__
    wanted = closure(requirements())
    made["components"] = [c for c in made["components"] if canonicalize_name(c["name"]) in wanted]
    kept = {c["bom-ref"]: canonicalize_name(c["name"]) for c in made["components"]} | {own["bom-ref"]: _OWN}
    direct = {canonicalize_name(one.name) for one in requirements()}
    needed = {ref: {c for c in kept if kept[c] in direct} if ref == own["bom-ref"] else None for ref in kept}
    listed = {d["ref"]: d.get("dependsOn", []) for d in made["dependencies"]}
    made["dependencies"] = [
        {"ref": ref, "dependsOn": sorted(needed[ref] or {d for d in listed.get(ref, []) if d in kept})}
        for ref in sorted(kept)
    ]
    return made


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(bill(), indent=2, sort_keys=True)
    out.write_text(text + "\n", encoding="utf-8")
    print(f"{out}: {text.count('purl')} packages, CycloneDX {SPECIFICATION}")
