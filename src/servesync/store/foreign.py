"""Words errors of libraries without what a program, a server or a file said, which may hold a secret.

An exception may quote the header that could not be sent, the line that could not be parsed, or the whole
output of a program. The kinds below are worded from names, places and codes; of all others only the name
of the kind is told.
"""

import json
from typing import Final

import botocore.exceptions as foreign
import urllib3.exceptions
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from servesync.deadline import TookTooLong
from servesync.redaction import is_ours, redact

_MOST_CAUSES: Final = 10
_QUOTING: Final = (
    foreign.CredentialRetrievalError,
    foreign.MetadataRetrievalError,
    foreign.TokenRetrievalError,
)


def safe_wording(error: BaseException) -> str:
    """Return a text for an error of a library, in the library's words if they are safe."""
    match error:
        case TookTooLong() | ResponseParserError():
            # botocore's own of the latter quotes the whole answer, and STS's holds credentials
            return redact(str(error)) if is_ours(error) else "the answer is no XML, or not the whole of it"
        case ClientError():
            details = error.response.get("Error", {})
            code, said = (redact(str(details.get(name, ""))) for name in ("Code", "Message"))
            return f"{code}: {said}"  # joined last: redaction hides the word after "ExpiredToken: "
        case UnicodeError():
            return "what was read is no UTF-8 text"
        case json.JSONDecodeError():
            return "what was answered is no JSON"
        case OSError() if error.errno is not None:
            place = "" if error.filename is None else f": {error.filename!a}"
            return f"{error.strerror}{place}"
        case BotoCoreError() if isinstance(error, _QUOTING):
            return f"it failed ({type(error).__name__}); what it said is left out, since it may hold a secret"
        case BotoCoreError():
            return _of_botocore(error)
        case _:
            return type(error).__name__


def _of_botocore(error: BotoCoreError) -> str:
    """Return the text of an error of botocore's, and of the system error behind it, if there is one."""
    inner = error.kwargs.get("error")
    network = isinstance(inner, OSError | urllib3.exceptions.HTTPError) and not isinstance(inner, ValueError)
    if type(error) is foreign.HTTPClientError and not network:
        return f"the request could not be sent ({type(inner).__name__})"  # its text quotes the header
    system = _system_error(error)
    text = redact(str(error))
    return f"{text} ({system.strerror})" if system is not None else text


def _system_error(error: BaseException) -> OSError | None:
    """Return the error of the operating system that led to `error`, if there is one."""
    cause: object = error
    for _ in range(_MOST_CAUSES):
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause
        inner = cause.kwargs.get("error") if isinstance(cause, BotoCoreError) else None
        if isinstance(cause, BaseException):
            cause = inner or cause.__cause__ or cause.__context__
    return None
