"""Jobs that read labels name what is wrong with S3 before they begin."""

from collections.abc import Callable
from pathlib import Path

import pytest

import jobs.compact
import jobs.export
import jobs.relabel
import jobs.search
from pipelines.storage import s3
from tests.pipelines.storage.s3_server import Proxy

MAINS = {
    "compact": jobs.compact.main,
    "export": jobs.export.main,
    "relabel": jobs.relabel.main,
    "search": jobs.search.main,
}


@pytest.fixture
def error_of(bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Runs a job on labels in the bucket, and gives its one line."""
    names = tmp_path / "names.txt"
    names.write_text("red star\n")
    labels = ["--labels", f"{bucket}/labels"]
    arguments = {
        "compact": ["--labels", f"{bucket}/labels"],
        "export": [*labels, "--output", str(tmp_path / "out"), "--format", "coco"],
        "relabel": [*labels, "--output", str(tmp_path / "out"), "--vocabulary", str(names)],
        "search": [*labels, "--text", "red star"],
    }

    def tell(job: str) -> str:
        s3._client.cache_clear()
        assert MAINS[job](arguments[job]) == 2
        assert not (tmp_path / "out").exists()
        (line,) = capsys.readouterr().err.splitlines()
        prefix = f"{job}: error: labels: {bucket}/labels"
        assert line.startswith(prefix)
        return line.removeprefix(prefix)

    return tell


@pytest.mark.parametrize("job", MAINS)
def test_what_is_wrong_with_s3(
    job: str, error_of: Callable[[str], str], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    assert error_of(job) == " has no labels; give the output of a labelling run"
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        assert "http://127.0.0.1:9 cannot be reached" in error_of(job)
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        assert "no credentials (NoCredentialsError); set AWS_ACCESS_KEY_ID" in error_of(job)
    proxy.refuse(400, "AuthorizationHeaderMalformed")
    assert "its bucket is in another region; set AWS_REGION" in error_of(job)
