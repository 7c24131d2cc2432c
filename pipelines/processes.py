"""How many processes an option asks for: a number, or a range within which Ray chooses. Imports no ray."""

import re
from typing import NamedTuple


class Processes(NamedTuple):
    """A number of processes that may change while a job runs.

    Attributes:
        least: processes that the job needs, at least 1.
        most: processes that it uses at most; equal to `least` if their number is fixed.
    """

    least: int
    most: int

    @classmethod
    def parse(cls, name: str, value: int | str) -> "Processes":
        """Reads the value of an option, such as 4 or `1-8`.

        Args:
            name: name of the option.
            value: its value.

        Raises:
            ValueError: it is neither a number of at least 1 nor a range of such numbers.
        """
        match = re.fullmatch(r"\s*(\d{1,9})(?:\s*-\s*(\d{1,9}))?\s*", str(value))
        if match:
            processes = cls(int(match[1]), int(match[2] or match[1]))
            if 1 <= processes.least <= processes.most:
                return processes
        raise ValueError(f"{name}: expected a number from 1 on, or a range such as 1-8, got {value}")
