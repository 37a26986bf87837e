"""Who may ask the admin interface, and who may change something there."""

import os
import socket
from pathlib import Path

import pytest
from starlette.requests import Request

from servesync.admin.guard import is_known_host, refuse_change
from servesync.admin.serving import bind

TOKEN = "correct-horse-battery"


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True),
        ("LOCALHOST:9494", True),
        ("localhost.", True),
        ("agent.localhost", True),
        ("127.0.0.1:9494", True),
        ("10.0.0.7", True),
        ("[::1]", True),
        ("[fe80::1]:9494", True),
        ("models.internal", True),
        ("Models.Internal:80", True),
        ("other.internal", False),
        ("models.internal.evil.example", False),
        ("localhost.evil.example", False),
        ("notlocalhost", False),
        ("127.0.0.1.evil.example", False),
        ("127.1", False),
        ("2130706433", False),
        ("user@localhost", False),
        ("localhost/evil", False),
        ("localhost:99999999", False),
        ("[::1", False),
        ("", False),
        ("localhost\n", False),
    ],
)
def test_hosts(host: str, known: bool) -> None:  # noqa: FBT001 (a row of the table)
    """Addresses, localhost, and what the settings name; nothing that only looks like them."""
    assert is_known_host(host, ["models.internal"]) is known


def request(peer: str | None = "127.0.0.1", **headers: str) -> Request:
    """Return a POST /sync from `peer`."""
    named = {"host": "localhost:9494"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(
        {
            "type": "http",
            "method": "POST",
            "path": "/sync",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in named.items()],
            "client": (peer, 1234) if peer else None,
        }
    )


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """A file with a token."""
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


def code(asked: Request, token: Path | None = None) -> int:
    """Return the status of the refusal; 202 if there is none."""
    refusal = refuse_change(asked, token)
    return refusal[0] if refusal else 202


def test_this_machine_may(token: Path) -> None:
    """Over IPv4, IPv6, and IPv4 within IPv6; from a page of its own, too."""
    for peer in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        assert code(request(peer)) == 202
    assert code(request(Origin="http://localhost:9494", Sec_Fetch_Site="same-origin")) == 202
    assert code(request(Content_Type="application/json; charset=utf-8")) == 202


def test_others_need_the_token(token: Path) -> None:
    """Whole and right; without a file, or with an unreadable or a short one, there is none."""
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert code(request("10.0.0.9"), token) == 401
    assert code(request("10.0.0.9", **bearer), token) == 202
    assert code(request("10.0.0.9", Authorization=f"bearer  {TOKEN} "), token) == 202
    assert code(request(None, **bearer), token) == 202
    assert code(request(None), token) == 401
    for wrong in (
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer ",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer \xff",
    ):
        assert code(request("10.0.0.9", Authorization=wrong), token) == 401
    assert code(request("10.0.0.9", **bearer)) == 401
    assert code(request("10.0.0.9", **bearer), token.with_name("none")) == 401
    token.write_text("short")
    assert code(request("10.0.0.9", Authorization="Bearer short"), token) == 401
    token.write_text("")
    assert code(request("10.0.0.9", Authorization="Bearer"), token) == 401


def test_a_token_file_that_is_none_is_named(token: Path) -> None:
    """Or whoever has the right token looks for the mistake on the wrong side."""
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    token.write_text("short")
    assert_refused(request("10.0.0.9", **bearer), token, "fewer than 16 characters")
    token.write_text("x" * 5000)
    assert_refused(request("10.0.0.9", **bearer), token, "larger than 4096 bytes")
    token.unlink()
    assert_refused(request("10.0.0.9", **bearer), token, "No such file or directory")
    os.mkfifo(token)
    assert_refused(request("10.0.0.9", **bearer), token, "it is a pipe")


def assert_refused(asked: Request, token: Path, expected: str) -> None:
    """Assert that a request is refused with these words, and with nothing of the file or its place."""
    status, text = refuse_change(asked, token) or (202, "")
    assert status == 401
    assert text.startswith("the agent cannot use admin.token_file: ")
    assert expected in text
    assert str(token) not in text


def test_a_wrong_token_is_no_better_than_none(token: Path) -> None:
    """From this machine as well: whoever sends one means to use it."""
    assert code(request(Authorization="Bearer wrong-horse-battery"), token) == 401


@pytest.mark.parametrize("header", ["Forwarded", "X_Forwarded_For", "X_Real_IP", "Via"])
def test_a_proxy_on_this_machine_speaks_for_others(header: str, token: Path) -> None:
    """Then its address says nothing about who asks."""
    assert code(request(**{header: "10.0.0.9"}), token) == 401


def test_pages_of_other_sites_may_not(token: Path) -> None:
    """Not even with the token, which such a page could have been given."""
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert code(request(Origin="https://evil.example", **bearer), token) == 403
    assert code(request(Origin="null", **bearer), token) == 403
    assert code(request(Origin="http://[", **bearer), token) == 403
    assert code(request(Origin="http://localhost:8080"), token) == 403
    assert code(request(Sec_Fetch_Site="cross-site", **bearer), token) == 403
    assert code(request(Sec_Fetch_Site="same-site"), token) == 403
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        assert code(request(Content_Type=kind), token) == 415


def test_a_pipe_for_a_token_lets_nobody_in(tmp_path: Path) -> None:
    """And nobody waits for it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    assert refuse_change(request("10.0.0.1", Authorization=f"Bearer {TOKEN}"), pipe) is not None


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here, or none that takes IPv4")
def test_all_addresses_are_those_of_both_kinds() -> None:
    """The settings say that `::` stands for all of them; 0.0.0.0 is those of IPv4."""
    with bind("::", 0) as listening:
        port = listening.getsockname()[1]
        for address in ("127.0.0.1", "::1"):
            with socket.create_connection((address, port)) as connection:
                assert connection.getpeername()[1] == port
