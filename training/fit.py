"""From a registry to a run: prepare, split by patient, fit the encoder, then bootstrap heads, calibrate, evaluate.

The run folder holds `arm.safetensors` (encoder and heads, half precision: what is evaluated is what is shipped),
`split.json` and `run.json` (settings, losses, metrics).
"""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

import dicomnode
from dicomnode.analysis.bundle import Calibration, member_logits
from dicomnode.analysis.model import AttentionHead, HazardNet, encode, horizon_indices, risk
from dicomnode.analysis.preprocess import Spec
from dicomnode.errors import UsageError
from training import metrics
from training.censoring import kaplan_meier_risk
from training.dataset import Registry, load_registry, load_truth, prepare_all
from training.outcome import EDGES_YEARS, HORIZONS_YEARS, Outcomes, interval_targets, negative_log_likelihood, status_at
from training.splits import PARTS, Split, by_patient

#: `told(what, done, total)`: how far a stage has come.
Told = Callable[[str, int, int], None]
_BOOTSTRAP = 400


@dataclass(frozen=True)
class Settings:
    """What a run is made with; it stands in `run.json`."""

    spec: Spec
    backbone: str = "resnet18"
    epochs: int = 12
    batch: int = 16
    learning_rate: float = 5e-4
    weight_decay: float = 0.02
    heads: int = 16
    head_steps: int = 150
    seed: int = 1
    fractions: tuple[float, float, float] = (0.55, 0.15, 0.30)


#: The shipped demo's input: 4 mm pixels over 256 x 320 mm, 8 slices.
DEMO_SPEC = Spec(spacing_mm=4.0, canvas=(64, 80), slices=8)


@dataclass(frozen=True)
class Data:
    """One part of the split: prepared slices, targets and weights, and what the metrics need."""

    slices: Tensor
    targets: Tensor
    weights: Tensor
    outcomes: Outcomes
    patients: tuple[str, ...]


def fit(registry_folder: Path, out: Path, settings: Settings, told: Told | None = None) -> dict[str, object]:
    """Train on a registry and write the run folder `out`.

    Returns:
        The content of `run.json`.

    Raises:
        UsageError: the registry is incomplete, a part of the split has no death, or `out` is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty: give a new folder, so that no run is overwritten")
    tell: Told = told or (lambda *_: None)
    torch.manual_seed(settings.seed)
    registry = load_registry(registry_folder)
    split = by_patient(registry.patients, registry.outcomes.event, settings.seed, settings.fractions)
    prepared = prepare_all(registry.files, settings.spec, lambda i, n: tell("Preparing scans", i, n))
    parts = {name: _part(name, registry, prepared, split) for name in PARTS}

    net, losses = _fit_network(parts["train"], settings, tell)
    halved = net.half().float().eval()
    features = {name: _features(halved, data.slices) for name, data in parts.items()}
    heads = _fit_heads(halved.head, features["train"], parts["train"], settings, tell)
    calibration = _calibrate(heads, features["calibrate"], parts["calibrate"])

    logits = calibration.apply(member_logits(heads, features["test"]))
    columns = horizon_indices(EDGES_YEARS, HORIZONS_YEARS)
    predicted = risk(logits).mean(dim=0).double().numpy()[:, columns]
    truth = load_truth(registry, HORIZONS_YEARS) if (registry_folder / "truth.csv").is_file() else None
    if truth is not None:
        truth = truth[split.rows("test", registry.patients)]

    out.mkdir(parents=True, exist_ok=True)
    split.save(out / "split.json")
    _save_arm(out / "arm.safetensors", halved, heads)
    run: dict[str, object] = {
        "settings": {**asdict(settings), "spec": settings.spec.to_dict()},
        "edges_years": list(EDGES_YEARS),
        "horizons_years": list(HORIZONS_YEARS),
        "registry_sha256": registry.sha256,
        "split_sha256": split.sha256,
        "population": {name: _counts(data) for name, data in parts.items()},
        "train_loss": losses,
        "calibration": calibration.model_dump(),
        "test": _evaluate(predicted, truth, parts["test"]),
        "software": software(),
    }
    (out / "run.json").write_text(json.dumps(_json(run), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return run


def _save_arm(path: Path, net: HazardNet, heads: Sequence[AttentionHead]) -> None:
    state = {f"encoder.{k}": v for k, v in net.encoder.state_dict().items()}
    state |= {f"heads.{i}.{k}": v for i, head in enumerate(heads) for k, v in head.state_dict().items()}
    save_file({k: v.half().contiguous() if v.is_floating_point() else v for k, v in state.items()}, path)


def software() -> dict[str, str]:
    """The versions that made a result."""
    return {
        "dicomnode": dicomnode.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def _part(name: str, registry: Registry, prepared: NDArray[np.float32], split: Split) -> Data:
    rows = split.rows(name, registry.patients)
    outcomes = registry.outcomes[rows]
    if not (outcomes.event & (outcomes.years <= EDGES_YEARS[-1])).any():
        raise UsageError(
            f"no death within {EDGES_YEARS[-1]:g} years among the {len(rows)} scans of the part {name!r}: "
            "there is nothing to learn or to measure; give a registry with more patients"
        )
    targets, weights = interval_targets(outcomes)
    return Data(
        slices=torch.from_numpy(prepared[rows]),
        targets=torch.from_numpy(targets),
        weights=torch.from_numpy(weights),
        outcomes=outcomes,
        patients=tuple(registry.patients[i] for i in rows),
    )


def _base_logits(data: Data) -> Tensor:
    """The logit of each interval's observed hazard: where the heads start, so that training begins at the base rate."""
    hazard = (data.targets.sum(0) + 0.5) / (data.weights.sum(0) + 1)
    return torch.logit(hazard.clamp(1e-4, 0.9))


