"""How far the true risk's own calibration slope lies from 1 by chance, in synthetic registries of some sizes.

No image is made: patients are drawn, and the risk that their deaths were drawn from is judged as a model's would be.

    python -m tests.benchmarks.truth_spread          # two minutes of one core
"""

import argparse

import numpy as np

from training.data.outcomes import HORIZONS_YEARS, Outcomes
from training.evaluation import metrics
from training.synthetic.patients import draw

SIZES = (600, 1200, 2000, 4000)
LOWEST, HIGHEST = 0.85, 1.15
_FOR_EVER = 1000.0  # years; as long as everybody is followed where nobody is lost


def main() -> None:
    """Print a table of slopes by horizon and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=24_000, help="drawn in all, and cut into registries")
    parser.add_argument("--seed", type=int, default=99)
    wanted = parser.parse_args()
    _, scans = draw(wanted.patients, wanted.seed)
    number = np.array([int(s.patient.patient[1:]) for s in scans])
    years = np.array([max(s.patient.end - s.years, 0) for s in scans])
    died = np.array([s.patient.death <= s.patient.contact for s in scans])
    risks = np.array([s.risks for s in scans])
    followed = Outcomes(np.array([min(s.patient.death, _FOR_EVER) - s.years for s in scans]), np.ones(len(scans), bool))
    print("| horizon | patients | registries | mean slope | SD | within 0.85 to 1.15 |\n|---|---|---|---|---|---|")
    for column, horizon in enumerate(HORIZONS_YEARS):
        for size in (*(s for s in SIZES if s < wanted.patients), wanted.patients):
            slopes = []
            for registry in range(wanted.patients // size):
                rows = number // size == registry
                at = metrics.at_horizon(Outcomes(years[rows], died[rows]), horizon)
                slopes.append(float(metrics.calibration_slope(at, risks[rows, column])))
            within = np.mean([LOWEST <= s <= HIGHEST for s in slopes])
            spread = f"{np.std(slopes):.3f}" if len(slopes) > 1 else ""
            print(f"| {horizon} y | {size} | {len(slopes)} | {np.mean(slopes):.3f} | {spread} | {within:.0%} |")
        slope = float(metrics.calibration_slope(metrics.at_horizon(followed, horizon), risks[:, column]))
        print(f"| {horizon} y | {wanted.patients}, nobody lost | 1 | {slope:.3f} | | |")


if __name__ == "__main__":
    main()
