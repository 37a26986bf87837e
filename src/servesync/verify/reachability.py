"""Follows a graph from where the server enters it to all that it may run: nodes, functions, nested graphs.

A traversal keeps its own stack, so neither depth nor loops matter. All of a reached function counts, since
TensorFlow runs an operation with side effects even if no output needs it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from servesync.verify.assets import full_name
from servesync.verify.attributes import references, text_of
from servesync.verify.dangerous_ops import (
    ASSET_OPERATIONS,
    DANGEROUS_OPS,
    HARMLESS_IF,
    SAVER_OPERATIONS,
    Danger,
)
from servesync.verify.graph_def import Node, Scope, body_nodes, nested_scope, read_header, read_node
from servesync.verify.parse_budget import Reader

CALLS: Final = frozenset({b"PartitionedCall", b"StatefulPartitionedCall"})
MAX_CONTEXTS: Final = 8
LONGEST_NAME: Final = 200
SAMPLE_BYTES: Final = 1 << 16
NODE_TAG: Final = b"\n"
"""The tag of a node in a GraphDef: a string without this byte cannot be a graph with nodes."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One operation that reaches out of the graph: where it stands, and from where it is reached."""

    operation: str
    danger: Danger
    node: str
    place: str
    """`graph`, `function NAME`, or such a place inside of a graph that a node holds as a string."""
    root: str
    """`signature NAME`, `init op` or `saver`: the first entrance that leads to the operation."""


def in_words(finding: Finding) -> str:
    """Return a finding on one line, with foreign names escaped and cut."""
    where = f"node {finding.node!a:.100} in {finding.place!a:.100}"
    return f"{finding.operation} ({finding.danger.value}): {where}, reached from {finding.root!a:.100}"


