import re
from pathlib import Path

import pytest

from pipelines.archive.schemas import SCHEMAS

DOCS = Path(__file__).parents[3] / "docs/output.md"


@pytest.mark.parametrize("table", SCHEMAS)
def test_the_documents_describe_every_column(table: str) -> None:
    section = DOCS.read_text().partition(f"\n## {table}: ")[2].partition("\n## ")[0]
    described = dict[str, str]()
    for names, kinds in re.findall(r"^\| ([\w, ]+) \| ([^|]+) \|", section, re.M)[1:]:
        each = kinds.split(", ") if kinds[0] != "(" else [kinds]
        described |= {name: each[min(at, len(each) - 1)] for at, name in enumerate(names.split(", "))}
    assert list(described) == SCHEMAS[table].names
    plain = {field.name: str(field.type) for field in SCHEMAS[table] if field.type.num_fields == 0}
    assert {name: described[name] for name in plain} == plain
