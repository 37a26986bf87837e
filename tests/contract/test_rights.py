"""The policies of `deploy/iam` against the requests that agent and publisher really make.

A proxy notes each request on its way to a real store; a request is judged as IAM judges it.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from agent_box import AgentBox
from big_models import files_of, small_archive
from deploy_files import DEPLOY
from faulty_proxy import Exchange, FaultyProxy
from fixtures_store import Bucket
from servesync.publishing import Request, promote, publish_tree, withdraw
from servesync.settings import Store
from servesync.store import ObjectAttributes, S3Writer

IAM: Final = DEPLOY / "iam"
ARN: Final = "arn:aws:s3:::acme-models"


@dataclass(frozen=True)
class Asked:
    """A request in IAM's words."""

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict, hash=False)


def in_iam_words(exchange: Exchange) -> Asked:
    """Translate a request of the S3 protocol; the bucket counts as the one of the policies."""
    url = urlsplit(exchange.path)
    query = parse_qs(url.query, keep_blank_values=True)
    key = unquote(url.path).split("/", 2)[2:]
    resource = f"{ARN}/{key[0]}" if key and key[0] else ARN
    context = {}
    for header in ("if-none-match", "if-match"):
        value = {name.lower(): text for name, text in exchange.headers.items()}.get(header)
        if value is not None:
            context[f"s3:{header}"] = value
    if exchange.is_listing:
        return Asked("s3:ListBucket", resource, {"s3:prefix": query["prefix"][0]})
    if exchange.method == "GET" and "uploads" in query:
        return Asked("s3:ListBucketMultipartUploads", resource)
    if exchange.method in {"GET", "HEAD"}:
        return Asked("s3:GetObject", resource)
    if exchange.method == "DELETE":
        action = "s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject"
        return Asked(action, resource)
    creates = not ("uploads" in query or "partNumber" in query)
    return Asked("s3:PutObject", resource, context | {"s3:ObjectCreationOperation": str(creates).lower()})


def statements(*names: str) -> list[dict[str, Any]]:
    return [item for name in names for item in json.loads((IAM / name).read_text())["Statement"]]


