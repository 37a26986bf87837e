"""TensorFlow and we read the same from a checkpoint, and refuse the same damage."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import pytest

import bundle_writer as w
from fixtures_models import KINDS
from servesync.errors import Reason, ReleaseRefused
from servesync.verify import proto, verify_structure, verify_tensors
from servesync.verify.bundle import Tensor, shard_name
from servesync.verify.slices import read_slice, slice_key
from servesync.verify.structure import read_index
from servesync.verify.table import entries
from servesync.wire import BYTES, fields

WITH_VARIABLES = [kind for kind in KINDS if kind != "without_variables"]
CUT = ["partitioned", "partitioned_twice"]


@dataclass(frozen=True)
class Damage:
    """A model with one wrong byte, and the tensor that it is in."""

    kind: str
    root: Path
    tensor: Tensor


@dataclass(frozen=True)
class Views:
    """What TensorFlow said of each model, by the model's directory, and of the fields of messages."""

    of: Mapping[Path, dict[str, Any]]
    damages: list[Damage]
    cut: dict[str, Path]
    numbers: Mapping[str, Mapping[str, int]]


def _is_known(kind: type) -> bool:
    """Whether TensorFlow has a message: those of maps are Protocol Buffers' own, others the server's."""
    return kind is not proto.MapEntry and not str(kind.__doc__).startswith("tensorflow.serving.")


OURS = {
    str(kind.__doc__).removesuffix("."): {key: number for key, number in vars(kind).items() if key.isupper()}
    for kind in vars(proto).values()
    if isinstance(kind, type) and _is_known(kind)
}
"""The messages that we read; each has its name in the docstring."""


def test_every_tensor_is_seen_alike(kind: str, real_models: Path, views: Views) -> None:
    """Name, type, number of elements and checksum, in both directions."""
    bundle = read_index(real_models / kind)
    assert bundle is not None
    theirs = views.of[real_models / kind]
    ours = {tensor.name: tensor for tensor in bundle.tensors if not tensor.name.startswith("\0")}
    in_slices = {owner(tensor) for tensor in bundle.tensors if tensor.name.startswith("\0")}

    assert theirs.keys() == ours.keys() | in_slices
    for name, tensor in ours.items():
        seen = (theirs[name]["dtype"], prod(theirs[name]["shape"]), theirs[name]["crc"])
        assert (tensor.dtype, tensor.elements, tensor.crc32c) == seen, name
    for name in in_slices:
        slices = [tensor for tensor in bundle.tensors if owner(tensor) == name]
        assert sum(tensor.elements for tensor in slices) == prod(theirs[name]["shape"])
        assert {tensor.dtype for tensor in slices} == {theirs[name]["dtype"]}


def test_a_wrong_byte_is_refused_where_tensorflow_refuses_it(kind: str, views: Views) -> None:
    """The tensor that we name is the one that TensorFlow cannot read, and the only one."""
    damages = [damage for damage in views.damages if damage.kind == kind]
    assert damages

    for damage in damages:
        with pytest.raises(ReleaseRefused) as caught:
            verify_tensors(damage.root)
        theirs = views.of[damage.root]

        assert caught.value.reason is Reason.TENSOR_CHECKSUM
        assert (caught.value.facts["tensors"], caught.value.facts["offset"]) == (1, damage.tensor.offset)
        errors = {name: tensor["error"] for name, tensor in theirs.items() if "error" in tensor}
        assert errors.keys() == {owner(damage.tensor)}
        assert errors[owner(damage.tensor)].startswith("DataLossError")


@pytest.mark.parametrize("kind", CUT)
@pytest.mark.parametrize("how", ["missing", "unnamed"])
def test_a_lost_slice_is_refused_where_tensorflow_refuses_it(kind: str, how: str, views: Views) -> None:
    """Its entry is gone, or nobody names it and a part of the tensor is stored nowhere."""
    root = views.cut[f"{kind}-{how}"]

    with pytest.raises(ReleaseRefused, match=r"slices? ") as caught:
        verify_structure(root)

    assert caught.value.reason is Reason.VARIABLES_INDEX_CORRUPT
    assert any("error" in tensor for tensor in views.of[root].values())


