# ruff: noqa: E501 (a table is read by its rows)
"""Credentials that cannot be sent, or not be obtained: refused before any request, named, and never shown."""

import json
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from faulty_proxy import Exchange, FaultyProxy, s3_error, says
from fixtures_store import Bucket
from servesync.domain.versions import StoredObject
from servesync.errors import Reason, StoreError, internal_error
from servesync.settings import Fetch, Limits, Store
from servesync.store import Bounds, ObjectAttributes, S3Store, S3Writer

CANARY = "CANARY0123456789abcdef"
ONCE = Bounds(list_attempts=1)
IMPATIENT = Bounds(list_attempts=1, read_seconds=1.0)
PROGRAM_SECONDS = 60


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[FaultyProxy]:
    """What stands before the store, and counts."""
    with FaultyProxy(bucket.server.port) as proxy:
        yield proxy


@pytest.fixture
def other() -> Iterator[FaultyProxy]:
    """A server of credentials: it answers by itself."""
    with FaultyProxy(9, fault=says(404, b"", "text/plain")) as server:
        yield server


def store_of(bucket: Bucket, endpoint_url: str, bounds: Bounds = ONCE) -> S3Store:
    """Return the agent's store."""
    settings = Store(url=f"s3://{bucket.name}/prod", endpoint_url=endpoint_url, region="us-east-1")
    return S3Store(settings, Fetch(), Limits(), bounds)


def refused(ask: Callable[[], object], *words: str) -> StoreError:
    """Make sure that `ask` is refused for its credentials, with these words and without any canary."""
    with pytest.raises(StoreError) as caught:
        ask()
    error = caught.value
    shown = "".join([str(error), repr(error.facts), *traceback.format_exception(error)])
    assert error.reason is Reason.STORE_CREDENTIALS, error
    assert [word for word in words if word not in str(error)] == [], error
    assert "CANARY" not in shown
    assert "CANARY" not in json.dumps([str(internal_error(error)), internal_error(error).facts])
    return error


# -- what cannot be sent -----------------------------------------------------------------------------------

KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIA" + CANARY,
    "AWS_SECRET_ACCESS_KEY": "secret" + CANARY,
    "AWS_SESSION_TOKEN": "token" + CANARY,
}
TOKEN, ID, SECRET = "session token", "access key id", "secret key"
FLAWED = {
    "a line feed at the end of the token": (TOKEN, CANARY + "\n", ["ends with a line feed", "printf"]),
    "a wrapped token": (TOKEN, CANARY + "\n" + CANARY, ["a line feed (character 23 of 45)", "one line"]),
    "a carriage return": (TOKEN, CANARY + "\r\n", ["ends with a carriage return"]),
    "a control character": (TOKEN, CANARY + "\x1b" + CANARY, ["a control character (character 23 of 45)"]),
    "a space before the token": (TOKEN, " " + CANARY, ["begins with a space"]),
    "no ASCII": (TOKEN, CANARY + "\u20ac" + CANARY, ["not ASCII (character 23"]),
    "a byte order mark": (TOKEN, "\ufeff" + CANARY, ["an invisible character (character 1"]),
    "a line feed after the id": (ID, CANARY + "\n", ["ends with a line feed"]),
    "a tab in the id": (ID, CANARY + "\t" + CANARY, ["a tab"]),
    "a line feed after the secret": (SECRET, CANARY + "\n", ["ends with a line feed"]),
    "a space after the secret": (SECRET, CANARY + " ", ["ends with a space"]),
}
LINES = "aws_access_key_id = A\naws_secret_access_key = B\n"
ROLE = "[default]\nrole_arn = arn:aws:iam::123456789012:role/r\nsource_profile = "
VARIABLES = dict(zip((ID, SECRET, TOKEN), KEYS, strict=True))


