"""Every command that manifests and documents give is one that the jobs take."""

import importlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    ROOT / "README.md",
    ROOT / "Makefile",
    *(ROOT / "docs").glob("*.md"),
    *(file for kind in ("yaml", "txt") for file in (ROOT / "infra").rglob(f"*.{kind}")),
    *(ROOT / "jobs/configs").rglob("*.yaml"),
]


STAND_INS = {"sweep.yaml": "infra/kubernetes/settings/evaluate.yaml"}
"""For files of users."""


_END = r": |\. |  +#|\s>|\["
_UNQUOTED = r"""(?=(?:[^"]*"[^"]*")*[^"]*$)"""


class ParsedError(Exception):
    """The options are in order."""


def reads(reader: Callable[..., Any]) -> Callable[..., Any]:
    """A reader of options after which the job is over."""

    def read(*arguments: Any) -> Any:
        reader(*arguments)
        raise ParsedError

    return read


def commands() -> list[tuple[str, str, str]]:
    found = []
    for file in FILES:
        text = file.read_text().replace("\\\n", " ")
        for job, rest in re.findall(r"python -m jobs\.(\w+)((?: (?!\|)[^\n`#)]*)?)", text):
            rest = re.split(rf"(?:{_END}){_UNQUOTED}", rest)[0].replace("THIS", str(file))
            found.append((str(file.relative_to(ROOT)), job, rest.rstrip(".,:;")))
    return sorted(set(found))


def test_there_are_commands_of_every_job() -> None:
    jobs = {file.stem for file in (ROOT / "jobs").glob("*.py") if "start(main)" in file.read_text()}
    assert {job for _, job, _ in commands()} == jobs


@pytest.mark.parametrize(("file", "job", "rest"), commands())
def test_a_command_is_understood(file: str, job: str, rest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(rest)
    if not words:
        return
    module = importlib.import_module(f"jobs.{job}")
    for reader in {"read_command", "read_config"} & set(vars(module)):
        monkeypatch.setattr(module, reader, reads(getattr(module, reader)))
    monkeypatch.setattr("jobs.recipes.origin_of", lambda checkpoint: {})  # those of the examples are not there
    monkeypatch.chdir(ROOT)
    words = [STAND_INS.get(word, word).replace("/etc/openvis", "infra/kubernetes/settings") for word in words]
    with pytest.raises((ParsedError, SystemExit)) as end:
        module.main(words)
    assert isinstance(end.value, ParsedError) or end.value.code == 0  # of --help