def test_field_numbers_are_those_of_tensorflow(views: Views) -> None:
    """By the names that the fields have there."""
    theirs = views.numbers

    assert {name: {key: theirs[name].get(key) for key in keys} for name, keys in OURS.items()} == OURS


@pytest.fixture(params=WITH_VARIABLES)
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind of model that has a checkpoint."""
    return str(request.param)


@pytest.fixture(scope="session")
def views(real_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Views:
    """Everything is written first and then read by one process, since it takes seconds to start."""
    folder = tmp_path_factory.mktemp("damaged")
    dice = random.Random(20)
    damages = [
        damaged for kind in WITH_VARIABLES for damaged in _damages(kind, real_models / kind, folder, dice)
    ]
    cut = {
        f"{kind}-{how}": _without_a_slice(
            real_models / kind, folder / f"{kind}-{how}", named=how == "missing"
        )
        for kind in CUT
        for how in ("missing", "unnamed")
    }
    roots = [real_models / kind for kind in WITH_VARIABLES]
    roots += [damage.root for damage in damages] + list(cut.values())
    prefixes = [str(root / "variables/variables") for root in roots]
    script = Path(__file__).parents[1] / "support/tensorflow_view.py"
    done = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps({"checkpoints": prefixes, "messages": list(OURS)}),
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    of = {root: told["checkpoints"][prefix] for root, prefix in zip(roots, prefixes, strict=True)}
    return Views(of, damages, cut, told["messages"])


def owner(tensor: Tensor) -> str:
    """Return the name under which TensorFlow lists a tensor, or the one that it is a slice of."""
    return tensor.name[1:].split("\0")[0] if tensor.name.startswith("\0") else tensor.name


def _damages(kind: str, model: Path, folder: Path, dice: random.Random) -> list[Damage]:
    """Write a copy for each tensor that has bytes, with one bit of one of them wrong."""
    bundle = read_index(model)
    assert bundle is not None
    made = []
    for number, tensor in enumerate(tensor for tensor in bundle.tensors if tensor.size):
        root = folder / f"{kind}-{number}"
        shutil.copytree(model / "variables", root / "variables")
        shard = root / "variables" / shard_name(tensor.shard, bundle.shards)
        content = bytearray(shard.read_bytes())
        content[tensor.offset + dice.randrange(tensor.size)] ^= 1 << dice.randrange(8)
        shard.write_bytes(content)
        made.append(Damage(kind, root, tensor))
    return made


def _without_a_slice(model: Path, root: Path, *, named: bool) -> Path:
    """Write a copy whose index lacks a slice, and also the name of it unless it stays `named`."""
    shutil.copytree(model, root)
    bundle = read_index(model)
    assert bundle is not None
    path = root / "variables/variables.index"
    pairs = dict(entries(memoryview(path.read_bytes())))
    lost = max(key for key in pairs if key.startswith(b"\0"))
    if not named:
        whole = lost[1:].split(b"\0")[0]
        pairs[whole] = _without_the_slice_of(lost, whole, pairs[whole])
    del pairs[lost]
    path.write_bytes(w.table(sorted(pairs.items())))
    return root


def _without_the_slice_of(lost: bytes, whole: bytes, entry: bytes) -> bytes:
    """Return a partitioned tensor's entry without the slice that is stored under the key `lost`."""
    kept = b""
    for field in fields(memoryview(entry)):
        if field.number == 7 and slice_key(whole, read_slice(field.data)) == lost:
            continue
        if field.kind == BYTES:
            kept += w.bytes_field(field.number, bytes(field.data))
        else:
            kept += w.number_field(field.number, field.value)
    assert len(kept) < len(entry)
    return kept
