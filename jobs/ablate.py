"""Trains and evaluates the rows of the paper's Tables 4, 5 and 6 on Shapes.

python -m jobs.ablate --config jobs/configs/ablations.yaml

After an interruption, run it again: it resumes where it stopped. The exit code is 0 if everything is done, 1 if a
training or an evaluation failed, 2 for bad input, 75 if it was interrupted.
"""

import os
import sys

import jobs.train
from jobs.command import check_present, run_job, start
from jobs.options import read_config
from jobs.progress import CellProgress
from pipelines.evaluation.config import AblationsConfig


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job("ablate", lambda: _ablate(arguments), interrupted="what is done is kept; run it again to resume")


def _ablate(arguments: list[str] | None) -> int:
    config = read_config("ablate", __doc__, AblationsConfig, arguments)
    for dataset in config.datasets:  # training takes hours
        check_present(f"datasets.{dataset.name}.ground_truth", dataset.ground_truth)
    for model in config.models:
        for path in model.configs:
            check_present(f"models.{model.name}.configs", path)

    from pipelines.evaluation.ablations import REPORT, run_ablations

    findings = run_ablations(config, train, CellProgress())
    for finding in findings:
        print(f"{finding.claim.better} > {finding.claim.worse}: {finding.verdict}")
    print(f"tables: {config.output}/{REPORT}")
    return 0


def train(name: str, options: list[str]) -> None:
    """Runs one training, or resumes it.

    Raises:
        RuntimeError: the training failed; it has printed why.
    """
    print(name, file=sys.stderr)
    code = jobs.train.main(options)
    if code == os.EX_TEMPFAIL:
        raise KeyboardInterrupt
    if code:
        raise RuntimeError(f"the training {name} ended with exit code {code}; see above")


if __name__ == "__main__":
    start(main)
