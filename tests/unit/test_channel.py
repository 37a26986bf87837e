"""Channels and withdrawals as documents: their sequence, their history, and what is refused."""

import json
from collections.abc import Callable

import pytest

from servesync.domain import canonical_json, channel
from servesync.domain.channel import Channel, Entry, Withdrawal
from servesync.domain.versions import Model, Version
from servesync.errors import Reason, ReleaseRefused

M = Model("m")


def at(*steps: tuple[int, str]) -> Channel:
    """Return the channel `stable` after these moves."""
    found: Channel | None = None
    for version, kind in steps:
        entry = Entry(Version(version), kind, "2026-01-02T03:04:05Z", "me", "")  # type: ignore[arg-type]
        found = channel.moved(found, M, "stable", entry)
    assert found is not None
    return found


P, R = "promote", "rollback"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(1, P)], None),
        ([(1, P), (2, P)], 1),
        ([(1, P), (2, P), (3, P)], 2),
        ([(1, P), (2, P), (3, P), (2, R)], 1),
        ([(1, P), (2, P), (3, P), (2, R), (1, R)], None),
        ([(1, P), (2, P), (1, P)], 2),
        ([(1, P), (2, P), (3, P), (2, R), (4, P)], 2),
        ([(5, R)], None),
    ],
)
def test_where_a_rollback_goes(steps: list[tuple[int, str]], expected: int | None) -> None:
    """To where the channel stood before; after a rollback further back, not to what was left."""
    assert channel.before(at(*steps)) == expected


def test_each_move_adds_one_and_the_past_is_bounded() -> None:
    """The sequence never falls; what is long over is forgotten."""
    found = at(*[(number, P) for number in range(80)])

    assert found.now.sequence == 80
    assert [move.sequence for move in found.past] == list(range(79, 29, -1))
    data = channel.dump(found)
    assert len(data) < channel.MAX_BYTES
    assert channel.parse_channel(data, M, "stable") == found


def test_the_longest_texts_still_fit() -> None:
    """Every field at its limit, in characters that take six bytes each, and the whole history."""
    found: Channel | None = None
    for number in range(60):
        entry = Entry(Version(2**63 - 1 - number), "promote", "2026-01-02T03:04:05Z", "w" * 128, "y" * 512)
        found = channel.moved(found, M, "stable", entry)
    assert found is not None
    assert channel.parse_channel(channel.dump(found), M, "stable") == found


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"channel": "other"},
        {"more": 1},
        {"schema": "servesync.channel/2"},
        {"now": {"version": 1}},
        {"past": [{"version": 1}]},
        {"channel": "../stable"},
    ],
    ids=str,
)
def test_what_is_not_such_a_channel(change: dict[str, object]) -> None:
    """Sealed or not: another name, unknown keys, a part of one."""
    plain = json.loads(channel.dump(at((1, P), (2, P))))
    del plain["digest"]

    with pytest.raises(ReleaseRefused) as caught:
        channel.parse_channel(canonical_json.dump(plain | change), M, "stable")
    assert caught.value.reason is Reason.CHANNEL_INVALID


def test_a_history_that_goes_up_is_refused() -> None:
    """Its order says what came before what."""
    plain = json.loads(channel.dump(at((1, P), (2, P), (3, P))))
    del plain["digest"]
    plain["past"].reverse()

    with pytest.raises(ReleaseRefused, match="sequence"):
        channel.parse_channel(canonical_json.dump(plain), M, "stable")


def test_no_single_bit_gets_through() -> None:
    """Of a channel, and of a withdrawal."""
    withdrawal = Withdrawal(
        model=M, version=3, time="2026-01-02T03:04:05Z", who="me", reason="wrong", manifest_sha256=None
    )
    both: list[tuple[bytes, Callable[[bytes], object]]] = [
        (channel.dump(at((1, P), (2, P))), lambda data: channel.parse_channel(data, M, "stable")),
        (channel.dump(withdrawal), lambda data: channel.parse_withdrawal(data, M, Version(3))),
    ]
    for data, parse in both:
        for place in range(len(data) * 8):
            flipped = bytearray(data)
            flipped[place // 8] ^= 1 << place % 8
            with pytest.raises(ReleaseRefused):
                parse(bytes(flipped))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("m/channels/stable.json", (M, "stable")),
        ("m/channels/a.b-c_1.json", (M, "a.b-c_1")),
        ("m/channels/.json", None),
        ("m/channels/.hidden.json", None),
        ("m/channels/x/y.json", None),
        ("m/channels/stable.txt", None),
        (".m/channels/stable.json", None),
        ("channels/stable.json", None),
        ("a/m/channels/stable.json", None),
    ],
)
def test_keys(key: str, expected: tuple[Model, str] | None) -> None:
    """Only the one place below a model names a channel."""
    assert channel.parse_key(key) == expected


def test_the_withdrawal_of_another_version_takes_nothing_away() -> None:
    """It may have been copied there."""
    data = channel.dump(Withdrawal(model=M, version=3, time="2026-01-02T03:04:05Z", who="me", reason="wrong"))

    assert channel.is_withdrawal(data)
    assert channel.parse_withdrawal(data, M, Version(3)).reason == "wrong"
    with pytest.raises(ReleaseRefused, match="withdraws m 3"):
        channel.parse_withdrawal(data, M, Version(4))


def test_what_a_withdrawal_says_is_not_for_the_terminal() -> None:
    """Whoever may write to the bucket wrote it; `plan`, `status`, the page and the log show it."""
    found = Withdrawal(
        model=M, version=3, time="2026-01-02T03:04:05Z", who="m\xfc\x9b2J", reason="\u202etxt\u2028."
    )

    assert str(channel.withdrawn(found)).endswith("by mü\\x9b2J: \\u202etxt\\u2028.")