def listed(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def holds(operator: str, key: str, wanted: Iterable[str], context: Mapping[str, str]) -> bool:
    """Judge one condition; of a key that a request does not have, only Null is true."""
    there = context.get(key)
    match operator:
        case "Null":
            return listed(wanted) == [str(there is None).lower()]
        case "Bool" | "StringEquals":
            return there in listed(wanted)
        case "StringLike":
            return there is not None and any(fnmatchcase(there, pattern) for pattern in listed(wanted))
        case "ArnNotLike":
            return there is None or not any(fnmatchcase(there, pattern) for pattern in listed(wanted))
        case _:
            raise AssertionError(f"a condition that this test does not know: {operator}")


def applies(statement: Mapping[str, Any], asked: Asked) -> bool:
    conditions = statement.get("Condition", {})
    actions = listed(statement["Action"])
    if not any(fnmatchcase(asked.action, pattern) for pattern in actions):
        return False
    inside = "Resource" in statement
    patterns = listed(statement["Resource" if inside else "NotResource"])
    if any(fnmatchcase(asked.resource, pattern) for pattern in patterns) != inside:
        return False
    return all(
        holds(operator, key, wanted, asked.context)
        for operator, keys in conditions.items()
        for key, wanted in keys.items()
    )


def allowed(asked: Asked, policy: Iterable[Mapping[str, Any]]) -> bool:
    """Judge as IAM does: something allows, and nothing denies."""
    effects = {item["Effect"] for item in policy if applies(item, asked)}
    return effects == {"Allow"}


def granted(*names: str) -> set[str]:
    return {action for item in statements(*names) for action in listed(item["Action"])}


class Notes(FaultyProxy):
    """A proxy that changes nothing and notes everything."""

    def __init__(self, store_port: int) -> None:
        super().__init__(store_port)
        self.asked: list[Asked] = []

    def handle(self, exchange: Exchange) -> None:
        """Note the request and pass it on."""
        self.asked.append(in_iam_words(exchange))
        super().handle(exchange)


@pytest.fixture
def notes(bucket: Bucket) -> Iterator[Notes]:
    """The door to the store."""
    with Notes(bucket.server.port) as proxy:
        yield proxy


@pytest.fixture
def published(notes: Notes, bucket: Bucket, real_models: Path) -> Store:
    """Version 1 of model `m`, published in one request for each object."""
    store = Store(url=f"s3://{bucket.name}/prod", endpoint_url=notes.endpoint_url, region="us-east-1")
    publish_tree(real_models / "plain_module", store, Request("m", 1))
    return store


def test_an_agent_needs_two_rights(
    published: Store, notes: Notes, bucket: Bucket, tmp_path: Path, real_models: Path
) -> None:
    """With and without a manifest, and where something is missing: exactly what agent.json allows."""
    bucket.put("prod/m/2.tar.gz", small_archive(files_of(real_models / "plain_module"), 2))
    notes.asked.clear()
    server = bucket.server
    box = AgentBox(tmp_path, notes.endpoint_url, bucket.name, server.access_key, server.secret_key)
    box.models = [{"name": "m", "versions": {"all": True}}]

    assert box.call("sync").returncode == 0

    assert box.numbers() == ["1", "2"]
    policy = statements("agent.json")
    assert [asked for asked in notes.asked if not allowed(asked, policy)] == []
    assert {asked.action for asked in notes.asked} == granted("agent.json")


def give_up(writer: S3Writer, data: bytes) -> None:
    """Send parts of an object, then think better of it."""
    with writer.upload_new("prod/m/3.tar.zst", ObjectAttributes("application/zstd")) as write:
        write(data)
        raise KeyboardInterrupt


def test_a_publisher_needs_what_its_policy_says(published: Store, notes: Notes, real_models: Path) -> None:
    """A version, the same again, a large object in parts, and one that is given up; nothing is left over."""
    publish_tree(real_models / "plain_module", published, Request("m", 1))
    large = bytes(11 << 20)
    with S3Writer(published, part_bytes=5 << 20) as writer:
        with writer.upload_new("prod/m/2.tar.zst", ObjectAttributes("application/zstd")) as write:
            write(large)
        with pytest.raises(KeyboardInterrupt):
            give_up(writer, large)

    policy = statements("publisher.json", "bucket-policy.json")
    assert [asked for asked in notes.asked if not allowed(asked, policy)] == []
    assert {asked.action for asked in notes.asked} == granted("publisher.json")
    parts = {asked.context.get("s3:ObjectCreationOperation") for asked in notes.asked} - {None}
    assert parts == {"true", "false"}


KEEPER = {"aws:PrincipalArn": "arn:aws:iam::111122223333:role/model-store-keeper"}


def test_moving_and_withdrawing_need_what_their_policies_say(published: Store, notes: Notes) -> None:
    """A channel made and moved back and forth, and a version withdrawn, by the keepers."""
    promote(published, ("m", "1", "stable"), "me", "")
    withdraw(published, ("m", "1"), "me", "wrong data")
    writes = [asked for asked in notes.asked if asked.action == "s3:PutObject"]

    policy = statements(
        "agent.json", "publisher.json", "channels.json", "withdraw.json", "bucket-policy.json"
    )
    asked = [Asked(item.action, item.resource, dict(item.context) | KEEPER) for item in notes.asked]
    assert [item for item in asked if not allowed(item, policy)] == []
    assert not allowed(writes[-1], policy)  # not the keepers
    assert "s3:if-match" in writes[-1].context


@pytest.mark.parametrize("name", ["channels.json", "withdraw.json"])
def test_keepers_need_the_agents_rights_as_well(name: str, published: Store, notes: Notes) -> None:
    """Neither policy is enough alone: each command looks before it writes."""
    notes.asked.clear()
    if name == "channels.json":
        promote(published, ("m", "1", "stable"), "me", "")
    else:
        withdraw(published, ("m", "1"), "me", "wrong data")
    asked = [Asked(item.action, item.resource, dict(item.context) | KEEPER) for item in notes.asked]

    own = statements(name, "bucket-policy.json")
    assert [item for item in asked if not allowed(item, statements("agent.json") + own)] == []
    assert [item for item in asked if not allowed(item, own)] != []


WRITE = {"s3:ObjectCreationOperation": "true"}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Asked("s3:PutObject", f"{ARN}/prod/m/1.tar.zst", WRITE | {"s3:if-none-match": "*"}), True),
        (Asked("s3:PutObject", f"{ARN}/prod/m/1.tar.zst", WRITE), False),
        (Asked("s3:PutObject", f"{ARN}/prod/m/1.tar.zst", WRITE | {"s3:if-match": "x"}), False),
        (Asked("s3:PutObject", f"{ARN}/prod/m/channels/stable.json", WRITE | {"s3:if-match": "x"}), True),
        (Asked("s3:PutObject", f"{ARN}/prod/m/channels/a.json", WRITE | {"s3:if-none-match": "*"}), True),
        (Asked("s3:PutObject", f"{ARN}/prod/m/channels/stable.json", WRITE), False),
        (Asked("s3:PutObject", f"{ARN}/other/x", WRITE | {"s3:if-none-match": "*"}), False),
        (Asked("s3:DeleteObject", f"{ARN}/prod/m/1.tar.zst"), False),
        (Asked("s3:ListBucket", ARN, {"s3:prefix": "secrets/"}), False),
        (Asked("s3:ListBucket", ARN), False),
    ],
)
def test_what_a_pipeline_may_and_may_not(asked: Asked, expected: bool) -> None:  # noqa: FBT001
    """Publishing and moving channels, under the bucket's own policy."""
    policy = statements("publisher.json", "channels.json", "bucket-policy.json")
    assert allowed(asked, policy) == expected


@pytest.mark.parametrize("path", sorted(IAM.glob("*.json")), ids=lambda path: path.name)
def test_policies_are_well_formed(path: Path) -> None:
    """The elements of IAM's language, names that are unique, and no right on everything."""
    policy = json.loads(path.read_text())
    assert policy["Version"] == "2012-10-17"
    names = [item["Sid"] for item in policy["Statement"] if "Sid" in item]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[A-Za-z0-9]+", name) for name in names)
    known = {"Sid", "Effect", "Principal", "Action", "Resource", "NotResource", "Condition"}
    for item in policy["Statement"]:
        assert set(item) <= known
        if item["Effect"] == "Allow":
            if item["Action"] != "ecr:GetAuthorizationToken":  # which knows no other resource
                assert "*" not in listed(item.get("Resource", "-"))
            assert not any("*" in action for action in listed(item["Action"]))
