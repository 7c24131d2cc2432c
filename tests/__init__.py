"""The checker that the test run puts around every annotated function of `openvis_model`."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""An int may stand for a float, as for mypy."""
