"""The fitting of one network: epochs, steps, early stopping, a checkpoint an epoch.

Random numbers follow from the seed, the epoch and the step alone. A run that was killed goes on at its last checkpoint
and ends with the weights of an uninterrupted one (on one machine with the same number of processes and threads).
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dicomnode.analysis.risk.network import HazardNet
from dicomnode.files import write_whole
from training.data.outcomes import interval_targets, negative_log_likelihood
from training.models.arm import Rows
from training.models.deep.augment import augmented, generator
from training.models.deep.distributed import Ranks
from training.models.deep.job import FitJob
from training.models.deep.prepared_slices import batches
from training.models.deep.pretrained import load_encoder
from training.models.deep.random_start import start_at_random
from training.progress_type import ProgressCallback

WEIGHTS, REPORT, CHECKPOINT = "model.safetensors", "fit.json", "checkpoint.pt"
_EVALUATED_AT_ONCE = 8


@dataclass(frozen=True)
class Progress:
    """How far a fit has come: losses by epoch, the best epoch (counted from 0) and its weights.

    Of a fit that is stopped after a number of epochs there is no validation, and the last one counts as the best.
    """

    train: tuple[float, ...] = ()
    validation: tuple[float, ...] = ()
    best: int = -1
    weights: Mapping[str, Tensor] | None = None

    def after(self, train: float, validation: float | None, net: nn.Module) -> "Progress":
        """With one epoch more."""
        done = replace(self, train=(*self.train, train))
        if validation is not None:
            done = replace(done, validation=(*self.validation, validation))
            if self.best >= 0 and not validation < self.validation[self.best]:
                return done
        kept = {k: v.detach().cpu().clone() for k, v in net.state_dict().items()}
        return replace(done, best=len(self.train), weights=kept)

    def ended(self, job: FitJob) -> bool:
        """Whether all epochs are done, or the last `patience` brought nothing."""
        done = len(self.train)
        return done >= most_epochs(job) or (not job.stop_after and done - 1 - self.best >= job.settings.patience)


def most_epochs(job: FitJob) -> int:
    """How many epochs a fit may take."""
    return job.stop_after or job.settings.epochs


def finished(folder: Path, job: FitJob) -> bool:
    """Whether the folder holds this very job's network."""
    report = folder / REPORT
    return report.is_file() and json.loads(report.read_text("utf-8"))["digest"] == job.digest


def best_epoch(folder: Path) -> int:
    """Return the epoch, counted from 1, whose network is in a finished folder."""
    return int(json.loads((folder / REPORT).read_text("utf-8"))["best_epoch"])


def load_network(folder: Path, job: FitJob) -> HazardNet:
    """Return the network that `fit` wrote, in single precision, ready to predict."""
    net = HazardNet(job.backbone, job.intervals, prior=job.settings.prior)
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(folder / WEIGHTS).items()})
    return net.eval()


def fit(job: FitJob, folder: Path, ranks: Ranks, progress: ProgressCallback) -> None:
    """Fit the job's network into `folder`: `model.safetensors` (half precision) and `fit.json`, written last."""
    torch.manual_seed(job.seed)
    torch.backends.cudnn.deterministic = True
    net = start(job)
    parallel = ranks.wrapped(net.to(memory_format=torch.channels_last))  # type: ignore[call-overload]  # faster
    settings = job.settings
    rate = settings.learning_rates.get(job.backbone, settings.learning_rate)
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=settings.weight_decay)
    steps = len(_groups(job, 0, ranks.world))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps * most_epochs(job), pct_start=0.2)
    precision = forward_precision(settings.precision, ranks.device)
    scaler = torch.amp.GradScaler(ranks.device.type, enabled=precision is torch.float16)
    parts = (net, optimiser, schedule, scaler)
    fitted = _resumed(folder / CHECKPOINT, job, parts)
    while not fitted.ended(job):
        epoch = len(fitted.train)
        total = 0.0
        # Dropout and stochastic depth draw from the process's own numbers.
        torch.manual_seed(generator(torch.device("cpu"), job.seed, epoch, ranks.rank).initial_seed())
        for step, (rows, slices) in enumerate(_steps(job, epoch, ranks)):
            loss = gradients(parallel, job, rows, slices, (epoch, step), ranks, precision, scaler)
            scaler.step(optimiser)
            scaler.update()
            optimiser.zero_grad()
            schedule.step()
            total += loss
        validation = None
        if not job.stop_after:
            validation = ranks.agreed(_likelihood(net, job, ranks.device) if ranks.first else 0.0)
        fitted = fitted.after(round(ranks.summed(total) / len(job.fit), 6), validation, net)
        if ranks.first:
            _save_checkpoint(folder / CHECKPOINT, job, parts, fitted)
            judged = "on all patients" if validation is None else f"{validation:.3f}"
            words = f"Fitting {job.backbone}, epoch {epoch + 1}, loss {fitted.train[-1]:.3f}, {judged}"
            progress(words, epoch + 1, most_epochs(job))
    if ranks.first:
        _finish(folder, job, fitted)