@dataclass(slots=True)
class Seen:
    """The nodes and findings that all traversals of one graph have met."""

    reader: Reader
    findings: set[Finding] = field(default_factory=set)
    nodes: set[tuple[int, bytes]] = field(default_factory=set)
    bodies: dict[tuple[int, bytes], int] = field(default_factory=dict)
    nested: dict[tuple[int, bytes], Scope] = field(default_factory=dict)

    @property
    def reachable(self) -> int:
        """How many nodes were met, each counted once."""
        return len(self.nodes) + sum(self.bodies.values())


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where a node stands: its scope, and which names there are assets."""

    scope: Scope
    place: str
    assets: set[bytes]
    is_function: bool


_Call = tuple[Scope, bytes, frozenset[int]]


class Traversal:
    """All that may be run from one kind of entrance; `run` may be called for each entrance in turn."""

    def __init__(self, seen: Seen, scope: Scope, assets: Iterable[bytes], *, is_saver: bool) -> None:
        self._seen = seen
        self._reader = seen.reader
        self._scope = scope
        self._assets = set(assets)
        self._exempt = SAVER_OPERATIONS if is_saver else frozenset()
        self._root = ""
        self._met: set[tuple[int, bytes]] = set()
        self._contexts: dict[tuple[int, bytes], set[frozenset[int]]] = {}
        self._to_visit: list[tuple[Scope, bytes]] = []
        self._to_call: list[_Call] = []
        self._gradients: list[tuple[Scope, bytes]] = []
        self._differentiates = False

    def run(self, root: str, names: Iterable[bytes]) -> None:
        """Follow everything that leads to the tensors and nodes `names`.

        Raises:
            Malformed: a part that was reached is damaged, or the graph is too large.
        """
        self._root = root
        for name in names:
            self._reach(self._scope, name)
        while self._to_visit or self._to_call:
            if self._to_visit:
                self._visit(*self._to_visit.pop())
            else:
                self._enter(*self._to_call.pop())

    def _reach(self, scope: Scope, tensor: bytes) -> None:
        name = tensor.removeprefix(b"^").partition(b":")[0]
        key = (scope.number, name)
        if name in scope.nodes and key not in self._met:
            self._met.add(key)
            self._to_visit.append((scope, name))

    def _call(self, scope: Scope, function: bytes, assets: frozenset[int] = frozenset()) -> None:
        """Reach a function; `assets` are the positions of those inputs that are assets."""
        owner = scope.owner(function)
        if owner is None:
            return
        contexts = self._contexts.setdefault((owner.number, function), set())
        if len(contexts) >= MAX_CONTEXTS:
            assets = frozenset()
        if assets not in contexts:
            contexts.add(assets)
            self._to_call.append((owner, function, assets))

    def _visit(self, scope: Scope, name: bytes) -> None:
        self._seen.nodes.add((scope.number, name))
        node = read_node(self._reader, scope.nodes[name])
        for tensor in node.inputs:
            self._reach(scope, tensor)
        is_main = scope is self._scope
        self._inspect(
            node, _Frame(scope, scope.place or "graph", self._assets if is_main else set(), is_function=False)
        )

    def _enter(self, scope: Scope, function: bytes, assets: frozenset[int]) -> None:
        count = 0
        place = f"{scope.place} > " if scope.place else ""
        for body in scope.functions[function]:
            header = read_header(self._reader, body)
            named = {name for index, name in enumerate(header.arguments) if index in assets}
            frame = _Frame(scope, f"{place}function {_shown(function)}", named, is_function=True)
            for data in body_nodes(self._reader, body):
                count += 1
                self._inspect(read_node(self._reader, data), frame)
            for other in scope.alternatives.get(header.implements, ()):
                self._call(scope, other)
        self._seen.bodies[scope.number, function] = count
        for gradient in scope.gradients.get(function, ()):
            self._gradients.append((scope, gradient))
        self._differentiate()

    def _differentiate(self) -> None:
        """Reach the gradients of the functions met so far, if an operation asks for any."""
        while self._differentiates and self._gradients:
            self._call(*self._gradients.pop())

    def _inspect(self, node: Node, frame: _Frame) -> None:
        inputs = node.data_inputs
        danger = self._danger(node, frame)
        if danger is not None:
            shown = (_shown(node.operation), danger, _shown(node.name), frame.place, self._root)
            self._add(Finding(*shown))
        if node.operation == b"SymbolicGradient":
            self._differentiates = True
            self._differentiate()
        if node.operation == b"Identity" and inputs and inputs[0] in frame.assets:
            frame.assets.add(node.name + b":output:0")
        assets = frozenset(
            index
            for index, name in enumerate(inputs)
            if frame.assets and _tensor(name, frame) in frame.assets
        )
        self._call(frame.scope, node.operation, assets)
        self._follow(node, frame, assets if node.operation in CALLS else frozenset())

    def _add(self, finding: Finding) -> None:
        if finding not in self._seen.findings:
            self._reader.keep()
            self._seen.findings.add(finding)

    def _follow(self, node: Node, frame: _Frame, assets: frozenset[int]) -> None:
        """Reach the functions and the graphs that the attributes of a node hold."""
        for reference in references(self._reader, node.attributes):
            if reference.is_function:
                self._call(frame.scope, bytes(reference.data), assets if reference.is_called else frozenset())
                continue
            start = bytes(reference.data[:SAMPLE_BYTES])
            self._call(frame.scope, start)
            if len(start) == SAMPLE_BYTES or NODE_TAG in start:
                self._unfold(reference.data, node, frame)

    def _unfold(self, data: memoryview, node: Node, frame: _Frame) -> None:
        """Reach every node of `data`, if it is a GraphDef."""
        seen = self._seen
        key = (frame.scope.number, sha256(data).digest())
        scope = seen.nested.get(key)
        if scope is None:
            place = f"{frame.place} > graph in node {_shown(node.name)}"
            scope = nested_scope(self._reader, data, len(seen.nested) + 1, place, frame.scope)
        if scope is not None:
            seen.nested[key] = scope
            for name in scope.nodes:
                self._reach(scope, name)

    def _danger(self, node: Node, frame: _Frame) -> Danger | None:
        danger = DANGEROUS_OPS.get(node.operation)
        if danger is None or node.operation in self._exempt:
            return None
        if node.operation in ASSET_OPERATIONS:
            paths = node.data_inputs[1:2]
            return None if any(_tensor(path, frame) in frame.assets for path in paths) else danger
        if node.operation in HARMLESS_IF:
            attribute, harmless = HARMLESS_IF[node.operation]
            values = [text_of(self._reader, value) for key, value in node.attributes if key == attribute]
            return None if all(harmless.fullmatch(value) for value in values) else danger
        return danger


def _tensor(name: bytes, frame: _Frame) -> bytes:
    """Return the full name of an input; inside of functions, names have another form and are full already."""
    if frame.is_function:
        return name
    return full_name(name)


def _shown(name: bytes) -> str:
    return ascii(name[:LONGEST_NAME].decode(errors="backslashreplace"))[1:-1]
