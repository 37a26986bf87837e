"""How the agent reaches its store: certificates, credentials, endpoints, and few file descriptors."""

import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from certificates import certificate
from faulty_proxy import FaultyProxy
from fixtures_store import Bucket
from servesync.domain.versions import Model
from servesync.errors import Reason, StoreError
from servesync.settings import Fetch, Limits, Store
from servesync.store import Bounds, S3Store

ONCE = Bounds(list_attempts=1)
BODY = bytes(range(256)) * 4096


def store_of(bucket: Bucket, endpoint_url: str | None, bounds: Bounds = ONCE) -> S3Store:
    """Return the agent's store at an endpoint."""
    settings = Store(url=f"s3://{bucket.name}/prod", endpoint_url=endpoint_url, region="us-east-1")
    return S3Store(settings, Fetch(), Limits(), bounds)


def models_in(store: S3Store) -> list[Model]:
    """Return the models that a listing shows."""
    return list(store.list(lambda _: True).releases)


@pytest.fixture
def secure(
    bucket: Bucket, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[FaultyProxy, Path]]:
    """A TLS endpoint before the bucket, and its certificate, for the name that the test gives."""
    file = certificate(tmp_path, getattr(request, "param", "127.0.0.1"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    bucket.put("prod/m/1.tar", BODY)
    with FaultyProxy(bucket.server.port, context) as proxy:
        yield proxy, file


def test_an_unknown_authority_is_refused(bucket: Bucket, secure: tuple[FaultyProxy, Path]) -> None:
    """A certificate that nobody vouches for ends it; the text names the cause."""
    with pytest.raises(StoreError, match="certificate") as caught:
        models_in(store_of(bucket, secure[0].endpoint_url))

    assert caught.value.reason is Reason.STORE_TLS
    assert secure[0].requests == 0


def test_an_authority_of_ones_own_is_honoured(
    bucket: Bucket, secure: tuple[FaultyProxy, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS_CA_BUNDLE names it."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(secure[1]))

    assert models_in(store_of(bucket, secure[0].endpoint_url)) == ["m"]


@pytest.mark.parametrize("secure", ["store.example"], indirect=True)
def test_a_certificate_for_another_host_is_refused(
    bucket: Bucket, secure: tuple[FaultyProxy, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if its authority is known."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(secure[1]))

    with pytest.raises(StoreError) as caught:
        models_in(store_of(bucket, secure[0].endpoint_url))

    assert caught.value.reason is Reason.STORE_TLS
    assert secure[0].requests == 0


def test_no_credentials(bucket: Bucket, nowhere: Path) -> None:
    """The error says what to look at."""
    with pytest.raises(StoreError, match="credentials") as caught:
        models_in(store_of(bucket, bucket.server.endpoint_url))

    assert caught.value.reason is Reason.STORE_CREDENTIALS


def test_credentials_from_a_program(bucket: Bucket, nowhere: Path) -> None:
    """A profile's credential_process is asked; what it prints when it fails stays out of the error."""
    program = nowhere / "program"
    program.write_text("#!/bin/sh\necho secret-canary >&2\nexit 1\n")
    program.chmod(0o755)
    (nowhere / "config").write_text(f"[default]\ncredential_process = {program}\n")

    with pytest.raises(StoreError, match="custom-process") as caught:
        models_in(store_of(bucket, bucket.server.endpoint_url))

    assert caught.value.reason is Reason.STORE_CREDENTIALS
    assert "canary" not in str(caught.value)

    keys = f'"AccessKeyId": "{bucket.server.access_key}", "SecretAccessKey": "{bucket.server.secret_key}"'
    program.write_text(f"#!/bin/sh\necho '{{\"Version\": 1, {keys}}}'\n")
    assert models_in(store_of(bucket, bucket.server.endpoint_url)) == []


def test_a_profile_that_is_not_there(bucket: Bucket, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_PROFILE with a typing error is a matter of credentials."""
    monkeypatch.setenv("AWS_PROFILE", "produktion")

    with pytest.raises(StoreError, match="produktion") as caught:
        models_in(store_of(bucket, bucket.server.endpoint_url))

    assert caught.value.reason is Reason.STORE_CREDENTIALS


def test_only_the_settings_say_where_the_store_is(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint in the environment cannot send the agent elsewhere."""
    bucket.put("prod/m/1.tar")
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.server.endpoint_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.server.endpoint_url)
    monkeypatch.setenv(
        "HTTPS_PROXY", "http://127.0.0.1:9"
    )  # where AWS itself would be asked: nobody is there

    with pytest.raises(StoreError) as caught:
        models_in(store_of(bucket, None))

    assert caught.value.reason is Reason.STORE_UNREACHABLE


def test_the_system_error_is_told(bucket: Bucket) -> None:
    """Why nobody could be reached is in the text."""
    with pytest.raises(StoreError, match="Connection refused"):
        models_in(store_of(bucket, "http://127.0.0.1:9"))


FEW_DESCRIPTORS = """
import resource, sys
from servesync.errors import SyncError
from servesync.fetch import Retries, stream
from servesync.settings import Fetch, Store
from servesync.store import Bounds, S3Store
url, endpoint, limit, cycles = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
fetch = Fetch(part_bytes=64 * 1024)
where = Store(url=url, endpoint_url=endpoint, region="us-east-1")
store = S3Store(where, fetch, None, Bounds(list_attempts=1))
(release,) = next(iter(store.list(lambda model: True).releases.values()))
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
retries = Retries(attempts=1)
for _ in range(cycles):
    try:
        with stream(release.objects, store.read, fetch, lambda: False, retries) as parts:
            print("read", sum(len(piece) for _, piece in parts))
    except SyncError as error:
        print(error.reason, error)
"""


@pytest.mark.parametrize("limit", [64, 7])
def test_few_file_descriptors(bucket: Bucket, limit: int) -> None:
    """With 64 all works, again and again; with hardly any it works or says what is short, and never hangs."""
    bucket.put("prod/m/1.tar", BODY)
    url = f"s3://{bucket.name}/prod"
    command = [sys.executable, "-c", FEW_DESCRIPTORS, url, bucket.server.endpoint_url, str(limit), "20"]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    lines = done.stdout.splitlines()
    assert len(lines) == 20
    short = [line for line in lines if not line.startswith("read 1048576")]
    assert limit == 7 or short == []
    clear = [line for line in short if line.startswith("store_unreachable") and "Too many open" in line]
    assert short == clear
