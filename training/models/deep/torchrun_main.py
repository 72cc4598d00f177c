"""One of several processes that fit a job's network together.

`torchrun --standalone --nproc-per-node 4 -m training.models.deep.torchrun_main FOLDER`, where FOLDER holds a job
(`training.models.deep.job`). The deep arm starts this when `deep.processes` is above 1; by hand it also runs over
several machines.
"""

import sys
from pathlib import Path

from training.models.deep import fit
from training.models.deep.distributed import joined
from training.models.deep.job import FitJob


def main(folder: Path) -> None:
    """Fit the job in `folder`; the first process prints a line "done total what" for each epoch."""
    job = FitJob.load(folder)
    with joined(job.settings.device) as ranks:
        fit.fit(job, folder, ranks, lambda what, done, total: print(done, total, what, flush=True))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
