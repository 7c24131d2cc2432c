"""The checker that the test run puts around the annotated functions of packages with arrays."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""An int may stand for a float, as for mypy."""
