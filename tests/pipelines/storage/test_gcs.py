from pathlib import Path

import pytest

from pipelines.storage import gcs
from pipelines.storage.gcs import Gcs
from pipelines.storage.objects import head
from tests.pipelines.storage.clouds import Place
from tests.pipelines.storage.put import Put


def test_a_uri_names_a_bucket() -> None:
    assert Gcs().check("gs://bucket/a/b?c") == "a/b?c"
    assert Gcs().check("gs://bucket") == ""
    with pytest.raises(ValueError, match="gs:///a: names no bucket; give gs://bucket/key"):
        Gcs().check("gs:///a")


def test_missing_credentials_say_what_to_set(gcs_place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    gcs._client.cache_clear()
    message = "no credentials; run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS"
    with pytest.raises(PermissionError, match=message):
        head(f"{gcs_place.bucket}/a")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    with pytest.raises(PermissionError, match=message):
        head(f"{gcs_place.bucket}/a")


def test_browsers_are_told_what_an_object_is(gcs_place: Place, put: Put) -> None:
    for key, kind in (("a.html", "text/html; charset=utf-8"), ("a.parquet", "application/octet-stream")):
        blob = gcs._blob(put(f"{gcs_place.bucket}/{key}"))
        blob.reload()
        assert blob.content_type == kind
