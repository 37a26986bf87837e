"""Checks the structure of a SavedModel: a graph with the tag `serve`, its variables and its assets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servesync.errors import Reason, ReleaseRefused
from servesync.verify.asset_files import check_asset_files
from servesync.verify.bundle import Bundle, read_bundle, shard_name
from servesync.verify.deeper import model_below
from servesync.verify.initialization import uninitialized_variables
from servesync.verify.pointers import check_pointers, refuse_lookalike
from servesync.verify.restored import restored_names
from servesync.verify.saved_model import SERVE, Graph, opened, read_graphs
from servesync.wire import Malformed, fields

GRAPH: Final = "saved_model.pb"
DEBUG_INFO: Final = "debug/saved_model_debug_info.pb"
INDEX: Final = "variables/variables.index"
AGAIN: Final = "export the model again and publish it under a new number"
DATA: Final = "variables.data-"
"""How the names of data files begin, also of one that an export left half-written."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts about a version whose structure is right. Sizes are in bytes."""

    tensors: int
    shards: int
    tensor_bytes: int
    signatures: tuple[str, ...]
    tensorflow_version: str


def verify_structure(root: Path) -> ModelFacts:
    """Return the facts of the SavedModel in `root`.

    Raises:
        ReleaseRefused: the server would not load it, or would load it and then fail every request.
        OSError: a file cannot be read.
    """
    graph = serving_graph(root)
    check_pointers(root)
    check_asset_files(root, graph.assets, AGAIN)
    _check_debug_info(root)
    bundle = read_index(root)
    if bundle is None:
        _check_nothing_to_restore(root, graph)
    if graph.has_variables:
        _check_initialized(root)
    if bundle is None:
        return ModelFacts(0, 0, 0, graph.signatures, graph.tensorflow_version)
    _check_shards(root, bundle)
    _check_names(root, bundle)
    return ModelFacts(
        len(bundle.tensors), bundle.shards, bundle.tensor_bytes, graph.signatures, graph.tensorflow_version
    )


def serving_graph(root: Path) -> Graph:
    """Return the graph of the SavedModel in `root` that the server loads.

    Raises:
        ReleaseRefused: there is no such graph, or the file is damaged.
        OSError: the file cannot be read.
    """
    path = root / GRAPH
    if not path.is_file():
        other = next(
            (name for name in ("saved_model.pbtxt", "saved_model.cpb") if (root / name).exists()), ""
        )
        found = f" (there is a {other}, which servesync cannot verify)" if other else ""
        deeper = model_below(root)
        advice = f"the model lies deeper, in {deeper!a}: give that directory" if deeper else AGAIN
        text = f"there is no saved_model.pb{found}; {advice}"
        raise ReleaseRefused(Reason.SAVED_MODEL_MISSING, text)
    refuse_lookalike(path, "saved_model.pb", Reason.SAVED_MODEL_CORRUPT)
    try:
        with opened(path) as data:
            graphs = read_graphs(data)
    except Malformed as error:
        text = f"saved_model.pb is damaged: {error}; {AGAIN}"
        raise ReleaseRefused(Reason.SAVED_MODEL_CORRUPT, text) from error
    serving = [graph for graph in graphs if graph.tags == SERVE]
    if not serving:
        tags = ", ".join(str(sorted(graph.tags)) for graph in graphs[:5]) or "none"
        text = f"no graph in saved_model.pb has exactly the tag 'serve' (found: {tags[:300]!a}); {AGAIN}"
        raise ReleaseRefused(Reason.SAVED_MODEL_NO_SERVE_TAG, text)
    return serving[0]


def read_index(root: Path) -> Bundle | None:
    """Return the index of a version's variables; None if there is none.

    Raises:
        ReleaseRefused: `VARIABLES_INDEX_CORRUPT`.
    """
    path = root / INDEX
    if not path.is_file():
        return None
    refuse_lookalike(path, INDEX, Reason.VARIABLES_INDEX_CORRUPT)
    try:
        with opened(path) as data:
            return read_bundle(data)
    except Malformed as error:
        text = f"{INDEX} is damaged: {error}; {AGAIN}"
        raise ReleaseRefused(Reason.VARIABLES_INDEX_CORRUPT, text) from error


def bundle_extents(root: Path) -> dict[str, list[tuple[str, int, int]]]:
    """Return each data file's tensors in their order (name, offset, size in bytes), by the file's path.

    Raises:
        ReleaseRefused: `VARIABLES_INDEX_CORRUPT`.
    """
    found: dict[str, list[tuple[str, int, int]]] = {}
    bundle = read_index(root)
    for tensor in bundle.tensors if bundle else ():
        path = f"variables/{shard_name(tensor.shard, bundle.shards if bundle else 0)}"
        found.setdefault(path, []).append((tensor.name, tensor.offset, tensor.size))
    return found


