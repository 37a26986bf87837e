"""What is said of a credential that cannot be sent."""

import pytest

from servesync.store.flaws import flaw_of, flaw_of_secret


@pytest.mark.parametrize(
    ("value", "flaw"),
    [
        ("FQoG/ZXIvYXdz+EAAa==", ""),
        ("", "is empty"),
        (7, "is no text"),
        ("t\n", "ends with a line feed; was it made with `echo`? Use `printf %s`"),
        ("t\n\n", "ends with a line feed; was it made with `echo`? Use `printf %s`"),
        ("t\r\n", "ends with a carriage return; was it made with `echo`? Use `printf %s`"),
        ("  t", "begins with a space"),
        ("t t", "holds a space (character 2 of 3)"),
        ("t\nt", "holds a line feed (character 2 of 3); it must be one line"),
        ("t\0", "holds a NUL (character 2 of 2)"),
        ("t\u00a0", "ends with a space that is not ASCII"),
        ("\ufefft", "holds an invisible character (character 1 of 2)"),
        ("t\u00fc", "holds a character that is not ASCII (character 2 of 2)"),
    ],
)
def test_flaws(value: object, flaw: str) -> None:
    """The kind of character and its place; never the value."""
    assert flaw_of(value) == flaw


def test_a_secret_key_may_hold_what_is_not_sent() -> None:
    """Spaces and letters of any language inside; nothing at its ends, and no control character."""
    assert flaw_of_secret("ein gehei\u00dfes Wort") == ""
    assert flaw_of_secret("w ort ") == "ends with a space"
    assert flaw_of_secret("w\tort") == "holds a tab (character 2 of 5)"
    assert flaw_of_secret(None) == "is no text"
