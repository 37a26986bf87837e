"""The structure of a SavedModel: the graph parses, has the serve tag, and all its variables are there."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servesync.errors import Reason, ReleaseRefused
from servesync.verify.bundle import Bundle, read_bundle, shard_name
from servesync.verify.pointers import check_pointers, refuse_lookalike
from servesync.verify.saved_model import SERVE, Graph, opened, read_graphs
from servesync.verify.wire import Malformed

INDEX: Final = "variables/variables.index"
AGAIN: Final = "export the model again and publish it under a new number"
_SHARD: Final = re.compile(r"variables\.data-\d{5}-of-\d{5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a version whose structure is right. Sizes are bytes."""

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
    check_pointers(root)
    graph = serving_graph(root)
    bundle = read_index(root)
    if bundle is None:
        if graph.restores or graph.has_variables or _has_shards(root):
            text = (
                f"the graph has variables, but there is no {INDEX}: the server would load it and then fail "
                f"every request; {AGAIN}"
            )
            raise ReleaseRefused(Reason.VARIABLES_MISSING, text)
        return ModelFacts(0, 0, 0, graph.signatures, graph.tensorflow_version)
    _check_shards(root, bundle)
    return ModelFacts(
        len(bundle.tensors), bundle.shards, bundle.tensor_bytes, graph.signatures, graph.tensorflow_version
    )


def serving_graph(root: Path) -> Graph:
    """Return the graph of the SavedModel in `root` that the server loads.

    Raises:
        ReleaseRefused: there is no such graph, or the file is damaged.
        OSError: the file cannot be read.
    """
    path = root / "saved_model.pb"
    if not path.is_file():
        other = next(
            (name for name in ("saved_model.pbtxt", "saved_model.cpb") if (root / name).exists()), ""
        )
        found = f" (there is a {other}, which servesync cannot prove)" if other else ""
        text = f"there is no saved_model.pb{found}; {AGAIN}"
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
    """Return name, offset and size (bytes) of every tensor in each data file, by the file's path, in order.

    Raises:
        ReleaseRefused: `VARIABLES_INDEX_CORRUPT`.
    """
    found: dict[str, list[tuple[str, int, int]]] = {}
    bundle = read_index(root)
    for tensor in bundle.tensors if bundle else ():
        path = f"variables/{shard_name(tensor.shard, bundle.shards if bundle else 0)}"
        found.setdefault(path, []).append((tensor.name, tensor.offset, tensor.size))
    return found


def _has_shards(root: Path) -> bool:
    folder = root / "variables"
    return folder.is_dir() and any(_SHARD.fullmatch(path.name) for path in folder.iterdir())


def _check_shards(root: Path, bundle: Bundle) -> None:
    """Compare the shards that the index implies with those that are there, in both directions."""
    folder = root / "variables"
    expected = {shard_name(number, bundle.shards): size for number, size in enumerate(bundle.shard_sizes())}
    found = {
        path.name: path.stat().st_size for path in folder.iterdir() if path.name.startswith("variables.data-")
    }
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    if missing or extra:
        wrong_names = f"missing: {_few(missing)}; not named: {_few(extra)}"
        text = f"{INDEX} names {bundle.shards} data files; {wrong_names}; {AGAIN}"
        raise ReleaseRefused(Reason.VARIABLES_SHARD_MISSING, text)
    wrong = [name for name in sorted(expected) if expected[name] != found[name]]
    if wrong:
        refuse_lookalike(folder / wrong[0], f"variables/{wrong[0]}", Reason.VARIABLES_SHARD_SIZE)
        details = _few([f"{name} has {found[name]} bytes, not {expected[name]}" for name in wrong])
        raise ReleaseRefused(
            Reason.VARIABLES_SHARD_SIZE, f"the data does not fit the index: {details}; {AGAIN}"
        )


def _few(names: list[str]) -> str:
    """Return some of the names, escaped."""
    shown = ", ".join(ascii(name)[1:-1] for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown or "none"  # noqa: PLR2004
