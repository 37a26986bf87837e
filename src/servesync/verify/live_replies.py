"""Replies of the model server to trial requests: their outputs by name, or their error.

Source: TensorFlow Serving's documentation, "RESTful API"; json_tensor.cc, by which the answers to classify
and regress requests stand under `results` (the text of the documentation says `result`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, TypeAlias

from servesync.domain.methods import Method
from servesync.verify.live_requests import TrialRequest
from servesync.verify.methods import CLASSES, SCORES, VALUES

Json: TypeAlias = Any

MAX_COMPARED_BYTES: Final = 4 << 20
"""A longer reply is not read: it would take many times its size of memory."""

SHOWN_CHARACTERS: Final = 500
ENTRIES: Final = ((0, CLASSES), (1, SCORES))
"""A class is a list of a label and a score."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: an HTTP status and its body, or nothing in time (`status` 0).

    The server gives up a request, too (`--rest_api_timeout_in_ms`), and says so with 504.
    """

    status: int
    body: bytes = b""
    seconds: float = 0.0

    @property
    def is_late(self) -> bool:
        """Whether no whole answer came in time."""
        return self.status in {0, HTTPStatus.GATEWAY_TIMEOUT}


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply that was read: its outputs by name, or its error."""

    outputs: Mapping[str, Json] = field(default_factory=dict)
    error: str = ""
    is_servers: bool = True
    """Whether the server gave it: something else answers with other forms."""


NOT_THE_SERVERS: Final = Answer(is_servers=False)


def read_reply(reply: Reply, request: TrialRequest) -> Answer:
    """Return what a reply to a request says."""
    if len(reply.body) > MAX_COMPARED_BYTES:
        return NOT_THE_SERVERS
    try:
        found = json.loads(reply.body.decode(errors="surrogateescape"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return NOT_THE_SERVERS
    if isinstance(found.get("error"), str):
        return Answer(error=found["error"][:SHOWN_CHARACTERS])
    if reply.status != HTTPStatus.OK:
        return NOT_THE_SERVERS
    if request.method is Method.PREDICT:
        return _outputs(found, request)
    results = found.get("results", found.get("result"))
    return _results(results, request) if isinstance(results, list) else NOT_THE_SERVERS


def _outputs(found: Mapping[str, Json], request: TrialRequest) -> Answer:
    """Return the outputs of a predict request: a single one has no name."""
    if "outputs" not in found:
        return NOT_THE_SERVERS
    outputs = found["outputs"]
    if len(request.signature.outputs) == 1:
        return Answer({next(iter(request.signature.outputs)): outputs})
    return Answer(outputs if isinstance(outputs, dict) else {})


def _results(results: list[Json], request: TrialRequest) -> Answer:
    """Return the outputs behind the results of a classify or regress request, as a predict request has them.

    The server gives an empty label, or the score 0, where the signature has no such output: those are left
    out.
    """
    if request.method is Method.REGRESS:
        return Answer({VALUES: results})
    if not all(isinstance(row, list) and all(map(_is_class, row)) for row in results):
        return NOT_THE_SERVERS
    named = {name: [[pair[place] for pair in row] for row in results] for place, name in ENTRIES}
    return Answer({name: value for name, value in named.items() if name in request.signature.outputs})


def _is_class(pair: Json) -> bool:
    return isinstance(pair, list) and len(pair) == len(ENTRIES)
