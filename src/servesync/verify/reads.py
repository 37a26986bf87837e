"""Finds the variables that a request reads for certain, also in the functions that it calls.

A variable is left out if that is uncertain: the request itself may set it, or only a branch that may not run
reads it. The bodies of loops are assumed to run.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from servesync.verify.attributes import references, text_of
from servesync.verify.graph_def import Node, Scope, body_nodes, read_header, read_node
from servesync.verify.parse_budget import Reader
from servesync.verify.proto import FunctionDef, MapEntry, NodeDef

CALLS: Final = frozenset({b"PartitionedCall", b"StatefulPartitionedCall", b"StatelessWhile", b"While"})
"""Operations that run functions and pass all their inputs to them."""
CALLED: Final = frozenset({b"body", b"cond", b"f"})
"""The attributes of these operations that name the functions."""
HANDLES: Final = frozenset({b"VarHandleOp"})
REFERENCES: Final = frozenset({b"VariableV2", b"Variable"})
"""Variables of TensorFlow 1: an operation with such an input gets its value, without another to read it."""

READS: Final = frozenset(
    {
        b"AssignAdd",
        b"AssignAddVariableOp",
        b"AssignSub",
        b"AssignSubVariableOp",
        b"ReadVariableOp",
        b"ResourceGather",
        b"ResourceGatherNd",
    }
)
"""Operations that fail if their variable has no value."""
CHECKS: Final = frozenset({b"IsVariableInitialized", b"VarIsInitializedOp"})
"""Operations that neither set a variable nor fail without a value."""
FED: Final = b"PlaceholderWithDefault"
"""The request gives this operation its value: the operations that lead to its default do not run."""


@dataclass(frozen=True, slots=True, order=True)
class Variable:
    """A variable, by the name under which the server keeps it."""

    name: bytes
    is_reference: bool


Given: TypeAlias = tuple[tuple[int, Variable], ...]
"""The variables among the arguments of a call, with their positions."""


def find_variables(reader: Reader, scope: Scope) -> dict[bytes, Variable]:
    """Return the variables of a graph by their nodes, without those that functions make.

    Raises:
        Malformed: the graph is damaged or too large.
    """
    found = {}
    for name, data in scope.nodes.items():
        operation = _operation(reader, data)
        if operation in HANDLES or operation in REFERENCES:
            values = [
                text_of(reader, value)
                for key, value in read_node(reader, data).attributes
                if key == b"shared_name"
            ]
            reader.keep()
            found[name] = Variable(next(filter(None, values), name), operation in REFERENCES)
    return found


def node_of(tensor: bytes) -> bytes:
    """Return the node of a tensor or of a control input, in a graph or in a function."""
    return tensor.removeprefix(b"^").partition(b":")[0]


def reached(reader: Reader, scope: Scope, tensors: Iterable[bytes]) -> set[bytes]:
    """Return the nodes of the graph that lead to `tensors`.

    Raises:
        Malformed: the graph is damaged or too large.
    """
    met: set[bytes] = set()
    to_visit = list(tensors)
    while to_visit:
        name = node_of(to_visit.pop())
        if name not in met and name in scope.nodes:
            met.add(name)
            to_visit += read_node(reader, scope.nodes[name]).inputs
    return met


class Reads:
    """Collects which variables requests read, and which they may set themselves."""

    def __init__(self, reader: Reader, scope: Scope, variables: Mapping[bytes, Variable]) -> None:
        self._reader = reader
        self._scope = scope
        self._variables = variables
        self._read: set[bytes] = set()
        self._spared: set[bytes] = set()
        self._to_call: list[tuple[bytes, Given]] = []
        self._called: set[tuple[bytes, Given]] = set()

    @property
    def needed(self) -> set[bytes]:
        """The names of the variables that must have a value before the requests run."""
        return self._read - self._spared

    def run(self, tensors: Iterable[bytes]) -> None:
        """Follow what leads to `tensors` of the graph.

        Raises:
            Malformed: a part that was reached is damaged, or the graph is too large.
        """
        self._follow(self._scope.nodes, tensors, self._variables)
        while self._to_call:
            call = self._to_call.pop()
            if call not in self._called:
                self._reader.keep()
                self._called.add(call)
                self._enter(*call)

    def _follow(
        self, nodes: Mapping[bytes, memoryview], tensors: Iterable[bytes], variables: Mapping[bytes, Variable]
    ) -> None:
        met: set[bytes] = set()
        to_visit = list(tensors)
        while to_visit:
            name = node_of(to_visit.pop())
            if name in met or name not in nodes:
                continue
            met.add(name)
            node = read_node(self._reader, nodes[name])
            self._inspect(node, variables)
            if node.operation != FED:
                to_visit += node.inputs

    def _inspect(self, node: Node, variables: Mapping[bytes, Variable]) -> None:
        inputs = enumerate(map(node_of, node.data_inputs))
        given = tuple((index, variables[name]) for index, name in inputs if name in variables)
        if not given or node.operation in CHECKS:
            return
        if node.operation in CALLS:
            self._call(node, given)
            return
        for _, variable in given:
            is_read = variable.is_reference and node.operation == b"Identity"
            (self._read if is_read or node.operation in READS else self._spared).add(variable.name)

    def _call(self, node: Node, given: Given) -> None:
        functions = [attribute for attribute in node.attributes if attribute[0] in CALLED]
        for reference in references(self._reader, functions):
            if reference.is_function:
                self._to_call.append((bytes(reference.data), given))

    def _enter(self, function: bytes, given: Given) -> None:
        bodies = self._scope.functions.get(function, [])
        arguments = read_header(self._reader, bodies[0]).arguments if len(bodies) == 1 else ()
        if any(index >= len(arguments) for index, _ in given):
            self._spare(given)
            return
        nodes = {_name(self._reader, data): data for data in body_nodes(self._reader, bodies[0])}
        variables = {arguments[index]: variable for index, variable in given}
        self._follow(nodes, _ends(self._reader, bodies[0]), variables)

    def _spare(self, given: Given) -> None:
        self._spared.update(variable.name for _, variable in given)


def _ends(reader: Reader, function: memoryview) -> list[bytes]:
    """Return the tensors that a function returns, and the nodes that it runs for what they do."""
    ends = []
    for field in reader.fields(function):
        if field.number in {FunctionDef.RET, FunctionDef.CONTROL_RET}:
            entry = reader.fields(field.message())
            ends += [bytes(part.message()) for part in entry if part.number == MapEntry.VALUE]
    return ends


def _name(reader: Reader, node: memoryview) -> bytes:
    return _part(reader, node, NodeDef.NAME)


def _operation(reader: Reader, node: memoryview) -> bytes:
    return _part(reader, node, NodeDef.OP)


def _part(reader: Reader, node: memoryview, number: int) -> bytes:
    return next((bytes(field.message()) for field in reader.fields(node) if field.number == number), b"")
