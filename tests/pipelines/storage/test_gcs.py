import ssl
import time
from pathlib import Path

import pytest
from google.auth.exceptions import TransportError
from requests.exceptions import SSLError
from werkzeug.serving import make_ssl_devcert

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


def test_a_certificate_that_is_not_trusted_is_told_at_once(
    gcs_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*make_ssl_devcert(str(tmp_path / "own"), host="localhost"))
    server = gcs_place.proxy.server
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_place.proxy.url.replace("http://127.0.0.1", "https://localhost"))
    gcs._client.cache_clear()
    began = time.monotonic()
    with pytest.raises(OSError, match="the certificate of the server is not trusted; set REQUESTS_CA_BUNDLE"):
        head(f"{gcs_place.bucket}/a")
    assert time.monotonic() - began < gcs.PATIENCE_S / 2
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "own.crt"))
    with pytest.raises(FileNotFoundError):
        head(f"{gcs_place.bucket}/a")


def test_other_errors_of_tls_may_pass() -> None:
    assert gcs._may_pass(SSLError("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of protocol"))
    assert not gcs._may_pass(TransportError(SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")))


def test_browsers_are_told_what_an_object_is(gcs_place: Place, put: Put) -> None:
    for key, kind in (("a.html", "text/html; charset=utf-8"), ("a.parquet", "application/octet-stream")):
        blob = gcs._blob(put(f"{gcs_place.bucket}/{key}"))
        blob.reload()
        assert blob.content_type == kind
