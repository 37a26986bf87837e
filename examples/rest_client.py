"""Asks TensorFlow Serving over REST: predictions, the states of versions, signatures. Needs only httpx.

    python rest_client.py --model answer_bot --version 2 predict '[[1.0], [2.0]]'
    python rest_client.py --model answer_bot --label stable predict '[[1.0], [2.0]]'
    python rest_client.py --model answer_bot status
    python rest_client.py --model answer_bot --version 2 signatures

`docs/clients.md` says what the answers mean while versions come and go.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

BUSY: Final = frozenset({httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE})
"""The server did nothing, and may do it a moment later."""

LOST: Final = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)
"""No answer came. Asking again is safe, for a prediction changes nothing. A slow answer is not among these:
a second request would only add to the load that made it slow."""

UNKNOWN_LABEL: Final = "Unrecognized servable version label"


class NotServed(Exception):
    """The server does not have this version, or does not know this label: now, or not yet, or no longer."""


class Rejected(Exception):
    """The request does not fit the model, or the model failed on it: asked again, it would do the same."""


class Unreachable(Exception):
    """No answer in any of the tries."""


@dataclass(frozen=True)
class Target:
    """Which version of a model is meant: a number, a label, or (neither) the highest that is loaded."""

    model: str
    version: int | None = None
    label: str | None = None

    @property
    def path(self) -> str:
        """The path below the server's address."""
        model = f"/v1/models/{quote(self.model, safe='')}"
        if self.version is not None:
            return f"{model}/versions/{self.version}"
        return f"{model}/labels/{quote(self.label, safe='')}" if self.label is not None else model


class RestClient:
    """One model server. Keeps its connections: make one for the process, and use it from any thread.

    `timeout_seconds` is the longest silence that is waited for in one try; connecting has half a second.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 5.0, tries: int = 3) -> None:
        timeout = httpx.Timeout(timeout_seconds, connect=0.5)
        self._http = httpx.Client(base_url=url, timeout=timeout, trust_env=False)
        self._tries = tries

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close its connections."""
        self._http.close()

    def predict(
        self, target: Target, instances: Sequence[Any], *, signature: str = "serving_default"
    ) -> list[Any]:
        """Return one prediction for each instance.

        Raises:
            NotServed: this version is not there, or the label is unknown.
            Rejected: the server refused the request.
            Unreachable: no server answered.
        """
        body = {"signature_name": signature, "instances": list(instances)}
        predictions: list[Any] = self._ask("POST", f"{target.path}:predict", body)["predictions"]
        return predictions

    def states(self, model: str) -> dict[int, str]:
        """Return the state of every version that the server has seen since it started, highest first.

        END stands for a version that has left, and, with its error, for one that failed to load.

        Raises:
            NotServed: it has never seen one.
            Unreachable: no server answered.
        """
        found = self._ask("GET", Target(model).path)["model_version_status"]
        return {int(item["version"]): _state(item) for item in found}

    def signatures(self, target: Target) -> dict[str, Any]:
        """Return inputs and outputs of each signature, as the server's JSON has them.

        Raises:
            NotServed: this version is not there, or the label is unknown.
            Unreachable: no server answered.
        """
        found: dict[str, Any] = self._ask("GET", f"{target.path}/metadata")["metadata"]["signature_def"]
        return dict(found["signature_def"])

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        why = ""
        for attempt in range(self._tries):
            if attempt:
                time.sleep(random.uniform(0.0, 0.1 * 2**attempt))  # noqa: S311 (spreads clients, no secret)
            try:
                answer = self._http.request(method, path, json=body)
            except LOST as error:
                why = str(error) or type(error).__name__
                continue
            except httpx.TransportError as error:
                raise Unreachable(str(error) or type(error).__name__) from error
            if answer.status_code not in BUSY:
                return _checked(answer)
            why = f"HTTP {answer.status_code}: {_message(answer)}"
        raise Unreachable(f"{why} (tried {self._tries} times)")


def _checked(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_success:
        found: dict[str, Any] = answer.json()
        return found
    message = _message(answer)
    if answer.status_code == httpx.codes.NOT_FOUND or message.startswith(UNKNOWN_LABEL):
        raise NotServed(message)
    raise Rejected(f"HTTP {answer.status_code}: {message}")


def _message(answer: httpx.Response) -> str:
    """Return the server's own words; a proxy before it may have sent something else."""
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]


def _state(item: dict[str, Any]) -> str:
    code, text = item["status"]["error_code"], item["status"]["error_message"]
    return str(item["state"]) if code == "OK" else f"{item['state']} ({code}: {text})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one request and print the answer as JSON; 1 if there was none."""
    parser = argparse.ArgumentParser(description="Ask TensorFlow Serving over REST.")
    parser.add_argument("--url", default="http://127.0.0.1:8501")
    parser.add_argument("--model", required=True)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=int)
    which.add_argument("--label")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("predict").add_argument("instances", type=json.loads, help="a JSON list")
    commands.add_parser("status")
    commands.add_parser("signatures")
    given = parser.parse_args(arguments)
    target = Target(given.model, given.version, given.label)
    try:
        with RestClient(given.url) as client:
            match given.command:
                case "predict":
                    found: object = client.predict(target, given.instances)
                case "status":
                    found = client.states(given.model)
                case _:
                    found = client.signatures(target)
    except (NotServed, Rejected, Unreachable) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