def _check_debug_info(root: Path) -> None:
    """Make sure that the server can parse the file of stack traces, which it reads if it is there."""
    path = root / DEBUG_INFO
    if not path.is_file() or not path.stat().st_size:
        return
    try:
        with opened(path) as data:
            for _ in fields(data):
                pass
    except Malformed as error:
        text = (
            f"{DEBUG_INFO} is damaged: {error}: the server reads it, and would not load the version; delete "
            f"the file, which nothing needs, or {AGAIN}"
        )
        raise ReleaseRefused(Reason.SAVED_MODEL_CORRUPT, text) from error


def _check_nothing_to_restore(root: Path, graph: Graph) -> None:
    """Make sure that a version without an index needs none."""
    shards = _shards(root)
    if not (graph.restores or shards):
        return
    if graph.restores:
        what = f"the graph restores its variables, but there is no {INDEX}"
        so = "the server would load it and then fail every request"
    else:
        what = f"there is no {INDEX}, and the graph restores nothing"
        so = "the data files are left over from another export"
    beside = f" beside {_few(shards)}" if shards else ""
    raise ReleaseRefused(Reason.VARIABLES_MISSING, f"{what}{beside}: {so}; {AGAIN}", files=shards[:5])


def _check_initialized(root: Path) -> None:
    """Make sure that the server sets all variables that requests read before it serves."""
    try:
        unset = uninitialized_variables(root / GRAPH)
    except Malformed as error:
        text = f"{GRAPH} is damaged: {error}; {AGAIN}"
        raise ReleaseRefused(Reason.SAVED_MODEL_CORRUPT, text) from error
    if unset.variables:
        text = (
            f"neither the saver nor the init op sets the variables {_few(unset.variables)}: the server would "
            f"load the version and then fail every request of the signature {unset.signature[:200]!a}, "
            f"though Python's TensorFlow may answer; export it again (a Keras model with model.export(), a "
            f"graph of TensorFlow 1 with a main_op for its local variables) and publish it under a new number"
        )
        raise ReleaseRefused(Reason.VARIABLES_MISSING, text)


def _check_names(root: Path, bundle: Bundle) -> None:
    """Make sure that the index has every tensor that the graph restores."""
    try:
        wanted = restored_names(root / GRAPH)
    except Malformed as error:
        text = f"{GRAPH} is damaged: {error}; {AGAIN}"
        raise ReleaseRefused(Reason.SAVED_MODEL_CORRUPT, text) from error
    missing = sorted(wanted - {tensor.name for tensor in bundle.tensors} - set(bundle.partitioned))
    if missing:
        text = (
            f"the graph restores tensors that {INDEX} does not have: {_few(missing)}: {GRAPH} and variables/ "
            f"are of different exports, and the server would not load the version; {AGAIN}"
        )
        raise ReleaseRefused(Reason.VARIABLES_MISSING, text)


def _shards(root: Path) -> list[str]:
    """Return the names of all data files, whichever export they are of."""
    folder = root / "variables"
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(DATA))


def _check_shards(root: Path, bundle: Bundle) -> None:
    """Compare the shards that the index implies with those that are there, in both directions."""
    expected = {shard_name(number, bundle.shards): size for number, size in enumerate(bundle.shard_sizes())}
    found = {name: (root / "variables" / name).stat().st_size for name in _shards(root)}
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    if missing:
        beside = f"; there are {_few(extra)} instead, which it does not name" if extra else ""
        text = f"{INDEX} names data files that are missing: {_few(missing)}{beside}; {AGAIN}"
        raise ReleaseRefused(Reason.VARIABLES_SHARD_MISSING, text, files=missing[:5])
    if extra:
        text = (
            f"variables/ holds data files that {INDEX} does not name: {_few(extra)}; either they are left "
            f"from an earlier export, or the index is: remove what is not of this export, or export into an "
            f"empty directory, and publish under a new number"
        )
        raise ReleaseRefused(Reason.VARIABLES_SHARD_MISSING, text, files=extra[:5])
    wrong = [name for name in sorted(expected) if expected[name] != found[name]]
    if wrong:
        refuse_lookalike(root / "variables" / wrong[0], f"variables/{wrong[0]}", Reason.VARIABLES_SHARD_SIZE)
        details = _few([f"{name} has {found[name]} bytes, not {expected[name]}" for name in wrong])
        raise ReleaseRefused(
            Reason.VARIABLES_SHARD_SIZE, f"the data does not fit the index: {details}; {AGAIN}"
        )


def _few(names: list[str]) -> str:
    """Return some of the names, escaped."""
    shown = ", ".join(ascii(name)[1:-1] for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown or "none"  # noqa: PLR2004
