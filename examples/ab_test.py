"""An A/B test between versions of one model: each user always gets the same one. Needs only httpx.

    python ab_test.py --model answer_bot --arm 1=90 --arm 2=10 --user anna --user ben '[[1.0]]'
    python ab_test.py --model answer_bot --arm stable=90 --arm canary=10 --user anna '[[1.0]]'

An arm is a version number or a label, and its weight. Nothing is stored: the assignment follows from the
user's id alone, so every instance of the caller comes to the same one.
"""

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rest_client import NotServed, Rejected, RestClient, Target, Unreachable


@dataclass(frozen=True)
class Arm:
    """One side of the test, and the share of the users that it gets, relative to the other weights."""

    target: Target
    weight: float

    @property
    def name(self) -> str:
        """The label or the number."""
        return self.target.label or str(self.target.version)


@dataclass(frozen=True)
class Answer:
    """`assigned` differs from `answered` where the user's arm was gone: count such an answer for neither."""

    user: str
    assigned: str
    answered: str
    predictions: list[Any]


def order(experiment: str, arms: Sequence[Arm], user: str) -> list[Arm]:
    """Return the arms in the order in which this user is to be offered to them; the first is the user's own.

    Weighted rendezvous hashing: when a weight changes, users move only to or from that arm, and the users of
    an arm that is gone spread over the others by weight. Another `experiment` shuffles all users anew.
    """
    return sorted(arms, key=lambda arm: -math.log(_uniform(experiment, arm.name, user)) / arm.weight)


def _uniform(*parts: str) -> float:
    """Return a number above 0 and below 1 that looks like chance and is always the same."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return (int.from_bytes(digest[:6], "big") + 0.5) / 2**48


def ask(
    client: RestClient, experiment: str, arms: Sequence[Arm], user: str, instances: Sequence[Any]
) -> Answer:
    """Return the answer of the user's arm, or of the user's next one where that is not served.

    Raises:
        NotServed: none of the arms is served.
        Rejected, Unreachable: as `RestClient.predict`; no other arm would do better.
    """
    offered = order(experiment, arms, user)
    for arm in offered:
        try:
            predictions = client.predict(arm.target, instances)
        except NotServed:
            continue
        return Answer(user, offered[0].name, arm.name, predictions)
    raise NotServed(f"none of {', '.join(arm.name for arm in offered)}")


def parse_arm(model: str, text: str) -> Arm:
    """Return the arm that `2=10` or `canary=10` stands for.

    Raises:
        ValueError: it is none.
    """
    name, separator, weight = text.partition("=")
    if not separator or not name or not float(weight) > 0:
        raise ValueError(f"expected VERSION=WEIGHT or LABEL=WEIGHT with a weight above 0, not {text!r}")
    is_number = name.isascii() and name.isdigit()
    target = Target(model, version=int(name)) if is_number else Target(model, label=name)
    return Arm(target, float(weight))


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask once for each user and print one line of JSON each; 1 if an answer is missing."""
    parser = argparse.ArgumentParser(description="Split users over versions of a model.")
    parser.add_argument("--url", default="http://127.0.0.1:8501")
    parser.add_argument("--model", required=True)
    parser.add_argument("--experiment", default="", help="another name shuffles the users anew")
    parser.add_argument("--arm", action="append", required=True, metavar="VERSION|LABEL=WEIGHT")
    parser.add_argument("--user", action="append", required=True)
    parser.add_argument("instances", type=json.loads, help="a JSON list")
    given = parser.parse_args(arguments)
    try:
        arms = [parse_arm(given.model, text) for text in given.arm]
    except ValueError as error:
        parser.error(str(error))
    try:
        with RestClient(given.url) as client:
            for user in given.user:
                print(json.dumps(asdict(ask(client, given.experiment, arms, user, given.instances))))
    except (NotServed, Rejected, Unreachable) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
