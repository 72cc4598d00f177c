"""Which bundle the node serves: promoted only with the gate's consent, and taken back by one command.

In the weights folder, `current` is a link to one of the bundles beside it. It is replaced in one step, so the node
finds the old one or the new one. `promotions.jsonl` is the history. A line of it is written before the link moves: a
step that was cut off between the two has a line whose bundle neither serves now nor is the next line's `before`.
"""

import json
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.load_bundle import load
from dicomnode.errors import BundleError, GateError, UsageError
from dicomnode.files import sha256_of, write_whole
from training.evaluation import bar as bars
from training.files import alone
from training.release import verdict

CURRENT = "current"
HISTORY = "promotions.jsonl"


@dataclass(frozen=True)
class Promotion:
    """A line of the history.

    Attributes:
        what: "promoted" or "rolled back".
        bundle, bundle_sha256: what serves from then on: its folder's name, and what was consented to.
        before, before_sha256: what served until then; "" for nothing.
        gate_sha256: of the verdict; "" for a rollback.
        departures: where the thresholds of the gate were not the defaults.
    """

    at: str
    what: str
    bundle: str
    bundle_sha256: str
    before: str
    gate_sha256: str
    before_sha256: str = ""
    departures: tuple[str, ...] = ()


@dataclass(frozen=True)
class _BundleRef:
    """A bundle in the weights folder: its folder's name and its digest; both "" for none."""

    name: str = ""
    sha256: str = ""


def served(weights: Path) -> Path | None:
    """Return the folder that `current` means; None where nothing was promoted yet.

    Raises:
        UsageError: `current` is no link to a folder beside it, or leads nowhere.
    """
    name = _named(weights)
    if name is None:
        return None
    if not (weights / name).is_dir():
        raise UsageError(
            f"{weights / CURRENT} points to {name}, which is missing: restore that folder or run `training rollback "
            f"{weights}`"
        )
    return weights / name


def promote(run: Path, weights: Path) -> Promotion:
    """Copy a run's bundle into `weights` and let `current` mean it.

    Where nothing was promoted yet, a comparison with a bundle that lies in `weights` is a consent, too: that one counts
    as what served before.

    Raises:
        GateError: the gate was not passed.
        UsageError: there is no consent to exactly this step, it was used before, or the bundle serves already.
        BundleError: the bundle does not load, or the folder of its name in `weights` holds another.
    """
    weights.mkdir(parents=True, exist_ok=True)
    with _locked(weights):
        now = served(weights)
        before = _BundleRef() if now is None else _BundleRef(now.name, load(now, allow_demo=True).sha256)
        bundle = load(bundle_of(run), allow_demo=True)
        before, gate_sha256 = _consent(run, weights, bundle, before)
        name = f"{bundle.name}-{bundle.version}-{bundle.sha256[:8]}"
        if not (weights / name).exists():
            temporary = weights / f".{name}.part"
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(run / "bundle", temporary)
            temporary.rename(weights / name)
        departures = bars.load(weights)[0].departures
        return _serve(weights, "promoted", _BundleRef(name, bundle.sha256), before, gate_sha256, departures)


def rollback(weights: Path) -> Promotion:
    """Let `current` mean what it meant before the last promotion, also where the folder that serves is lost.

    Raises:
        UsageError: there is nothing to go back to.
        BundleError: the bundle from before does not load any more, or is another by now.
    """
    if not weights.is_dir():
        raise UsageError(f"{weights} is not a folder: give the node's weights folder")
    with _locked(weights):
        now = _named(weights)
        standing = _not_rolled_back(history(weights), now)
        if now is None or not standing or not standing[-1].before:
            raise UsageError(f"{weights / HISTORY} has no bundle before {now or 'this'}")
        last = standing[-1]
        return _serve(
            weights,
            "rolled back",
            _BundleRef(last.before, last.before_sha256),
            _BundleRef(now, last.bundle_sha256),
            "",
            (),
        )


def history(weights: Path) -> list[Promotion]:
    """Return the promotions and rollbacks, the oldest first.

    Raises:
        UsageError: a line is none.
    """
    path = weights / HISTORY
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines() if path.exists() else (), start=1):
        try:
            found.append(Promotion(**json.loads(line)))
        except (TypeError, ValueError):
            raise UsageError(f"{path}, line {number} is not a promotion: repair or remove the line") from None
    return found


def bundle_of(run: Path) -> Path:
    """Return the folder of a run's bundle.

    Raises:
        UsageError: the run has none.
    """
    if not (run / "bundle" / "model.toml").is_file():
        raise UsageError(
            f"{run} has no bundle: finish the run with `training run` and make = true in [bundle] of its settings"
        )
    return run / "bundle"


def not_yet(current: Path) -> bool:
    """Whether a path means `current` of a weights folder where nothing was promoted yet."""
    return current.name == CURRENT and not current.exists() and not current.is_symlink()


