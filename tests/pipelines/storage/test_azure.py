from pathlib import Path

import pytest

from pipelines.storage import azure
from pipelines.storage.azure import Azure
from pipelines.storage.objects import head, list_objects, local_copy
from tests.pipelines.storage.clouds import ACCOUNT, AZURE_SETTINGS, Place, connection_string, needs_azurite
from tests.pipelines.storage.put import Put


def test_a_uri_names_a_container() -> None:
    for root in ("az://videos", "abfss://videos@account.dfs.core.windows.net"):
        assert Azure().check(f"{root}/a/b?c") == "a/b?c"
        assert Azure().check(root) == Azure().check(f"{root}/") == ""
    for uri in ("az:///a", "abfss://videos/a", "abfss://@account.dfs.core.windows.net/a"):
        with pytest.raises(ValueError, match=f"{uri}: names no container; give az://container/key or abfss://"):
            Azure().check(uri)


@needs_azurite
def test_both_schemes_name_the_same_objects(azure_place: Place, put: Put) -> None:
    container = azure_place.bucket.removeprefix("az://")
    root = f"abfss://{container}@{ACCOUNT}.dfs.core.windows.net"
    uri = put(f"{root}/a b/c.mp4", b"content")
    assert [entry.uri for entry in list_objects(f"{root}/a")] == [uri]
    assert head(uri).etag == head(f"{azure_place.bucket}/a b/c.mp4").etag
    with local_copy(f"{azure_place.bucket}/a b/c.mp4") as copy:
        assert copy.read_bytes() == b"content"


def test_missing_credentials_say_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(azure, "ATTEMPTS", 1)
    for name in AZURE_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))  # no az
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "dev")  # no machine to ask
    azure._client.cache_clear()
    with pytest.raises(ValueError, match="AZURE_STORAGE_ACCOUNT: is not set; set it to the name of the account of az"):
        head("az://videos/a")
    message = "no credentials; set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING"
    with pytest.raises(PermissionError, match=message):
        head("abfss://videos@account.dfs.core.windows.net/a")
    azure._client.cache_clear()
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "account")
    with pytest.raises(PermissionError, match=message):
        head("az://videos/a")
    azure._client.cache_clear()
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "nonsense")
    with pytest.raises(ValueError, match="AZURE_STORAGE_CONNECTION_STRING: is none; copy it"):
        head("az://videos/a")
    azure._client.cache_clear()


@needs_azurite
def test_a_wrong_key_is_refused(azure_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection_string(azure_place.proxy.url, "d3Jvbmc="))
    with pytest.raises(PermissionError, match="are refused; set AZURE_STORAGE_KEY"):
        head(f"{azure_place.bucket}/a")


@needs_azurite
def test_browsers_are_told_what_an_object_is(azure_place: Place, put: Put) -> None:
    for key, kind in (("a.html", "text/html; charset=utf-8"), ("a.parquet", "application/octet-stream")):
        found = azure._blob(put(f"{azure_place.bucket}/{key}")).get_blob_properties()
        assert found.content_settings.content_type == kind
