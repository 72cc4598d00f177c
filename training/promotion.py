"""Which bundle the node serves: promoted only with the gate's consent, and taken back by one command.

In the weights folder, `current` is a link to one of the bundles beside it. It is replaced in one step, so the node
finds the old one or the new one. `promotions.jsonl` is the history.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from dicomnode.analysis.bundle import Bundle, load
from dicomnode.errors import UsageError

CURRENT = "current"
HISTORY = "promotions.jsonl"
GATE = "gate.json"


@dataclass(frozen=True)
class Promotion:
    """A line of the history. `before`: what served until then, "" for nothing. `gate_sha256`: "" for a rollback."""

    at: str
    what: str
    bundle: str
    bundle_sha256: str
    before: str
    gate_sha256: str


def served(weights: Path) -> Path | None:
    """The folder that `current` means; None where nothing was promoted yet.

    Raises:
        UsageError: `current` is no link, or leads nowhere.
    """
    link = weights / CURRENT
    if not link.is_symlink() and not link.exists():
        return None
    if not link.is_symlink() or not link.exists():
        raise UsageError(f"{link} is no link to a bundle beside it: remove it, then promote again")
    return link.resolve()


def promote(run: Path, weights: Path) -> Promotion:
    """Copy a run's bundle into `weights` and let `current` mean it.

    Raises:
        UsageError: the gate was not passed, or was passed by another bundle, or against another than the one that
            serves now.
        BundleError: the bundle does not load.
    """
    before = served(weights)
    bundle = load(run / "bundle", allow_demo=True)
    gate_sha256 = _consent(run, bundle, None if before is None else load(before, allow_demo=True))
    name = f"{bundle.name}-{bundle.version}-{bundle.sha256[:8]}"
    weights.mkdir(parents=True, exist_ok=True)
    if not (weights / name).exists():
        temporary = weights / f".{name}.part"
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(run / "bundle", temporary)
        temporary.rename(weights / name)
    return _serve(weights, name, "promoted", before, gate_sha256)


def rollback(weights: Path) -> Promotion:
    """Let `current` mean what it meant before the last promotion.

    Raises:
        UsageError: there is nothing to go back to.
        BundleError: the bundle from before does not load any more.
    """
    before = served(weights)
    promoted = [p for p in history(weights) if p.what == "promoted" and before is not None and p.bundle == before.name]
    last = promoted[-1] if promoted else None
    if last is None or not last.before:
        raise UsageError(f"{weights / HISTORY} knows of no bundle before {before.name if before else 'this'}")
    return _serve(weights, last.before, "rolled back", before, "")


def history(weights: Path) -> list[Promotion]:
    """The promotions and rollbacks, the oldest first."""
    path = weights / HISTORY
    if not path.exists():
        return []
    return [Promotion(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def _consent(run: Path, bundle: Bundle, before: Bundle | None) -> str:
    """The digest of the verdict. Raises UsageError unless it is a consent to exactly this step."""
    path = run / GATE
    if not path.is_file():
        raise UsageError(f"{path} is missing: run `training compare {run} {CURRENT}` first")
    text = path.read_bytes()
    verdict = json.loads(text)
    if not verdict["passed"]:
        failed = "; ".join(c["text"] for c in verdict["checks"] if not c["passed"])
        raise UsageError(f"the gate refused this run: {failed}")
    if verdict["bundle_sha256"] != bundle.sha256:
        raise UsageError(f"{path} is about another bundle than {run / 'bundle'}: compare again")
    if verdict["current_sha256"] != ("" if before is None else before.sha256):
        raise UsageError(f"{path} is a comparison with another bundle than the one that serves now: compare again")
    return hashlib.sha256(text).hexdigest()


def _serve(weights: Path, name: str, what: str, before: Path | None, gate_sha256: str) -> Promotion:
    bundle = load(weights / name, allow_demo=True)
    done = Promotion(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        what=what,
        bundle=name,
        bundle_sha256=bundle.sha256,
        before="" if before is None else before.name,
        gate_sha256=gate_sha256,
    )
    temporary = weights / f".{CURRENT}.{os.getpid()}"
    temporary.symlink_to(name)
    temporary.replace(weights / CURRENT)
    with (weights / HISTORY).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(done)) + "\n")
    return done
