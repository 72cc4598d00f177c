"""Findings with everything that a page can show of them: numbers, risk, trend, flags, rejected series."""

from dicomnode.analysis.findings import (
    ChosenSeries,
    Findings,
    Flag,
    Horizon,
    Quantities,
    Reason,
    RejectedSeries,
    Risk,
    TrendPoint,
)
from dicomnode.config import Config
from dicomnode.files import make_folder, write_whole
from dicomnode.store.results_folder import FINDINGS, results_folder


def write_findings(config: Config, study_uid: str, words: str = "LOCALIZER") -> None:
    """Put them where the first generation's results lie; `words`: of a series that was rejected."""
    quantities = Quantities(-780.0, 150.0, 2.1, 5.5, -940.0, -905.0, -830.0, -650.0, -300.0, 8.25, 4.0, 4321.0, 0.5)
    priors = [
        TrendPoint("1.2.9", "1.2.9.1", "20250102", 365.0, 4400.0, 7.7, -800.0),
        TrendPoint("1.2.8", "1.2.8.1", "20240102", 730.0, 4500.0, 6.9, -812.0, doubts=("change-kernel",)),
    ]
    made = Findings(
        "analysed",
        ChosenSeries(study_uid, f"{study_uid}.7", 300, (1.0, 0.7, 0.7), "B30f", "the thinnest", study_date="20260102"),
        rejected=(RejectedSeries(f"{study_uid}.8", "CT", 3, (Reason("too-few-slices", f"{words} has 3"),)),),
        flags=(
            Flag("cut-off-base", "warning", "<i>The base</i> is cut off."),
            Flag("order-from-worklist", "info", "The images name no order: it was taken from the worklist."),
        ),
        quantities={"lungs": quantities, "right": quantities, "left": quantities},
        risk=Risk(
            "demo",
            "0" * 64,
            "synthetic-demo",
            (Horizon(1, 0.1234, 0.05, 0.25), Horizon(3, 0.25, 0.12, 0.4), Horizon(5, 0.4, 0.22, 0.6)),
            interval="95 % of the ensemble's members",
        ),
        trend=tuple(priors),
    )
    folder = results_folder(config.storage.results, study_uid, 1)
    make_folder(folder)
    write_whole(folder / FINDINGS, made.to_json().encode())
