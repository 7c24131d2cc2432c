from typing import get_args

from pipelines.archive.config import FormatName
from pipelines.archive.formats.registry import FORMATS


def test_each_format_is_a_choice() -> None:
    assert tuple(FORMATS) == get_args(FormatName)