def gradients(
    net: nn.Module,
    job: FitJob,
    rows: Rows,
    slices: Tensor,
    moment: tuple[int, int],
    ranks: Ranks,
    precision: torch.dtype = torch.float32,
    scaler: "torch.amp.GradScaler | None" = None,
) -> float:
    """Add the gradient of one step's mean loss to the parameters.

    Args:
        net: as `Ranks.wrapped` gave it.
        job: the fit.
        rows: (scans,), of all processes' scans, in one order; this process works on each `world`-th.
        slices: (scans, slices, height, width), 0 to 1, of this process's scans, then of their priors (`_files`).
        moment: epoch and step, for the augmentation.
        ranks: the processes.
        precision: of the forward pass; float16 wants the scaler.
        scaler: of the loss.

    Returns:
        The sum of the losses of this process's scans.
    """
    own_rows = rows[ranks.rank :: ranks.world]
    targets, weights = (torch.from_numpy(a).to(ranks.device) for a in interval_targets(job.outcomes[own_rows]))
    years = torch.from_numpy(job.years[own_rows]).float().to(ranks.device)
    before = np.flatnonzero(job.prior[own_rows] >= 0)
    changed = slices.to(ranks.device)
    if net.training:
        drawing = generator(ranks.device, job.seed, *moment, ranks.rank)
        changed = augmented(changed, job.settings.spec, job.settings.augmentation, drawing)
    now, prior = changed[: len(own_rows)], changed[len(own_rows) :]
    parts = np.array_split(np.arange(len(own_rows)), min(job.settings.accumulate, len(own_rows)))
    total = 0.0
    for part in parts:
        followed = np.flatnonzero(np.isin(before, part))
        second = (prior[followed], years[part]) if job.settings.prior else ()
        with ranks.quiet(net, last=part is parts[-1]):
            with torch.autocast(ranks.device.type, precision, enabled=precision is not torch.float32):
                logits, _ = net(now[part], *second)
            loss = negative_log_likelihood(logits.float(), targets[part], weights[part]) * len(part)
            # DDP takes the mean over the processes, and a step's loss is the mean over all its scans.
            scaled = loss * ranks.world / len(rows)
            (scaled if scaler is None else scaler.scale(scaled)).backward()
        total += float(loss.detach())
    return total


def forward_precision(wanted: str, device: torch.device) -> torch.dtype:
    """Return the precision of the forward pass; see `DeepSettings.precision`."""
    if wanted != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]
    if device.type == "cpu":
        # Without instructions for it torch emulates bf16, slower than float32.
        able = torch.cpu.get_capabilities()
        return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def start(job: FitJob) -> HazardNet:
    """Return the network before its first step: its hazards start at the observed base rate."""
    net = HazardNet(job.backbone, job.intervals, prior=job.settings.prior)
    if file := job.settings.pretrained.get(job.backbone):
        load_encoder(net.encoder, job.backbone, file)
    else:
        start_at_random(net.encoder, job.backbone, job.settings.spec)
    targets, weights = (torch.from_numpy(a).sum(0) for a in interval_targets(job.outcomes[job.fit]))
    with torch.no_grad():
        net.head.hazard.weight.mul_(0.1)
        net.head.hazard.bias.copy_(torch.logit(((targets + 0.5) / (weights + 1)).clamp(1e-4, 0.9)))
    return net.train()