@pytest.mark.parametrize("flawed", FLAWED.values(), ids=FLAWED.keys())
def test_what_cannot_be_sent_is_refused_before_any_request(
    flawed: tuple[str, str, list[str]],
    bucket: Bucket,
    nowhere: Path,
    proxy: FaultyProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever reads and whoever writes is told which of the three, from where, and what kind of character."""
    which, value, words = flawed
    for name, good in KEYS.items():
        monkeypatch.setenv(name, good)
    monkeypatch.setenv(VARIABLES[which], value)
    store = store_of(bucket, proxy.endpoint_url)
    where = Store(url=f"s3://{bucket.name}/prod", endpoint_url=proxy.endpoint_url, region="us-east-1")

    refused(lambda: store.list(lambda _: True), f"the {which} from env ", *words, "listing s3://")
    with S3Writer(where) as writer:
        refused(
            lambda: writer.put_new("prod/x", b"", ObjectAttributes("text/plain")), *words, "the publisher's"
        )
    assert proxy.requests == 0


def test_a_token_wrapped_in_the_credentials_file(bucket: Bucket, nowhere: Path, proxy: FaultyProxy) -> None:
    """An indented second line belongs to the value, by the rules of such files."""
    (nowhere / "credentials").write_text(f"[default]\n{LINES}aws_session_token = {CANARY}\n  {CANARY}\n")
    store = store_of(bucket, proxy.endpoint_url)

    refused(lambda: store.list(lambda _: True), "session token from shared-credentials-file", "one line")
    assert proxy.requests == 0


def test_the_keys_that_a_role_is_assumed_with_are_checked_too(
    bucket: Bucket, nowhere: Path, other: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STS is not asked with a token that cannot be sent."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", other.endpoint_url)
    (nowhere / "config").write_text(
        f"{ROLE}base\n[profile base]\n{LINES}aws_session_token = {CANARY}\n {CANARY}\n"
    )
    store = store_of(bucket, bucket.server.endpoint_url)

    refused(lambda: store.list(lambda _: True), "the session token from source_profile", "a line feed")
    assert other.requests == 0


def test_a_role_is_assumed_in_the_region_of_the_store(
    bucket: Bucket, nowhere: Path, other: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No variable names a region; what STS gives is checked and used."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", other.endpoint_url)
    (nowhere / "config").write_text(ROLE + "base\n[profile base]\n" + LINES)
    store = store_of(bucket, bucket.server.endpoint_url)

    other.fault = says(200, assumed(bucket, CANARY + "&#10;"), "text/xml")
    refused(lambda: store.list(lambda _: True), "the session token from assume-role", "ends with a line feed")
    other.fault = says(200, assumed(bucket, ""), "text/xml")

    assert store.list(lambda _: True).requests == 1


def assumed(bucket: Bucket, token: str) -> bytes:
    """Return what STS answers who assumes a role."""
    until = datetime.now(UTC) + timedelta(hours=1)
    keys = f"<AccessKeyId>{bucket.server.access_key}</AccessKeyId><SessionToken>{token}</SessionToken>"
    return (
        '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>'
        f"{keys}<SecretAccessKey>{bucket.server.secret_key}</SecretAccessKey>"
        f"<Expiration>{until:%Y-%m-%dT%H:%M:%SZ}</Expiration>"
        "</Credentials></AssumeRoleResult></AssumeRoleResponse>"
    ).encode()


def test_what_a_secret_may_hold(bucket: Bucket, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is only computed with: MinIO takes spaces and letters of any language inside, so it is asked."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ein gehei\u00dfes Wort" + CANARY)

    refused(lambda: store_of(bucket, bucket.server.endpoint_url).list(lambda _: True), "InvalidAccessKeyId")


# -- providers that fail -----------------------------------------------------------------------------------

Plant = Callable[[Path, FaultyProxy, pytest.MonkeyPatch], None]


def environment(**variables: str) -> Plant:
    """Set variables; {folder} and {server} stand for the place of the files, and the server's URL."""

    def plant(folder: Path, server: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value.format(folder=folder, server=server.endpoint_url))

    return plant


def files(**texts: str | bytes) -> Plant:
    """Write files beside those of AWS."""

    def plant(folder: Path, _server: FaultyProxy, _monkeypatch: pytest.MonkeyPatch) -> None:
        for name, text in texts.items():
            (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    return plant


def program(script: str) -> Plant:
    """Make `script` the credential_process of the profile."""

    def plant(folder: Path, _server: FaultyProxy, _monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "program").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "program").chmod(0o755)
        (folder / "config").write_text(f"[default]\ncredential_process = {folder}/program\n")

    return plant


def a_directory(folder: Path, _server: FaultyProxy, _monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a directory where the credentials file is looked for: a mount whose source was not there."""
    (folder / "credentials").mkdir()


def answers(status: int, body: bytes, variable: str = "AWS_CONTAINER_CREDENTIALS_FULL_URI") -> Plant:
    """Make the server of `variable` answer so."""

    def plant(_folder: Path, server: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
        server.fault = says(status, body, "text/html")
        monkeypatch.setenv(variable, f"{server.endpoint_url}/creds")

    return plant


def both(*plants: Plant) -> Plant:
    """Plant one after the other."""

    def plant(folder: Path, server: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
        for each in plants:
            each(folder, server, monkeypatch)

    return plant


POD = environment(
    AWS_CONTAINER_CREDENTIALS_FULL_URI="{server}/v1/credentials",
    AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE="{folder}/pod-token",
)
IRSA = environment(
    AWS_ROLE_ARN="arn:aws:iam::123456789012:role/r",
    AWS_WEB_IDENTITY_TOKEN_FILE="{folder}/web-token",
    AWS_ENDPOINT_URL_STS="{server}",
)
DENIED = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no token=" + CANARY.encode() + b"</Message></Error></ErrorResponse>"  # fmt: skip
FAILING: dict[str, tuple[Plant, str, list[str]]] = {
    "a pod's token that is not there yet": (POD, "container-role", ["pod-token", "No such file"]),
    "a pod's token with a line feed": (both(POD, files(**{"pod-token": CANARY + "\n"})), "container-role", ["the token in", "pod-token", "ends with a line feed"]),
    "a pod's token that is no text": (both(POD, files(**{"pod-token": b"\xff\xfe"})), "container-role", ["pod-token", "UTF-8"]),
    "a token of the environment with a line feed": (environment(AWS_CONTAINER_CREDENTIALS_FULL_URI="{server}/", AWS_CONTAINER_AUTHORIZATION_TOKEN=CANARY + "\n"), "container-role", ["AWS_CONTAINER_AUTHORIZATION_TOKEN ends with a line feed"]),
    "a URI of another host": (environment(AWS_CONTAINER_CREDENTIALS_FULL_URI="http://store.example/creds"), "container-role", ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "host"]),
    "a URI where nobody is": (environment(AWS_CONTAINER_CREDENTIALS_FULL_URI="http://127.0.0.1:9/creds"), "container-role", []),
    "a page in place of a pod's credentials": (answers(200, b"<html>" + CANARY.encode()), "container-role", []),
    "an error with a secret in it": (answers(403, CANARY.encode()), "container-role", ["HTTP 403"]),
    "credentials without a secret": (answers(200, b'{"AccessKeyId": "' + CANARY.encode() + b'"}'), "container-role", []),
    "a program that prints no JSON": (program(f"echo {CANARY}"), "custom-process", ["no JSON"]),
    "a program that prints half of them": (program(f"""echo '{{"Version": 1, "AccessKeyId": "{CANARY}"}}'"""), "custom-process", []),
    "a program that prints numbers": (program("""echo '{"Version": 1, "AccessKeyId": 1, "SecretAccessKey": 2}'"""), "custom-process", []),
    "a program that prints a list": (program(f"echo '[\"{CANARY}\"]'"), "custom-process", []),
    "a program that prints no text": (program("printf '\\377\\376'"), "custom-process", ["UTF-8"]),
    "a program that fails": (program(f"echo {CANARY} >&2; exit 3"), "custom-process", ["left out"]),
    "a program that is not there": (files(config=f"[default]\ncredential_process = /no/program --key {CANARY}\n"), "custom-process", ["/no/program", "No such file"]),
    "a program with a quote too many": (files(config=f"[default]\ncredential_process = program '{CANARY}\n"), "custom-process", []),
    "a configuration that is none": (files(config=f"[default]\n{CANARY}\n"), "AWS configuration", ["/config"]),
    "credentials that are none": (files(credentials=f"aws_session_token = {CANARY}\n"), "AWS configuration", ["/credentials"]),
    "a token on the line after": (files(credentials=f"[default]\naws_session_token =\n  {CANARY}\n"), "AWS configuration", ["/credentials"]),
    "a configuration that is no text": (files(config=b"[default]\nregion = \xff\xfe\n"), "AWS configuration", ["/config"]),
    "a profile with a number that is none": (both(environment(AWS_ACCESS_KEY_ID="A", AWS_SECRET_ACCESS_KEY="B"), files(config="[default]\nrequest_min_compression_size_bytes = many\n")), "AWS configuration", []),
    "a time-out that is none": (environment(AWS_METADATA_SERVICE_TIMEOUT="long"), "AWS configuration", []),
    "a profile that is not there": (environment(AWS_PROFILE="produktion"), "AWS configuration", ["produktion"]),
    "a directory in place of the credentials": (a_directory, "credentials", ["is a directory"]),
    "a profile that is its own source": (files(config=ROLE + "a\n[profile a]\nrole_arn = arn:aws:iam::123456789012:role/s\nsource_profile = a2\n[profile a2]\nrole_arn = arn:aws:iam::123456789012:role/s\nsource_profile = a\n"), "assume-role", ["Infinite loop"]),
    "a source that is not there": (files(config=ROLE + "nobody\n"), "assume-role", ["nobody"]),
    "a role's token that is not there": (IRSA, "assume-role-with-web-identity", ["web-token", "No such file"]),
    "an empty token": (both(IRSA, files(**{"web-token": ""})), "assume-role-with-web-identity", []),
    "a token that is no text": (both(IRSA, files(**{"web-token": b"\xff\xfe"})), "assume-role-with-web-identity", ["UTF-8"]),
    "an STS that refuses": (both(answers(403, DENIED, "AWS_ENDPOINT_URL_STS"), IRSA, files(**{"web-token": CANARY})), "assume-role-with-web-identity", ["AccessDenied"]),
    "an STS that is a login page": (both(answers(200, b"<html>" + CANARY.encode(), "AWS_ENDPOINT_URL_STS"), IRSA, files(**{"web-token": CANARY})), "assume-role-with-web-identity", []),
    "nobody has logged in": (files(config="[default]\nsso_session = w\nsso_account_id = 123456789012\nsso_role_name = r\n[sso-session w]\nsso_region = us-east-1\nsso_start_url = https://sso.invalid/start\n"), "sso", []),
    "a metadata service that is a login page": (both(answers(200, b"<html>\n " + CANARY.encode(), "AWS_EC2_METADATA_SERVICE_ENDPOINT"), environment(AWS_EC2_METADATA_DISABLED="false")), "credentials", []),
}  # fmt: skip


@pytest.mark.parametrize("failing", FAILING.values(), ids=FAILING.keys())
def test_a_provider_that_fails(
    failing: tuple[Plant, str, list[str]],
    bucket: Bucket,
    nowhere: Path,
    proxy: FaultyProxy,
    other: FaultyProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is a matter of credentials, whatever was raised; the provider is named, the store is not asked.

    The same store works as soon as there are credentials.
    """
    plant, provider, words = failing
    plant(nowhere, other, monkeypatch)
    store = store_of(bucket, proxy.endpoint_url)

    error = refused(lambda: store.list(lambda _: True), provider, *words, "check the agent's AWS credentials")
    assert proxy.requests == 0
    assert error.facts["provider"]

    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_METADATA_SERVICE_TIMEOUT", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", bucket.server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", bucket.server.secret_key)
    assert store.list(lambda _: True).releases == {}


def test_a_program_that_hangs(
    bucket: Bucket, nowhere: Path, other: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ended in time, as often as it is asked, and leaves no process behind."""
    program(f"echo $$ >> {nowhere}/started; exec sleep {PROGRAM_SECONDS}")(nowhere, other, monkeypatch)
    store = store_of(bucket, bucket.server.endpoint_url, IMPATIENT)

    for _ in range(6):
        refused(lambda: store.list(lambda _: True), "custom-process", "has not ended within 1 s")

    started = (nowhere / "started").read_text().split()
    assert started
    assert [number for number in started if Path(f"/proc/{number}").exists()] == []


def test_one_provider_that_hangs_is_no_other(
    bucket: Bucket, nowhere: Path, other: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After several calls that were left behind, too: it is named, and what is given elsewhere works."""
    POD(nowhere, other, monkeypatch)
    (nowhere / "pod-token").write_text("good-token")
    other.fault = Exchange.wait_until_given_up

    def poll(_: int) -> None:
        store = store_of(bucket, bucket.server.endpoint_url, IMPATIENT)
        refused(lambda: store.list(lambda _: True), "container-role")

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(poll, range(5))) == [None] * 5
    poll(5)
    keys = f"{bucket.server.access_key}\naws_secret_access_key = {bucket.server.secret_key}"
    (nowhere / "credentials").write_text(f"[default]\naws_access_key_id = {keys}\n")
    assert store_of(bucket, bucket.server.endpoint_url, IMPATIENT).list(lambda _: True).requests == 1


def given(bucket: Bucket, seconds: int, token: str = "") -> bytes:
    """Return what a pod's server of credentials answers; they are good for so many seconds."""
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    answer = {
        "AccessKeyId": bucket.server.access_key,
        "SecretAccessKey": bucket.server.secret_key,
        "Token": token or None,
        "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return json.dumps(answer).encode()


def test_a_token_that_comes_later(
    bucket: Bucket, nowhere: Path, other: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod starts before its token is mounted: the next poll works."""
    POD(nowhere, other, monkeypatch)
    other.fault = says(200, given(bucket, 3600), "application/json")
    store = store_of(bucket, bucket.server.endpoint_url)
    refused(lambda: store.list(lambda _: True), "pod-token")

    (nowhere / "pod-token").write_text(CANARY)

    assert store.list(lambda _: True).requests == 1


def test_credentials_that_change_under_a_running_agent(
    bucket: Bucket, nowhere: Path, proxy: FaultyProxy, other: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are refreshed at each request, as they end within a minute; a refresh that fails is named."""
    POD(nowhere, other, monkeypatch)
    (nowhere / "pod-token").write_text("good-token")
    other.fault = says(200, given(bucket, 60), "application/json")
    store = store_of(bucket, proxy.endpoint_url)
    assert store.list(lambda _: True).requests == 1
    proxy.requests = 0

    (nowhere / "pod-token").write_text(CANARY + "\n")
    refused(lambda: store.list(lambda _: True), "container-role", "pod-token", "a line feed")
    (nowhere / "pod-token").write_text("good-token")
    other.fault = says(200, given(bucket, 60, CANARY + "\n"), "application/json")
    refused(lambda: store.list(lambda _: True), "the session token from container-role", "a line feed")
    other.fault = says(500, CANARY.encode(), "text/html")
    refused(lambda: store.list(lambda _: True), "container-role", "HTTP 500")
    assert proxy.requests == 0

    other.fault = says(200, given(bucket, 60), "application/json")
    assert store.list(lambda _: True).requests == 1


def test_credentials_that_are_good_are_used_while_their_provider_hangs(
    bucket: Bucket, nowhere: Path, other: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have minutes left; the provider is asked early so that it may fail for a while."""
    POD(nowhere, other, monkeypatch)
    (nowhere / "pod-token").write_text("good-token")
    other.fault = says(200, given(bucket, 400), "application/json")
    store = store_of(bucket, bucket.server.endpoint_url, IMPATIENT)
    store.list(lambda _: True)

    other.fault = Exchange.wait_until_given_up

    assert store.list(lambda _: True).requests == 1


# -- what others say ---------------------------------------------------------------------------------------


def echo(exchange: Exchange) -> None:
    """Answer with an error that quotes every header of the request, each as it came and without its name."""
    words = " ".join(exchange.headers.values())
    s3_error(403, "AccessDenied", words)(exchange)


def test_a_store_that_quotes_the_request(
    bucket: Bucket, nowhere: Path, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the request was signed with is hidden by its value, whatever the text around it looks like."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    proxy.fault = echo

    with pytest.raises(StoreError, match="AccessDenied") as caught:
        store_of(bucket, proxy.endpoint_url).list(lambda _: True)

    assert proxy.requests == 1
    assert "CANARY" not in str(caught.value)
    assert "[hidden]" in str(caught.value)


def test_a_key_id_that_is_a_name_hides_no_words(
    bucket: Bucket, nowhere: Path, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MinIO's are chosen by people: a user may be called as the bucket is. Its secret is hidden."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "models-reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"secret-{CANARY}")
    proxy.fault = s3_error(404, "NoSuchBucket", f"there is no models-reader-eu, secret-{CANARY}")

    with pytest.raises(StoreError, match=r"NoSuchBucket: there is no models-reader-eu, \[hidden\]: "):
        store_of(bucket, proxy.endpoint_url).list(lambda _: True)


def test_a_header_that_cannot_be_sent(
    bucket: Bucket, nowhere: Path, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is: the text of the HTTP library, which quotes the header, is left out."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    item = StoredObject("prod/m/1.tar", 1, f'"{CANARY}\n"')

    with pytest.raises(StoreError) as caught:
        store_of(bucket, proxy.endpoint_url).read(item, 0, 1, memoryview(bytearray(1)), lambda: False)

    assert proxy.requests == 0
    assert "CANARY" not in str(caught.value)
    assert "CANARY" not in "".join(internal_error(caught.value).facts["traceback"])  # type: ignore[arg-type]


def test_an_sts_whose_answer_is_cut_off(
    bucket: Bucket, nowhere: Path, other: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's complaint quotes the answer, and with it the new credentials, which nothing knows yet."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", other.endpoint_url)
    (nowhere / "config").write_text(ROLE + "base\n[profile base]\n" + LINES)
    other.fault = says(200, f"<R><SecretAccessKey>{CANARY}</SecretAccessKey>".encode(), "text/xml")

    refused(
        lambda: store_of(bucket, bucket.server.endpoint_url).list(lambda _: True), "assume-role", "no XML"
    )


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("ExpiredToken", "The security token included in the request is expired"),
        ("InvalidClientTokenId", "The security token included in the request is invalid."),
        ("InvalidIdentityToken", "No OpenIDConnect provider found in your account for https://oidc.example"),
    ],
)
def test_an_sts_that_says_why(
    code: str, words: str, bucket: Bucket, nowhere: Path, other: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own words are told whole: a code that ends in "Token" is no name of what follows."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", other.endpoint_url)
    (nowhere / "config").write_text(ROLE + "base\n[profile base]\n" + LINES)
    body = f"<ErrorResponse><Error><Code>{code}</Code><Message>{words}</Message></Error></ErrorResponse>"
    other.fault = says(403, body.encode(), "text/xml")

    refused(lambda: store_of(bucket, bucket.server.endpoint_url).list(lambda _: True), f"{code}: {words}")
