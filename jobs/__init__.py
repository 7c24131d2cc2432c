"""Entry points: the only place that parses arguments and prints."""

import sys

if sys.argv[0] == "-m":  # Python looks for the job that `python -m jobs.…` names; its imports take time
    from jobs.command import expect_signals

    expect_signals()
