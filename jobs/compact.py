"""Merges small files of a labelling output into large ones; the tables read the same before, meanwhile and after.

python -m jobs.compact --output labels/

The exit code is 0, 1 if it broke off, which costs nothing: run it again; 2 for bad input.
"""

import sys
from argparse import ArgumentError

from jsonargparse import ArgumentParser

from pipelines.compaction import CompactConfig, compact


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    parser = ArgumentParser(prog="python -m jobs.compact", description=__doc__, exit_on_error=False)
    parser.add_class_arguments(CompactConfig)
    try:
        config = CompactConfig(**vars(parser.parse_args(arguments)))
        summary = compact(config)
    except (ArgumentError, ValueError) as error:
        print(f"compact: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (OSError, RuntimeError) as error:
        print(f"compact: error: {error}", file=sys.stderr)
        return 1
    size = summary.bytes / 1e6
    print(f"{summary.parts_before} parts → {summary.parts}, {size:.1f} MB → {config.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
