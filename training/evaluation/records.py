"""What an evaluation found: frozen records, and their form in `evaluation.json`.

That form is read by the report and by the gate: add to it, keep what is there.
"""

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from dicomnode.errors import UsageError
from training.data.outcomes import middle_of
from training.evaluation.calibration_curve import SmoothPoint
from training.evaluation.metrics import CalibrationGroup
from training.evaluation.thresholds import text_of

FORMAT = 3


@dataclass(frozen=True)
class Estimate:
    """A metric with its 95 % percentile interval by bootstrap over patients; None: there was nothing to measure."""

    value: float | None
    lower: float | None
    upper: float | None


NOT_MEASURED = Estimate(None, None, None)


@dataclass(frozen=True)
class AtYears:
    """The scans at a horizon: those followed by a death, and of how many patients; those censored before it; the risk.

    Patients carry the evidence, a patient's scans share one death. `observed_risk` is Kaplan and Meier's.
    `threshold` is the risk from which a scan counts as high there; older evaluations have `Evaluation.threshold` alone.
    """

    years: int
    deaths: int
    patients_died: int
    censored: int
    observed_risk: Estimate
    threshold: float | None = None


@dataclass(frozen=True)
class NetBenefit:
    """Net benefit of calling scans from a threshold on high risk, and of calling all so."""

    threshold: float
    model: float | None
    everyone: float | None


@dataclass(frozen=True)
class HorizonResult:
    """One arm at one horizon; the metrics are those of `training.evaluation.metrics`.

    Attributes:
        auc_adjusted: AUC with censoring weights from a Cox model on age, sex and predicted risk.
        auc_one_scan: AUC on the first scan of each patient.
        of_oracle, minus_oracle: AUC over, and less, the oracle's, paired; None without a truth.
        calibration: groups for the plot.
        roc: (false, true) positive rates, rising.
        auc_within: AUC over pairs of scans of one outer fold alone (`metrics.auc_within`); not in older evaluations.
        observed_to_expected, ici, smooth: see `training.evaluation.calibration_curve`; not in older evaluations.
    """

    years: int
    auc: Estimate
    auc_adjusted: Estimate
    auc_one_scan: Estimate
    of_oracle: Estimate | None
    minus_oracle: Estimate | None
    brier: Estimate
    scaled_brier: Estimate
    calibration_slope: Estimate
    calibration_intercept: Estimate
    sensitivity: Estimate
    specificity: Estimate
    net_benefit: Estimate
    mean_risk: float
    calibration: tuple[CalibrationGroup, ...]
    roc: tuple[tuple[float, float], ...]
    decision: tuple[NetBenefit, ...]
    auc_within: Estimate = NOT_MEASURED
    observed_to_expected: Estimate = NOT_MEASURED
    ici: Estimate = NOT_MEASURED
    smooth: tuple[SmoothPoint, ...] = ()


@dataclass(frozen=True)
class Subgroup:
    """One arm in a part of the cohort at one horizon; `deaths` are scans followed by one, of `patients_died` patients.

    With few patients who died, or who survived, there is no AUC.
    """

    by: str
    value: str
    years: int
    scans: int
    deaths: int
    patients_died: int
    auc: Estimate
    mean_risk: float
    observed_risk: Estimate


@dataclass(frozen=True)
class RiskGroup:
    """Kaplan and Meier's curve of a third of the scans by predicted risk, on a grid of years."""

    name: str
    scans: int
    lowest_risk: float
    highest_risk: float
    years: tuple[float, ...]
    survival: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    at_risk: tuple[int, ...]


@dataclass(frozen=True)
class ArmResult:
    """One arm: Uno's C up to the last horizon, and the rest by horizon."""

    arm: str
    uno_c: Estimate
    horizons: tuple[HorizonResult, ...]
    subgroups: tuple[Subgroup, ...]
    risk_groups: tuple[RiskGroup, ...]

    def at(self, years: int) -> HorizonResult:
        """Return the result at a horizon of the evaluation."""
        return next(h for h in self.horizons if h.years == years)


