"""A client that keeps sending requests to the model server, and counts those that fail."""

import threading
import time
from collections import Counter
from typing import Any, Final, Self

import httpx

ASK_EVERY_SECONDS: Final = 0.02


class Client:
    """While entered, asks for a prediction fifty times a second from its own thread.

    The requests name no version, or the label of one.
    """

    def __init__(self, url: str, model: str, inputs: list[float], label: str = "") -> None:
        self._url = f"{url}/v1/models/{model}{label and f'/labels/{label}'}:predict"
        self._inputs = inputs
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask_on, name="client", daemon=True)
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        """Start asking."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop asking."""
        self._stop.set()
        self._thread.join(timeout=10)

    @property
    def asked(self) -> int:
        """Requests so far."""
        return sum(self.answers.values()) + len(self.failures)

    def _ask_on(self) -> None:
        with httpx.Client(timeout=10, trust_env=False) as http:
            while not self._stop.is_set():
                started = time.monotonic()
                try:
                    self.answers[describe(ask(http, self._url, self._inputs))] += 1
                except httpx.HTTPError as error:
                    self.failures.append(str(error) or type(error).__name__)
                self._stop.wait(max(0.0, ASK_EVERY_SECONDS - (time.monotonic() - started)))


def ask(http: httpx.Client, url: str, inputs: list[float]) -> list[float]:
    """Return the predictions for `inputs`.

    Raises:
        httpx.HTTPError: the server did not answer, or not with a prediction.
    """
    answer = http.post(url, json={"instances": [[value] for value in inputs]})
    answer.raise_for_status()
    found: Any = answer.json()
    return [float(row[0] if isinstance(row, list) else row) for row in found["predictions"]]


def describe(predictions: list[float]) -> str:
    """Return predictions in the form in which the demo shows them."""
    return "[" + ", ".join(f"{value:.2f}" for value in predictions) + "]"
