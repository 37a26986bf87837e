"""What is kept out of texts, lines of the log and reports of bugs."""

import base64
import json
import subprocess
import sys

import pytest

from servesync.cli import run_command_line
from servesync.deadline import Deadline
from servesync.domain import manifest
from servesync.errors import Reason, ReleaseRefused, internal_error
from servesync.redaction import (
    HIDDEN,
    MOST_CHARACTERS,
    MOST_REMEMBERED,
    redact,
    remember,
    remember_login,
    traceback_of,
)

CANARY = "Canary/0123456789+abcdef=="


@pytest.mark.parametrize(
    "text",
    [
        "Invalid header value b'AWS4-HMAC-SHA256 Credential=CANARY/x, Signature=CANARY'",
        "{'x-amz-security-token': b'CANARY'}",
        "Authorization: Bearer CANARY",
        "proxy-authorization: basic CANARYCANARY",
        "sent Basic CANARYCANARY to it",
        '{"AccessKeyId" : "CANARY", "SecretAccessKey" : "CANARY"}',
        "aws_secret_access_key = CANARY",
        "http://user:CANARY@host, http://CANARY:p/q@host, http://u:p@CANARY@host",
        "AKIACANARYCANARY00 and asiacanarycanary00",
        "<SecretAccessKey>CANARY/+</SecretAccessKey><SessionToken>\n CANARY \n</SessionToken>",
        "<ns:SessionToken>CANARY",
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str) -> None:
    """However a library words it."""
    assert "canary" not in redact(text).lower()


@pytest.mark.parametrize(
    "text",
    [
        "The provided token has expired.",
        "Could not connect to the endpoint URL: https://b.s3.amazonaws.com/?list-type=2&prefix=m",
        "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate",
        "User arn:aws:iam::1:user/me is not authorized to perform: s3:ListBucket",
    ],
)
def test_ordinary_words_are_left(text: str) -> None:
    """People need them."""
    assert redact(text) == text


def test_known_secrets_are_hidden_by_their_value() -> None:
    """Whole, and piece by piece if they are broken; short ones would hide words, and are not."""
    remember(CANARY, f"{CANARY}1\n{CANARY}2", "minio", None, "")

    assert redact(f"<{CANARY}>") == "<[hidden]>"
    assert "Canary" not in redact(f"{CANARY}2 {CANARY}1")
    assert redact("http://minio:9000") == "http://minio:9000"


@pytest.mark.parametrize("piece", ["token", "://", "token ", "AKIA", "signature=", "<token"])
def test_long_texts_are_cut(piece: str) -> None:
    """A proxy may send megabytes in place of an answer; looking through them all would take hours."""
    remember(CANARY)

    found = redact(f"it said: {piece * 1_000_000}{CANARY}")

    assert found.startswith("it said: ")
    assert len(found) <= MOST_CHARACTERS


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("http://user:canary/ss:w1@h:1", ["canary/ss:w1", base64.b64encode(b"user:canary/ss:w1").decode()]),
        ("http://us%65r:canary%40pa%2Fss2@h", ["canary%40pa%2Fss2", "canary@pa/ss2"]),
        ("http://us%65r:canary%40pa%2Fss3@h", [base64.b64encode(b"user:canary@pa/ss3").decode()]),
        ("user:canary-pw4@h", ["canary-pw4"]),
        ("http://canary-key5@h", ["canary-key5", base64.b64encode(b"canary-key5:").decode()]),
    ],
)
def test_the_password_in_a_url(url: str, secrets: list[str]) -> None:
    """As it stands there, as it is meant, and as the header has it: a proxy may quote any of them."""
    remember_login(url)

    assert redact(" | ".join(secrets)) == " | ".join([HIDDEN] * len(secrets))


def test_what_is_in_use_stays_hidden() -> None:
    """However many credentials have come and gone since it was first known."""
    for number in range(2 * MOST_REMEMBERED):
        remember(CANARY, f"of-an-hour-ago-{number}")

    assert redact(CANARY) == HIDDEN