def _fit_network(data: Data, settings: Settings, tell: Told) -> tuple[HazardNet, list[float]]:
    """Encoder and one head on all training scans. Returns the network and the mean loss of each epoch."""
    net = HazardNet(settings.backbone, len(EDGES_YEARS) - 1)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster; not in the stubs
    with torch.no_grad():
        net.head.hazard.bias.copy_(_base_logits(data))
    steps = int(np.ceil(len(data.slices) / settings.batch))
    optimiser = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=steps * settings.epochs, pct_start=0.2
    )
    losses = []
    net.train()
    for epoch in range(settings.epochs):
        total = 0.0
        for rows in torch.chunk(torch.randperm(len(data.slices)), steps):
            with torch.autocast("cpu", torch.bfloat16):
                logits, _ = net(_augmented(data.slices[rows]))
            loss = negative_log_likelihood(logits.float(), data.targets[rows], data.weights[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        losses.append(round(total / len(data.slices), 5))
        tell(f"Fitting, loss {losses[-1]:.3f}", epoch + 1, settings.epochs)
    return net, losses


def _augmented(slices: Tensor) -> Tensor:
    """Mirrored or not, brightness shifted (about 10 HU), moved by up to two pixels: none changes the outcome."""
    if torch.rand(()) < 0.5:
        slices = slices.flip(-1)
    shift = torch.randn(len(slices), 1, 1, 1) * 0.008
    move = tuple(int(v) for v in torch.randint(-2, 3, (2,)))
    return torch.roll(slices, move, dims=(2, 3)) + shift * (slices > 0)


@torch.inference_mode()
def _features(net: HazardNet, slices: Tensor) -> Tensor:
    return torch.cat([encode(net.encoder, chunk) for chunk in slices.split(16)])


def _fit_heads(
    fitted: AttentionHead, features: Tensor, data: Data, settings: Settings, tell: Told
) -> list[AttentionHead]:
    """Fresh heads over the frozen encoder, each on a bootstrap sample of patients."""
    features = features.clone()  # out of inference mode
    rng = np.random.default_rng(settings.seed)
    names, of = np.unique(np.array(data.patients), return_inverse=True)
    heads = []
    for index in range(settings.heads):
        drawn = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[of]
        times = torch.from_numpy(drawn.astype(np.float32))[:, None]
        head = AttentionHead(features.shape[-1], data.targets.shape[1])
        with torch.no_grad():
            head.hazard.weight.mul_(0.1)
            head.hazard.bias.copy_(fitted.hazard.bias)
        optimiser = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.05)
        for _ in range(settings.head_steps):
            logits, _ = head(features)
            loss = negative_log_likelihood(logits, data.targets, data.weights * times)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        heads.append(head.half().float().eval())
        tell("Bootstrap heads", index + 1, settings.heads)
    return heads


def _calibrate(heads: Sequence[AttentionHead], features: Tensor, data: Data) -> Calibration:
    """Slope and intercept of the hazard logits, by likelihood on patients that no weight has seen."""
    logits = member_logits(heads, features).mean(dim=0).clone()
    slope, intercept = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))
    optimiser = torch.optim.LBFGS([slope, intercept], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = negative_log_likelihood(slope * logits + intercept, data.targets, data.weights)
        loss.backward()
        return loss

    optimiser.step(closure)
    # A negative slope would turn the ranking round on the strength of a few patients.
    return Calibration(slope=round(max(float(slope.detach()), 0.05), 5), intercept=round(float(intercept.detach()), 5))


def _evaluate(
    predicted: NDArray[np.float64], truth: NDArray[np.float64] | None, data: Data
) -> dict[str, dict[str, object]]:
    """AUC and Brier score by horizon, beside the oracle's where the registry has a truth; both (scans, horizons)."""
    measures = {"auc": metrics.auc, "brier": metrics.brier}
    counts = metrics.bootstrap_counts(data.patients, _BOOTSTRAP, seed=0)
    result: dict[str, dict[str, object]] = {}
    for column, horizon in enumerate(HORIZONS_YEARS):
        known, drawn = metrics.at_horizon(data.outcomes, horizon), metrics.at_horizon(data.outcomes, horizon, counts)
        risks = predicted[:, column]
        measured = {}
        for name, measure in measures.items():
            lower, upper = metrics.interval(measure(drawn, risks))
            measured[name] = {"value": float(measure(known, risks)), "lower": lower, "upper": upper}
        oracle = {} if truth is None else {k: float(m(known, truth[:, column])) for k, m in measures.items()}
        result[str(horizon)] = {
            **measured,
            "oracle": oracle,
            "mean_risk": float(risks.mean()),
            "observed_risk": float(kaplan_meier_risk(data.outcomes, horizon)),
        }
    return result


def _json(value: object) -> object:
    """Four decimals are enough, and NaN (a metric without cases) is not JSON."""
    if isinstance(value, dict):
        return {k: _json(v) for k, v in value.items()}
    if isinstance(value, float):
        return round(value, 5) if np.isfinite(value) else None
    return value


def _counts(data: Data) -> dict[str, int]:
    """Patients, scans, and scans with an observed death and with known status at each horizon."""
    counts = {"patients": len(set(data.patients)), "scans": len(data.patients)}
    for horizon in HORIZONS_YEARS:
        dead, known = status_at(data.outcomes, horizon)
        counts |= {f"dead_{horizon}y": int(dead.sum()), f"censored_before_{horizon}y": int((~known).sum())}
    return counts
