import re
import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "infra/Dockerfile"
HADOLINT = Path(sysconfig.get_path("scripts")) / "hadolint"


def lint(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HADOLINT, "-"], input=text, capture_output=True, text=True, check=False)


def test_hadolint_has_nothing_to_say() -> None:
    text = DOCKERFILE.read_text()
    done = lint(text)
    assert (done.returncode, done.stdout) == (0, "")
    assert lint(text.replace("slim-bookworm", "slim-bookworm\nRUN cd /tmp")).returncode


def test_images_run_as_a_user_and_have_what_jobs_need() -> None:
    text = DOCKERFILE.read_text()
    targets = dict(re.findall(r"^FROM \S+ AS (cpu|cuda)$(.*?)(?=^FROM|\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(targets) == {"cpu", "cuda"}
    assert all("USER 1000" in target for target in targets.values())
    for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE):
        assert all((ROOT / source).exists() for source in line.split())


def test_only_sources_are_sent_to_the_builder() -> None:
    first, *others = [
        line for line in (ROOT / "infra/Dockerfile.dockerignore").read_text().splitlines() if line[0] != "#"
    ]
    assert first == "*"
    sent = [line[1:] for line in others if line.startswith("!")]
    assert all((ROOT / path).exists() for path in sent)
    packages = re.search(r"include = \[(.*)\]", (ROOT / "pyproject.toml").read_text())
    assert packages
    assert {name.strip('"*') for name in packages[1].split(", ")} < set(sent)