def test_a_url_without_a_login_hides_nothing() -> None:
    """Neither its host nor its path."""
    for url in ("http://proxy.example:3128/long-path", "proxy.example", ""):
        remember_login(url)
        assert redact(f"it is {url}") == f"it is {url}"


def test_a_bug_quotes_our_own_words_only() -> None:
    """Neither the message of a library nor the line that it could not parse; but where it happened."""
    try:
        json.loads("Canary")
    except ValueError as error:
        try:
            Deadline(1.0, "test").call(lambda: int("Canary"))
        except ValueError as second:
            second.__cause__ = error
            found = internal_error(second, "testing")

    assert found.reason is Reason.INTERNAL_ERROR
    assert str(found) == "a bug in servesync while testing, please report it: ValueError"
    told = repr(found.facts)
    assert "Canary'" not in told.replace('json.loads("Canary")', "").replace('int("Canary")', "")
    assert "JSONDecodeError" in told
    assert "invalid literal" not in told
    assert "deadline.py" in told


def test_our_own_words_are_told() -> None:
    """Where servesync itself has raised it, though not the secrets in them."""
    remember(CANARY)

    with pytest.raises(ReleaseRefused) as caught:
        manifest.parse(CANARY.encode())

    last = traceback_of(caught.value)[-1]
    assert last.startswith("ReleaseRefused: the manifest")
    assert CANARY not in last


COMMAND = """
import logging, sys
from servesync.cli import run_command_line
from servesync.redaction import remember
remember(sys.argv[1])
code = run_command_line(["schema"])
try:
    raise ValueError(sys.argv[1])
except ValueError:
    logging.getLogger("botocore.credentials").warning("Refreshing failed: %s", sys.argv[1], exc_info=True)
    logging.getLogger("botocore.auth").debug("StringToSign %s", sys.argv[1])
sys.exit(code)
"""


def test_what_libraries_say_in_a_command_is_one_line() -> None:
    """Python's own way is a traceback on standard error."""
    done = subprocess.run([sys.executable, "-c", COMMAND, CANARY], capture_output=True, text=True, check=True)

    assert done.stderr == "servesync: botocore.credentials says: Refreshing failed: [hidden]\n"


@pytest.mark.parametrize(
    "url", ["s3://key:CANARY@bucket/prod", "https://b.example/p/1.tar?X-Amz-Signature=CANARY"]
)
@pytest.mark.parametrize(
    "command",
    [
        ["publish", "URL", "--model", "m", "--version", "1", "--store", "s3://bucket/prod"],
        ["manifest", "URL", "--model", "m", "--version", "1"],
        ["manifest", "s3://bucket/URL", "--store", "s3://bucket/prod"],
        ["channels", "m", "--store", "URL"],
        ["channels", "m", "--store", "s3://bucket/prod", "--endpoint-url", "URL"],
        ["channels", "m", "--store", "s3://bucket/prod", "--endpoint-url", "https://key:CANARY"],
    ],
)
def test_an_argument_that_holds_a_secret(
    command: list[str], url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log of a build keeps what a command complains of: a URL with a login, or one that is signed."""
    assert run_command_line([part.replace("URL", url) for part in command]) != 0

    shown = "".join(capsys.readouterr())
    assert shown
    assert "CANARY" not in shown


LOGGING = """
import logging, sys
from servesync.logs import configure, drain, get_logger
from servesync.redaction import remember
remember(sys.argv[1])
configure("debug", sys.argv[2])
try:
    import json
    json.JSONDecoder(object_hook=lambda _: {}[sys.argv[1]]).decode("{}")
except KeyError:
    get_logger().exception("internal_error")
    logging.getLogger("urllib3").warning("Retrying %s", sys.argv[1], exc_info=True)
drain()
"""


@pytest.mark.parametrize("style", ["json", "console"])
def test_what_the_log_shows_of_an_exception(style: str) -> None:
    """The way to it, and no word of a library; in both forms of the log."""
    command = [sys.executable, "-c", LOGGING, CANARY, style]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "Canary" not in done.stdout + done.stderr
    assert "KeyError" in done.stdout
    assert "raw_decode" in done.stdout
    assert "Retrying [hidden]" in done.stdout
