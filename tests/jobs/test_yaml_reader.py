from pathlib import Path
from typing import Any

import pytest

from jobs.yaml_reader import parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("1e3", 1000.0),
        ("2.5", 2.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1.5E-2", 0.015),
        ("-.inf", float("-inf")),
        ("true", True),
        ("False", False),
        ("null", None),
        ("[1, a]", [1, "a"]),
        *((text, text) for text in ("yes", "on", "1:30", "1_8", "010", "0x10", "1e", "e3", "1.2.3", "truth")),
    ],
)
def test_values_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = parse_yaml(text)
    assert (found, type(found)) == (value, type(value))


def test_a_file_that_gives_a_name_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1\nb: 2\na: 3")
    with pytest.raises(ValueError, match=r"a.yaml line 3: a is given twice; remove one of the two"):
        read_yaml(str(tmp_path / "a.yaml"))
    (tmp_path / "a.yaml").write_text("a: 1\nb: {c: 2}")
    assert read_yaml(str(tmp_path / "a.yaml")) == {"a": 1, "b": {"c": 2}}
