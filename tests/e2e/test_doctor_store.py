# ruff: noqa: E501 (a table is read by its rows)
"""The doctor finds what is wrong with settings, environment, store and layout, and says what to do."""

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from agent_box import AgentBox
from certificates import certificate
from doctor_box import Ward, assert_says, failures
from faulty_proxy import (
    PORTAL,
    Answer,
    Exchange,
    Fault,
    FaultyProxy,
    edit_body,
    listings,
    reads,
    redirect_to_region,
    s3_error,
    says,
)
from fixtures_store import LISTER, READER, Bucket
from servesync.doctor import Level
from servesync.errors import Reason, StoreError
from servesync.settings import Fetch, Store
from servesync.store import S3Store

WHO = (
    b'<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
    b"<Arn>arn:aws:sts::123456789012:assumed-role/agents/i-1</Arn><UserId>X</UserId>"
    b"<Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
)
OTHER_OWNER = "999999999999"
Plant = Callable[[Ward], object]


@pytest.fixture
def ward(box: AgentBox, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Ward:
    """An agent in good health."""
    return Ward(box, bucket, monkeypatch)


def test_a_healthy_agent(ward: Ward) -> None:
    """Nothing fails, and every area has been looked at."""
    findings = ward.examined()

    assert failures(findings) == []
    assert {item.check.value.partition(".")[0] for item in findings} == {
        "settings", "environment", "store", "layout", "disk", "lock", "server",
    }  # fmt: skip
    for check in ("store.list", "store.read", "store.clock", "layout.model", "layout.keys", "disk.rename"):
        assert_says(findings, check, "ok")


# -- the settings ------------------------------------------------------------------------------------------


def settings(section: str, **keys: object) -> Plant:
    """Plant settings."""
    return lambda ward: ward.set(section, **keys)


@pytest.mark.parametrize(
    ("plant", "check", "level", "words"),
    [
        (settings("poll", interval_seconds=0), "settings.file", "fail", ["poll.interval_seconds", "schema"]),
        (settings("serving", rest_url="http://127.0.0.1:85010"), "settings.file", "fail", ["serving.rest_url", "is no port"]),
        (settings("fetch", memory_bytes=1 << 24), "settings.fetch", "warn", ["50331648"]),
        (settings("fetch", part_bytes=1 << 27), "settings.fetch", "warn", ["raise fetch.memory_bytes"]),
        (settings("fetch", max_bytes_per_second=1 << 16), "settings.fetch", "warn", ["4.6 hours"]),
        (settings("limits", max_unpacked_bytes=1 << 20), "settings.limits", "warn", ["max_unpacked_bytes"]),
        (settings("poll", interval_seconds=1), "settings.poll", "warn", ["86,400 requests a day"]),
        (settings("poll", jitter_seconds=9), "settings.poll", "warn", ["half of the interval"]),
        (settings("store", settle_seconds=0), "settings.settle", "warn", ["while it is being uploaded"]),
        (settings("store", settle_seconds=3), "settings.settle", "warn", ["whole interval"]),
        (settings("serving", rest_url="http://127.0.0.1:9/v1"), "settings.server_url", "fail", ["/v1"]),
        (settings("serving", rest_url="http://127.0.0.1:8500"), "settings.server_url", "warn", ["gRPC", "8501"]),
        (settings("serving", rest_url="http://10.255.255.1:1"), "settings.clear_text", "warn", ["beside its server"]),
        (lambda ward: (ward.set("serving", version_policy="latest"), ward.wants({"name": "m", "versions": {"latest": 2}})), "settings.policy", "warn", ["model_version_policy { all {} }"]),
        (settings("store", endpoint_url="http://store.invalid", allow_insecure_endpoint=True), "settings.clear_text", "warn", ["https://"]),
        (settings("admin", token_file="/dev/null"), "settings.token", "fail", ["it is a character device", "/dev/null", "POST /sync"]),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit(plant: Plant, check: str, level: str, words: list[str], ward: Ward) -> None:
    """Each setting is within its bounds (but the first); together they do less than they seem to."""
    plant(ward)

    assert_says(ward.examined(), check, level, *words)


@pytest.mark.skipif(find_spec("tensorflow") is None, reason="no tensorflow here")
@pytest.mark.parametrize(
    ("library", "level", "words"),
    [
        ("json", "ok", ["TensorFlow, json"]),
        ("no_such_library", "fail", ["not installed: no_such_library", "install it where servesync is"]),
    ],
)
def test_libraries_of_the_trial(library: str, level: str, words: list[str], ward: Ward) -> None:
    """Whether each is installed; none is imported for that."""
    ward.set("verify", level="load", load={"libraries": [library]})

    assert_says(ward.examined(), "settings.tensorflow", level, *words)


def test_overrides_are_told(ward: Ward) -> None:
    """By name: what they hold is in the environment."""
    ward.setenv(SERVESYNC_POLL__INTERVAL_SECONDS="20")

    assert_says(ward.examined(), "settings.file", "ok", "SERVESYNC_POLL__INTERVAL_SECONDS")


def test_every_mistake_in_the_file_is_named(ward: Ward) -> None:
    """One finding for each, and none about anything else: without settings nothing can be looked at."""
    ward.set("poll", interval_seconds=0, jitter_seconds=-1)

    assert [item.check.value for item in ward.examined()] == ["settings.file", "settings.file"]


# -- the environment ---------------------------------------------------------------------------------------


def environment(**variables: str) -> Plant:
    """Plant variables of the environment."""
    return lambda ward: ward.setenv(**variables)


@pytest.mark.parametrize(
    ("plant", "check", "level", "words"),
    [
        (environment(AWS_PROFILE="prod"), "environment.aws", "warn", ["AWS_PROFILE=prod", "win over"]),
        (environment(AWS_WEB_IDENTITY_TOKEN_FILE="/nowhere/token"), "environment.aws", "fail", ["/nowhere/token", "mount"]),
        (environment(AWS_SECRET_ACCESS_KEY="wJalrXUtnFEMI \n"), "environment.aws", "fail", ["white space"]),
        (lambda ward: ward.unset("AWS_SECRET_ACCESS_KEY"), "environment.aws", "fail", ["AWS_SECRET_ACCESS_KEY is not"]),
        (environment(AWS_ENDPOINT_URL="http://minio:9000"), "environment.endpoint", "warn", ["store.endpoint_url"]),
        (environment(http_proxy="http://user:opensesame@127.0.0.1:9"), "environment.proxy", "warn", ["http://127.0.0.1:9", "NO_PROXY"]),
        (environment(http_proxy="http://user:p/opensesame:1@127.0.0.1:9"), "environment.proxy", "warn", ["http://127.0.0.1:9", "NO_PROXY"]),
        (environment(AWS_CA_BUNDLE="/nowhere/ca.pem"), "environment.authority", "fail", ["/nowhere/ca.pem", "PEM"]),
    ],
)  # fmt: skip
def test_the_environment(plant: Plant, check: str, level: str, words: list[str], ward: Ward) -> None:
    """What comes from outside of the settings is told, and never a secret."""
    plant(ward)
    findings = ward.examined()

    assert_says(findings, check, level, *words)
    told = repr(findings)
    assert "opensesame" not in told
    assert "wJalrXUtnFEMI" not in told
    assert ward.bucket.server.secret_key not in told


# -- credentials and permissions ---------------------------------------------------------------------------


def test_no_credentials(ward: Ward) -> None:
    """Nothing in the environment, no profile, no role."""
    ward.unset("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

    assert_says(ward.examined(), "store.credentials", "fail", "no credentials", "IRSA", "AWS_ACCESS_KEY_ID")


def test_a_profile_that_is_not_there(ward: Ward) -> None:
    """The variable that names it is named, and the file in which it is not."""
    ward.unset("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    ward.setenv(AWS_PROFILE="prdo")

    assert_says(ward.examined(), "store.credentials", "fail", "prdo", "AWS_PROFILE", "config")


def test_a_role_whose_token_is_not_there(ward: Ward) -> None:
    """IRSA, and nobody mounted the token; the agent itself says so, too."""
    ward.unset("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    ward.setenv(AWS_ROLE_ARN="arn:aws:iam::123456789012:role/agents", AWS_WEB_IDENTITY_TOKEN_FILE="/no/token")
    store = S3Store(Store(url=f"s3://{ward.bucket.name}", endpoint_url=ward.box.endpoint_url), Fetch())

    assert_says(ward.examined(), "store.credentials", "fail", "web-identity", "AWS_WEB_IDENTITY_TOKEN_FILE")
    with pytest.raises(StoreError) as caught:
        store.list(lambda _: True)
    assert caught.value.reason is Reason.STORE_CREDENTIALS


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/no/token"}, ["container-role", "/no/token", "a mounted file"]),
        ({"AWS_CONFIG_FILE": "{folder}/odd"}, ["the AWS configuration", "/odd", "correct the file"]),
        ({"AWS_CONFIG_FILE": "{folder}/program"}, ["custom-process", "no JSON", "by hand"]),
        ({"AWS_SHARED_CREDENTIALS_FILE": "{folder}"}, ["is a directory"]),
    ],
)  # fmt: skip
def test_a_provider_that_fails(ward: Ward, variables: dict[str, str], words: list[str]) -> None:
    """It is named, with what to do; nothing else of the doctor fails over it."""
    ward.unset("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    folder = ward.box.folder
    (folder / "odd").write_text("opensesame\n")
    (folder / "program").write_text("[default]\ncredential_process = echo opensesame\n")
    ward.setenv(**{name: value.format(folder=folder) for name, value in variables.items()})
    findings = ward.examined()

    assert_says(findings, "store.credentials", "fail", *words)
    assert {check.value for check in failures(findings)} <= {"store.credentials", "environment.aws"}
    assert "opensesame" not in repr(findings)


def test_a_session_of_sso_that_has_ended(ward: Ward) -> None:
    """Nobody has logged in, or not today."""
    ward.unset("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    config = ward.box.folder / "aws.config"
    config.write_text(
        "[profile work]\nsso_session = work\nsso_account_id = 123456789012\nsso_role_name = r\n"
        "[sso-session work]\nsso_region = us-east-1\nsso_start_url = https://sso.invalid/start\n"
    )
    ward.setenv(AWS_PROFILE="work", AWS_CONFIG_FILE=str(config))

    assert_says(ward.examined(), "store.credentials", "fail", "aws sso login")


def test_a_key_that_the_store_does_not_know(ward: Ward) -> None:
    """Only its end is shown."""
    ward.setenv(AWS_ACCESS_KEY_ID="AKIAABCDEFGHIJKLWXYZ")
    findings = ward.examined()

    assert_says(findings, "store.credentials", "ok", "ending in WXYZ")
    assert_says(findings, "store.credentials", "fail", "InvalidAccessKeyId", "does not know the access key")
    assert "AKIAABCDEFGHIJKLWXYZ" not in repr(findings)


def test_a_secret_that_does_not_belong_to_the_key(ward: Ward) -> None:
    """The store says that the signature is wrong."""
    ward.setenv(AWS_SECRET_ACCESS_KEY="an-other-secret-than-the-one-of-this-key")
    findings = ward.examined()

    assert_says(
        findings, "store.credentials", "fail", "SignatureDoesNotMatch", "the secret key does not belong"
    )
    assert "an-other-secret" not in repr(findings)


def test_only_listing_is_allowed(ward: Ward) -> None:
    """s3:GetObject is missing."""
    ward.setenv(**LISTER)
    findings = ward.examined()

    assert_says(findings, "store.list", "ok")
    name = f"arn:aws:s3:::{ward.bucket.name}/prod/*"
    assert_says(findings, "store.read", "fail", "AccessDenied", f"allow s3:GetObject on {name}")


def test_only_reading_is_allowed(ward: Ward) -> None:
    """s3:ListBucket is missing."""
    ward.setenv(**READER)
    findings = ward.examined()

    name = f"arn:aws:s3:::{ward.bucket.name},"
    assert_says(findings, "store.list", "fail", "AccessDenied", f"allow s3:ListBucket on {name}")
    assert "store.read" not in {item.check.value for item in findings}


# -- what the store answers --------------------------------------------------------------------------------


def shifted(seconds: float, exchange: Exchange) -> None:
    """Answer with another date."""
    answer = exchange.forward()
    answer.headers["date"] = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
    exchange.answer(answer)


def of_another_owner(exchange: Exchange) -> None:
    """Deny it to who expects an owner."""
    if any(name.lower() == "x-amz-expected-bucket-owner" for name in exchange.headers):
        s3_error(403, "AccessDenied")(exchange)
    else:
        exchange.answer(exchange.forward())


def in_region(region: str, exchange: Exchange) -> None:
    """Answer as Amazon does, with the bucket's region."""
    answer = exchange.forward()
    answer.headers["x-amz-bucket-region"] = region
    exchange.answer(answer)


@pytest.mark.parametrize(
    ("fault", "check", "level", "words"),
    [
        (partial(shifted, 120), "store.clock", "warn", ["behind the store's", "NTP"]),
        (partial(shifted, -7200), "store.clock", "fail", ["ahead of the store's", "NTP"]),
        (s3_error(403, "RequestTimeTooSkewed"), "store.clock", "fail", ["NTP"]),
        (s3_error(400, "ExpiredToken"), "store.credentials", "fail", ["has expired", "aws sso login"]),
        (s3_error(403, "InvalidToken"), "store.credentials", "fail", ["AWS_SESSION_TOKEN"]),
        (s3_error(403, "AccessDenied", "not authorized to perform: kms:Decrypt"), "store.list", "fail", ["allow kms:Decrypt"]),
        (s3_error(404, "NoSuchBucket"), "store.list", "fail", ["no bucket", "correct store.url"]),
        (s3_error(503, "SlowDown"), "store.list", "fail", ["fewer requests", "poll.interval_seconds"]),
        (redirect_to_region(301, "PermanentRedirect", "eu-west-1"), "store.region", "fail", ["set store.region: eu-west-1"]),
        (partial(in_region, "eu-west-1"), "store.region", "warn", ["a detour", "set store.region: eu-west-1"]),
        (partial(in_region, "us-east-1"), "store.region", "ok", []),
        (of_another_owner, "store.owner", "fail", [OTHER_OWNER, "expected_bucket_owner"]),
        (says(200, PORTAL, "text/html"), "store.list", "fail", ["no S3", "console", "proxy"]),
        (s3_error(403, "SecondLevelDomainForbidden"), "store.list", "fail", ["SecondLevelDomainForbidden", "store.addressing_style: virtual"]),
        (edit_body(b"KeyCount>", b"NoCount>"), "store.list", "warn", ["version 1 of ListObjects", "list-type=2"]),
    ],
)  # fmt: skip
def test_what_the_store_answers(fault: Fault, check: str, level: str, words: list[str], ward: Ward) -> None:
    """Each answer of Amazon's that has a cause of its own gets that cause, and not just "denied"."""
    with FaultyProxy(ward.bucket.server.port, fault=fault, matches=listings) as proxy:
        ward.set("store", endpoint_url=proxy.endpoint_url)
        if fault is of_another_owner:
            ward.set("store", expected_bucket_owner=OTHER_OWNER)

        assert_says(ward.examined(), check, level, *words)


def test_who_am_i(ward: Ward) -> None:
    """STS is asked where there is one."""
    with FaultyProxy(ward.bucket.server.port, fault=says(200, WHO, "text/xml")) as sts:
        ward.setenv(AWS_ENDPOINT_URL_STS=sts.endpoint_url)

        assert_says(
            ward.examined(), "store.identity", "ok", "assumed-role/agents/i-1", "account 123456789012"
        )


def test_a_session_that_sts_calls_expired(ward: Ward) -> None:
    """With the advice to log in again."""
    error = b"<ErrorResponse><Error><Code>ExpiredToken</Code><Message>old</Message></Error></ErrorResponse>"
    with FaultyProxy(ward.bucket.server.port, fault=says(403, error, "text/xml")) as sts:
        ward.setenv(AWS_ENDPOINT_URL_STS=sts.endpoint_url)

        assert_says(ward.examined(), "store.identity", "fail", "ExpiredToken", "aws sso login")


def test_an_sts_that_cannot_be_reached(ward: Ward) -> None:
    """It is only asked for its name: a warning, and the store is examined all the same."""
    ward.setenv(AWS_ENDPOINT_URL_STS="http://127.0.0.1:9")
    findings = ward.examined()

    assert_says(findings, "store.identity", "warn", "sts")
    assert_says(findings, "store.list", "ok")


def unpacks_it(exchange: Exchange) -> None:
    """Send an object as Google's store does that has Content-Encoding: gzip."""
    exchange.answer(Answer(200, {"etag": '"e"', "x-goog-stored-content-encoding": "gzip"}, b"content"))


@pytest.mark.parametrize(
    ("fault", "level", "words"),
    [
        (s3_error(403, "InvalidObjectState"), "warn", ["InvalidObjectState", "lifecycle rules"]),
        (s3_error(403, "AccessDenied", "no kms:Decrypt for you"), "fail", ["allow kms:Decrypt"]),
        (s3_error(400, "InvalidRequest", "stored using a form of Server Side Encryption"), "warn", ["SSE-C"]),
        (unpacks_it, "warn", ["Content-Encoding: 'gzip'", "clear-content-encoding"]),
        (s3_error(500, "InternalError"), "fail", ["InternalError"]),
        (s3_error(404, "NoSuchKey"), "ok", []),
        (s3_error(416, "InvalidRange"), "ok", []),
    ],
)
def test_an_object_that_cannot_be_read(fault: Fault, level: str, words: list[str], ward: Ward) -> None:
    """What is gone or empty shows all the same that reading is allowed."""
    with FaultyProxy(ward.bucket.server.port, fault=fault, matches=reads) as proxy:
        ward.set("store", endpoint_url=proxy.endpoint_url)

        assert_says(ward.examined(), "store.read", level, *words)


def test_a_bucket_in_the_endpoint(ward: Ward) -> None:
    """As a console shows it."""
    ward.set("store", endpoint_url=f"{ward.bucket.server.endpoint_url}/{ward.bucket.name}")

    assert_says(
        ward.examined(), "store.list", "fail", "holds the bucket's name", ward.bucket.server.endpoint_url
    )


def test_nothing_listens(ward: Ward) -> None:
    """The address is named."""
    ward.set("store", endpoint_url="http://127.0.0.1:9")

    assert_says(ward.examined(), "store.list", "fail", "refused", "nothing answers at http://127.0.0.1:9")


# -- TLS ---------------------------------------------------------------------------------------------------


def tls(folder: Path, name: str) -> ssl.SSLContext:
    """Return a server's context with a certificate for `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(folder, name))
    return context


def test_a_certificate_that_nobody_vouches_for(ward: Ward, tmp_path: Path) -> None:
    """AWS_CA_BUNDLE is the way."""
    with FaultyProxy(ward.bucket.server.port, tls(tmp_path, "127.0.0.1")) as proxy:
        ward.set("store", endpoint_url=proxy.endpoint_url)

        assert_says(ward.examined(), "store.tls", "fail", "nobody vouches", "AWS_CA_BUNDLE")


def test_a_certificate_for_another_name(ward: Ward, tmp_path: Path) -> None:
    """Though its authority is known."""
    with FaultyProxy(ward.bucket.server.port, tls(tmp_path, "store.example")) as proxy:
        ward.set("store", endpoint_url=proxy.endpoint_url)
        ward.setenv(AWS_CA_BUNDLE=str(tmp_path / "store.example.pem"))

        assert_says(ward.examined(), "store.tls", "fail", "for another name")


def test_clear_text_where_tls_is_spoken(ward: Ward, tmp_path: Path) -> None:
    """http:// must be https://."""
    with FaultyProxy(ward.bucket.server.port, tls(tmp_path, "127.0.0.1")) as proxy:
        ward.set("store", endpoint_url=proxy.endpoint_url.replace("https", "http"))

        assert_says(ward.examined(), "store.tls", "fail", "write https:// in store.endpoint_url")


def test_tls_where_clear_text_is_spoken(ward: Ward) -> None:
    """https:// must be http://."""
    ward.set("store", endpoint_url=ward.box.endpoint_url.replace("http", "https"))

    assert_says(ward.examined(), "store.tls", "fail", "speaks clear text")


# -- the layout --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("m/latest.tar.gz", ["'latest' is no number"]),
        ("m/v3.tar.gz", ["is no number", 'store.key_pattern: "{model}/v{version}"']),
        ("m/modelv3/saved_model.pb", ["is no number", '"{model}/modelv{version}"']),
        ("m/2024-01-31.tar.gz", ["'2024-01-31' is no number", "publish it as 20240131"]),
        ("m/1.2.0/saved_model.pb", ["'1.2.0' is no number", "publish it as 1002000"]),
        (
            "m/export/Servo/3/saved_model.pb",
            ['m 3 under store.key_pattern: "{model}/export/Servo/{version}"'],
        ),
        ("m/99999999999999999999.tar.gz", ["the highest is 9223372036854775807"]),
        ("m/3.zip", [".zip is none of .tar.gz", "pack it with tar"]),
        ("m/3.tar.gz.part", ["an unfinished upload"]),
        ("m/3", ["it has no ending"]),
        ("team/m/3.tar.gz", ["'team'", "store.url"]),
        ("m/export/3.tar.gz", ["'export'", "store.key_pattern"]),
        ("m/3/3.tar.gz", ["inside of the version's folder", "{model}/{version}.tar.gz"]),
        ("my model/3.tar.gz", ["'my model' is no model's name"]),
        ("m-3.tar.gz", ['m 3 under store.key_pattern: "{model}-{version}"']),
        ("backup.tar.gz", ["no model and version"]),
        ("README.md", ["ignores it"]),
    ],
)
def test_keys_that_are_no_release(key: str, words: list[str], ward: Ward) -> None:
    """Each is told with what somebody probably meant."""
    ward.bucket.put(f"prod/{key}")

    assert_says(ward.examined(), "layout.keys", "warn", key, *words)


def test_many_keys_that_are_no_release(ward: Ward) -> None:
    """A few of each kind are shown, and all are counted."""
    for number in range(30):
        ward.bucket.put(f"prod/m/{number + 2}.zip")
    ward.bucket.put("prod/notes.txt")
    findings = ward.examined(show_keys=4)

    shown = [item.subject for item in findings if item.check.value == "layout.keys" and item.subject]
    assert len(shown) == 4
    assert "notes.txt" in shown
    assert_says(findings, "layout.keys", "warn", "31 of 32 keys", "ending 30", "--show-keys")


def test_the_wrong_prefix(ward: Ward) -> None:
    """The one that was probably meant is named."""
    ward.set("store", url=f"s3://{ward.bucket.name}/pord")

    assert_says(ward.examined(), "layout.prefix", "fail", "pord/", f"s3://{ward.bucket.name}/prod")


def test_an_empty_bucket(ward: Ward) -> None:
    """Nothing to correct but to publish."""
    ward.bucket.empty()
    findings = ward.examined()

    assert_says(findings, "layout.prefix", "fail", "is empty", "publish")
    assert_says(findings, "store.read", "warn", "could not be tried")


@pytest.mark.parametrize(
    ("wish", "level", "words"),
    [
        ({"name": "M"}, "fail", ["no version in the store", "the store has 'm'"]),
        ({"name": "mm"}, "fail", ["the store has 'm'"]),
        ({"name": "other", "required": False}, "warn", ["other/1.tar.gz"]),
        ({"name": "m", "versions": {"pin": [1, 7]}}, "fail", ["not in the store: 7", "versions.pin"]),
    ],
)
def test_a_model_without_a_version(wish: dict[str, object], level: str, words: list[str], ward: Ward) -> None:
    """A required one fails."""
    ward.wants(wish)

    assert_says(ward.examined(), "layout.model", level, *words)


def test_a_channel_that_is_not_there(ward: Ward) -> None:
    """The command that makes it is named, and so are those that are there, which are no strange keys."""
    ward.bucket.put("prod/m/channels/stable.json", b"{}")
    ward.wants({"name": "m", "versions": {"channel": ["prod", "stable"]}})
    findings = ward.examined()

    assert_says(
        findings,
        "layout.channel",
        "fail",
        "m",
        "prod",
        "servesync promote m VERSION --channel prod",
        "stable",
    )
    assert_says(findings, "layout.channel", "ok", "stable")
    assert_says(findings, "layout.keys", "ok")


def test_a_manifest_is_asked_for(ward: Ward) -> None:
    """The command that makes one is named."""
    ward.set("store", require_manifest=True)
    findings = ward.examined()

    assert_says(findings, "layout.unproven", "warn", "store.require_manifest", "servesync manifest")
    assert_says(findings, "layout.model", "fail", "can be installed")


def test_releases_that_cannot_be_taken(ward: Ward) -> None:
    """Each with its reason."""
    ward.bucket.put("prod/m/1.tar", b"again")
    ward.bucket.put("prod/m/2/variables/variables.index")
    findings = ward.examined()

    assert_says(findings, "layout.release", "warn", "m 1", "release_ambiguous")
    assert_says(findings, "layout.release", "warn", "m 2", "release_incomplete", "saved_model.pb")


def test_a_model_that_lies_deeper_is_served_by_the_pattern_that_is_named(ward: Ward) -> None:
    """MLflow's folders: the place is named, and with the proposed pattern it is a release."""
    ward.bucket.empty()
    for path in ("MLmodel", "data/model/saved_model.pb", "data/model/variables/variables.index"):
        ward.bucket.put(f"prod/m/7/{path}")
    for marker in ("m_$folder$", "m/7_$folder$", "m/7/data/model/variables_$folder$", "m/8_$folder$"):
        ward.bucket.put(f"prod/{marker}", b"")
    pattern = "{model}/{version}/data/model"

    assert_says(
        ward.examined(),
        "layout.release",
        "warn",
        "m 7",
        "'prod/m/7/data/model'",
        f'store.key_pattern: "{pattern}"',
    )

    ward.set("store", key_pattern=pattern)
    findings = ward.examined()
    assert_says(findings, "layout.model", "ok", "m", "offers 7")
    assert_says(findings, "layout.keys", "warn", "MLmodel", "beside the model")
    assert len([item for item in findings if item.check.value == "layout.keys"]) == 1


def test_models_that_nobody_asked_for(ward: Ward) -> None:
    """They are told, and are no trouble."""
    ward.bucket.put("prod/another/1.tar.gz")
    findings = ward.examined()

    assert_says(findings, "layout.others", "ok", "another")
    assert not [item for item in findings if item.level is not Level.OK and item.check.value == "layout.keys"]