def _groups(job: FitJob, epoch: int, world: int) -> list[Rows]:
    """Return the epoch's steps: the rows shuffled and cut into nearly equal parts, none too small for the processes."""
    order = np.random.default_rng([job.seed, epoch]).permutation(job.fit)
    return np.array_split(order, max(1, min(math.ceil(len(order) / job.settings.batch), len(order) // world)))


def _steps(job: FitJob, epoch: int, ranks: Ranks) -> Iterator[tuple[Rows, Tensor]]:
    """(rows of all processes, prepared slices of this one's) for each step of an epoch."""
    groups = _groups(job, epoch, ranks.world)
    own_rows = [with_priors(job, rows[ranks.rank :: ranks.world]) for rows in groups]
    yield from zip(groups, batches(job.scans, own_rows), strict=True)


def with_priors(job: FitJob, rows: Rows) -> Rows:
    """Return the rows, and after them those of their prior scans, where these are an input."""
    before = job.prior[rows]
    return np.concatenate([rows, before[before >= 0]]) if job.settings.prior else rows


def evaluation_groups(rows: Rows) -> Sequence[Rows]:
    """Rows in groups small enough to evaluate at once."""
    return np.array_split(rows, max(1, math.ceil(len(rows) / _EVALUATED_AT_ONCE)))


@torch.inference_mode()
def logits(net: HazardNet, job: FitJob, rows: Rows, device: torch.device) -> Tensor:
    """Hazard logits of rows (rows, intervals), in single precision and evaluation mode, on the CPU."""
    was_training = net.training
    net.eval()
    found = []
    groups = evaluation_groups(rows)
    for part, slices in zip(groups, batches(job.scans, [with_priors(job, g) for g in groups]), strict=True):
        moved = slices.to(device)
        years = torch.from_numpy(job.years[part]).float().to(device)
        second = (moved[len(part) :], years) if job.settings.prior else ()
        found.append(net(moved[: len(part)], *second)[0].cpu())
    net.train(was_training)
    return torch.cat(found)


def _likelihood(net: HazardNet, job: FitJob, device: torch.device) -> float:
    """Mean negative log-likelihood of the validation scans."""
    targets, weights = (torch.from_numpy(a) for a in interval_targets(job.outcomes[job.validate]))
    return round(float(negative_log_likelihood(logits(net, job, job.validate, device), targets, weights)), 6)


def _save_checkpoint(path: Path, job: FitJob, parts: Sequence[Any], fitted: Progress) -> None:
    state = {
        "digest": job.digest,
        "parts": [part.state_dict() for part in parts],
        "train": list(fitted.train),
        "validation": list(fitted.validation),
        "best": fitted.best,
        "weights": dict(fitted.weights or {}),
    }
    write_whole(path, lambda file: torch.save(state, file))


def _resumed(path: Path, job: FitJob, parts: Sequence[Any]) -> Progress:
    """Where the checkpoint left off; the beginning, where it is none or another job's."""
    if not path.is_file():
        return Progress()
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["digest"] != job.digest:
        return Progress()
    for part, stored in zip(parts, state["parts"], strict=True):
        part.load_state_dict(stored)
    return Progress(tuple(state["train"]), tuple(state["validation"]), state["best"], state["weights"])


def _finish(folder: Path, job: FitJob, fitted: Progress) -> None:
    assert fitted.weights is not None
    # Half precision: what is evaluated is what is shipped.
    halved = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in fitted.weights.items()}
    write_whole(folder / WEIGHTS, save(halved))
    report = {
        "digest": job.digest,
        "backbone": job.backbone,
        "seed": job.seed,
        "settings": job.settings.model_dump(mode="json"),
        "train_loss": list(fitted.train),
        "validation_loss": list(fitted.validation),
        "best_epoch": fitted.best + 1,
        "stop_after": job.stop_after,
        "scans": {"fit": len(job.fit), "validate": len(job.validate)},
    }
    write_whole(folder / REPORT, json.dumps(report, indent=1) + "\n")
    (folder / CHECKPOINT).unlink(missing_ok=True)