def _locked(weights: Path) -> AbstractContextManager[None]:
    busy = f"{weights} is in use by another promotion or rollback: try again when it has finished"
    return alone(weights / ".lock", busy)


def _named(weights: Path) -> str | None:
    """Return the name that `current` leads to, by one step: what lies there may be a link to another disk, or be gone.

    Raises:
        UsageError: `current` is no link to a name beside it.
    """
    link = weights / CURRENT
    if not link.is_symlink() and not link.exists():
        return None
    target = link.readlink() if link.is_symlink() else Path()
    if not target.name or (weights / target.parent).resolve() != weights.resolve():
        raise UsageError(f"{link} is not a link to a bundle beside it: remove it and promote again")
    return target.name


def _effective(lines: Sequence[Promotion], now: str | None) -> list[Promotion]:
    """Return the steps that were not cut off: what they brought served when the next one began, or serves now."""
    following = [*(line.before for line in lines[1:]), now]
    return [line for line, then in zip(lines, following, strict=False) if line.bundle == then]  # of none, none


def _not_rolled_back(lines: Sequence[Promotion], now: str | None) -> list[Promotion]:
    """Return the promotions that were not taken back; the last one brought what serves now."""
    standing: list[Promotion] = []
    for line in _effective(lines, now):
        if line.what == "promoted":
            standing.append(line)
        elif standing:
            standing.pop()
    return standing if standing and standing[-1].bundle == now else []


def _consent(run: Path, weights: Path, bundle: Bundle, before: _BundleRef) -> tuple[_BundleRef, str]:
    """Return what the bundle takes the place of, and the verdict's digest.

    Raises:
        GateError, UsageError: see `promote`.
    """
    if bundle.sha256 == before.sha256:
        raise UsageError(f"the bundle of {run} is already in service, as {before.name}")
    compare = f"`training compare {run} {weights / CURRENT}`"
    found, gate_sha256 = verdict.read(run, compare)
    bar, source = bars.load(weights)
    if found.bar and bars.GateBar.model_validate(found.bar) != bar:
        raise UsageError(f"{run / verdict.GATE} was judged by other thresholds than {source}: run {compare} again")
    if not found.bar and found.passed:
        raise UsageError(
            f"{run / verdict.GATE} was judged by the run's own thresholds, as older versions did: run {compare} again"
        )
    if not found.passed:
        failed = "; ".join(check.text for check in found.checks if not check.passed)
        raise GateError(f"the run did not pass the gate: {failed}")
    if found.bundle_sha256 != bundle.sha256:
        raise UsageError(f"{run / verdict.GATE} is about a different bundle from {run / 'bundle'}: run {compare} again")
    if not before.name and found.current_sha256:
        before = _find_bundle(weights, found.current_sha256)
    if found.current_sha256 != before.sha256:
        raise UsageError(
            f"{run / verdict.GATE} is a comparison with a different bundle from the one in service "
            f"({before.name or 'none'}): run {compare} again"
        )
    used = [p for p in _effective(history(weights), before.name) if p.gate_sha256 == gate_sha256]
    if used:
        raise UsageError(
            f"{run / verdict.GATE} was used at {used[0].at}, and that promotion was rolled back: run {compare} again"
        )
    return before, gate_sha256


def _find_bundle(weights: Path, sha256: str) -> _BundleRef:
    """Return the bundle of this digest in the weights folder; none where there is no such one."""
    for manifest in sorted(weights.glob("*/model.toml")):
        if sha256_of(manifest) == sha256:
            return _BundleRef(manifest.parent.name, load(manifest.parent, allow_demo=True).sha256)
    return _BundleRef()


def _serve(
    weights: Path, what: str, new: _BundleRef, before: _BundleRef, gate_sha256: str, departures: tuple[str, ...]
) -> Promotion:
    """Let `current` mean `new`, if that is still the bundle of its digest ("" in a history of long ago: any)."""
    found = load(weights / new.name, allow_demo=True)
    if new.sha256 and found.sha256 != new.sha256:
        raise BundleError(
            f"{weights / new.name} is not the bundle that passed the gate: sha256 {found.sha256[:12]}…, expected "
            f"{new.sha256[:12]}…. Restore the right one"
        )
    done = Promotion(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        what=what,
        bundle=new.name,
        bundle_sha256=found.sha256,
        before=before.name,
        gate_sha256=gate_sha256,
        before_sha256=before.sha256,
        departures=departures,
    )
    lines = [json.dumps(asdict(p)) + "\n" for p in (*history(weights), done)]
    write_whole(weights / HISTORY, "".join(lines))
    temporary = weights / f".{CURRENT}.part"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(new.name)
    temporary.replace(weights / CURRENT)
    return done
