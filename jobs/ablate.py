"""Trains and evaluates the rows of the paper's Tables 4, 5 and 6 on Shapes.

python -m jobs.ablate --config jobs/configs/ablations.yaml

Run again after any interruption, it goes on where it was. The exit code is 0 if all is there, 1 if something broke off,
2 for bad input, 75 if it was interrupted.
"""

import os
import signal
import sys
from argparse import ArgumentError

from jsonargparse import ArgumentParser

import jobs.train
from jobs.evaluate import CellProgress
from pipelines.ablations import REPORT, AblationsConfig, ModelConfig, run_ablations


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    parser = ArgumentParser(prog="python -m jobs.ablate", description=__doc__, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_class_arguments(AblationsConfig)
    try:
        options = parser.instantiate(parser.parse_args(arguments))
        config = AblationsConfig(**{name: value for name, value in vars(options).items() if name != "config"})
        findings = run_ablations(config, train, CellProgress())
    except (ArgumentError, ValueError) as error:
        print(f"ablate: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"ablate: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nablate: interrupted; what is done stays, run it again to go on", file=sys.stderr)
        return os.EX_TEMPFAIL
    for finding in findings:
        print(f"{finding.claim.better} > {finding.claim.worse}: {finding.verdict}")
    print(f"tables: {config.output}/{REPORT}")
    return 0


def train(model: ModelConfig, output: str) -> None:
    """Runs one training, or goes on with it.

    Raises:
        RuntimeError: it did not end well; it has said why.
    """
    print(model.name, file=sys.stderr)
    files = [option for file in model.configs for option in ("--config", file)]
    code = jobs.train.main([*files, "--output", output])
    if code == os.EX_TEMPFAIL:
        raise KeyboardInterrupt
    if code:
        raise RuntimeError(f"the training {model.name} ended with exit code {code}; see above")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's way to say Ctrl-C
    sys.exit(main())
