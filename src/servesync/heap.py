"""Gives back memory that malloc keeps."""

import ctypes


def give_back() -> None:
    """Give the system what is free, also between what is in use; only glibc knows how.

    It takes some milliseconds: do it after much work, and not in the middle of it.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
