"""Entry points: the only place that parses arguments and talks to a person."""