@dataclass(frozen=True)
class Oracle:
    """The generator's own risk, judged: no model of a synthetic registry can be expected to do better.

    Its calibration is perfect but for the chance of this sample: a model's slope is to be seen beside it.
    """

    years: int
    auc: Estimate
    calibration_slope: Estimate
    calibration_intercept: Estimate


@dataclass(frozen=True)
class Misjudged:
    """A scan that the primary arm judged badly (see `training.evaluation.misjudged`).

    Attributes:
        scan: pseudonym.
        died: whether the patient died within the horizon; otherwise the patient lived beyond it.
        risk: predicted for the horizon.
        time_years: from the scan to death or last contact.
    """

    scan: str
    died: bool
    risk: float
    time_years: float


@dataclass(frozen=True)
class PairedDifference:
    """`arm` less `against` on the same scans, with intervals by the same draws of patients for both.

    Attributes:
        auc: difference of the AUC at each horizon of the evaluation, in its order.
        uno_c: difference of Uno's C up to the last horizon.
        brier, ici: as `auc`, of the Brier score and the integrated calibration index: lower is better. Not in older
            evaluations.
    """

    arm: str
    against: str
    auc: tuple[Estimate, ...]
    uno_c: Estimate
    brier: tuple[Estimate, ...] = ()
    ici: tuple[Estimate, ...] = ()


@dataclass(frozen=True)
class TransplantTreatment:
    """The primary arm's predictions with lung transplants treated in one way ("event", "censor" or "compete").

    `observed_risk` is 1 - Kaplan-Meier; as a competing risk, Aalen and Johansen's cumulative incidence of death.
    """

    treatment: str
    observed_risk: Estimate
    auc: Estimate
    observed_to_expected: Estimate
    calibration_slope: Estimate
    calibration_intercept: Estimate


@dataclass(frozen=True)
class TransplantsAt:
    """The scans followed by a transplant by a horizon, of how many patients, and what each treatment of them finds."""

    years: int
    transplanted: int
    patients_transplanted: int
    treatments: tuple[TransplantTreatment, ...]


@dataclass(frozen=True)
class Evaluation:
    """All that one evaluation of out-of-fold predictions found. `primary` names the arm that decides.

    `transplants` are a sensitivity analysis, empty where nobody was transplanted, and in older evaluations.
    `baselines` are those of the arms that are only there to be compared with; `differences` are of pairs of arms. An
    older evaluation has neither. `threshold` is that of the middle horizon (see `thresholds`).
    """

    format: int
    bootstrap: int
    threshold: float
    patients: int
    scans: int
    deaths: int
    median_follow_up_years: float
    primary: str
    horizons: tuple[AtYears, ...]
    oracle: tuple[Oracle, ...]
    arms: tuple[ArmResult, ...]
    misjudged: tuple[Misjudged, ...]
    warnings: tuple[str, ...]
    baselines: tuple[str, ...] = ()
    differences: tuple[PairedDifference, ...] = ()
    transplants: tuple[TransplantsAt, ...] = ()

    @property
    def middle_years(self) -> int:
        """The horizon that stands for all where there is room for one; `misjudged` is of it."""
        return middle_of([h.years for h in self.horizons])

    @property
    def thresholds(self) -> str:
        """The risks from which a scan counts as high, in words: one, or one for each horizon."""
        return text_of({h.years: self.threshold if h.threshold is None else h.threshold for h in self.horizons})

    def arm(self, name: str) -> ArmResult:
        """Return the result of an arm; KeyError if there is none."""
        for result in self.arms:
            if result.arm == name:
                return result
        raise KeyError(name)

    def to_json(self) -> str:
        """`evaluation.json`: UTF-8 text with a newline at the end."""
        return _ADAPTER.dump_json(self, indent=1).decode() + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Evaluation":
        """Return the evaluation that `to_json` wrote.

        Raises:
            UsageError: the text is no such evaluation.
        """
        try:
            return _ADAPTER.validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UsageError(
                f"evaluation.json cannot be read ({where}: {first['msg']}): delete it and start `training run` again"
            ) from None


_ADAPTER = TypeAdapter(Evaluation)
