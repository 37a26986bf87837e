"""Real SavedModels pass, and every way of breaking them is refused with its reason."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures_models import KINDS
from servesync.errors import Reason, ReleaseRefused
from servesync.verify import verify_structure, verify_tensors

INDEX = "variables/variables.index"
SHARD = "variables/variables.data-00000-of-00001"


@pytest.fixture
def model(real_models: Path, tmp_path: Path) -> Path:
    """A copy of a plain model, to be broken."""
    return copy_of(real_models, "plain_module", tmp_path)


def copy_of(real_models: Path, kind: str, folder: Path) -> Path:
    """Return a fresh copy of one kind."""
    return Path(shutil.copytree(real_models / kind, folder / kind, dirs_exist_ok=True))


def refusal(root: Path) -> Reason | None:
    """Return why a model is refused at the level checksum; None if it is good."""
    try:
        verify_structure(root)
        verify_tensors(root)
    except ReleaseRefused as error:
        return error.reason
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_what_tensorflow_wrote_is_good(kind: str, real_models: Path) -> None:
    """Every kind passes, and every CRC that we compute is the one that TensorFlow stored."""
    facts = verify_structure(real_models / kind)
    proof = verify_tensors(real_models / kind)

    assert proof.tensors == facts.tensors
    assert proof.bytes == facts.tensor_bytes
    assert (facts.tensors > 0) == (kind != "without_variables")
    assert (facts.shards == 2) == (kind == "several_shards")
    assert "serving_default" in facts.signatures


@pytest.mark.parametrize(
    ("victim", "reason"),
    [
        ("saved_model.pb", Reason.SAVED_MODEL_MISSING),
        (INDEX, Reason.VARIABLES_MISSING),
        (SHARD, Reason.VARIABLES_SHARD_MISSING),
    ],
)
def test_a_missing_file(victim: str, reason: Reason, model: Path) -> None:
    """Each file that the server needs is missed."""
    (model / victim).unlink()

    assert refusal(model) is reason


def test_all_variables_missing(model: Path) -> None:
    """The case in which the server says AVAILABLE and then fails every request."""
    shutil.rmtree(model / "variables")

    assert refusal(model) is Reason.VARIABLES_MISSING


def test_only_text_form(model: Path) -> None:
    """A saved_model.pbtxt instead is refused by name."""
    (model / "saved_model.pb").rename(model / "saved_model.pbtxt")

    with pytest.raises(ReleaseRefused, match="pbtxt"):
        verify_structure(model)


@pytest.mark.parametrize("size", [0, 1, 100, -1])
@pytest.mark.parametrize(
    ("victim", "reason"),
    [
        ("saved_model.pb", Reason.SAVED_MODEL_CORRUPT),
        (INDEX, Reason.VARIABLES_INDEX_CORRUPT),
        (SHARD, Reason.VARIABLES_SHARD_SIZE),
    ],
)
def test_a_cut_file(victim: str, reason: Reason, size: int, model: Path) -> None:
    """Cut anywhere, also by the last byte alone."""
    path = model / victim
    data = path.read_bytes()
    path.write_bytes(data[:size])

    assert refusal(model) is reason


@pytest.mark.parametrize(
    ("victim", "reason"), [(INDEX, Reason.VARIABLES_INDEX_CORRUPT), (SHARD, Reason.VARIABLES_SHARD_SIZE)]
)
def test_a_file_that_goes_on(victim: str, reason: Reason, model: Path) -> None:
    """Bytes that no tensor and no block covers are refused, not ignored."""
    with (model / victim).open("ab") as file:
        file.write(b"\0")

    assert refusal(model) is reason


def test_a_shard_of_another_checkpoint(model: Path) -> None:
    """A data file that the index does not name is refused, and named."""
    shutil.copy(model / SHARD, model / "variables/variables.data-00001-of-00002")

    with pytest.raises(ReleaseRefused, match=r"does not name: variables\.data-00001-of-00002;") as caught:
        verify_structure(model)
    assert caught.value.reason is Reason.VARIABLES_SHARD_MISSING
    assert caught.value.facts["files"] == ["variables.data-00001-of-00002"]


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        (SHARD, r"missing: variables\.data-00000-of-00001; there are variables\.data-00001-of-00002 instead"),
        (INDEX, r"no variables/variables\.index beside .*00000-of-00001, variables\.data-00001-of-00002:"),
    ],
)
def test_shards_of_two_exports(lost: str, expected: str, model: Path) -> None:
    """What is missing, and what is there instead, each by its name."""
    (model / SHARD).with_name("variables.data-00001-of-00002").touch()
    (model / lost).unlink()

    with pytest.raises(ReleaseRefused, match=expected):
        verify_structure(model)


def test_shards_beside_a_graph_that_restores_nothing(real_models: Path, tmp_path: Path) -> None:
    """They are what is left of another export, and the message does not speak of variables of this one."""
    model = copy_of(real_models, "without_variables", tmp_path)
    (model / SHARD).parent.mkdir(exist_ok=True)
    (model / SHARD).touch()

    with pytest.raises(ReleaseRefused, match=r"restores nothing beside variables\.data-00000") as caught:
        verify_structure(model)
    assert caught.value.reason is Reason.VARIABLES_MISSING


def test_another_tag(model: Path) -> None:
    """The server loads exactly the tag `serve`."""
    path = model / "saved_model.pb"
    data = path.read_bytes()
    assert data.count(b"\x05serve") >= 1
    path.write_bytes(data.replace(b"\x22\x05serve", b"\x22\x05train", 1))

    assert refusal(model) is Reason.SAVED_MODEL_NO_SERVE_TAG


def test_an_html_page_instead_of_a_graph(model: Path) -> None:
    """What a captive portal sends does not parse."""
    (model / "saved_model.pb").write_text("<html><body>Please log in</body></html>")

    assert refusal(model) is Reason.SAVED_MODEL_CORRUPT


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "without_variables"])
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_flipped_bit(kind: str, data: st.DataObject, real_models: Path, tmp_path: Path) -> None:
    """A single flipped bit in the index or in any shard is always refused, with a reason that fits."""
    model = copy_of(real_models, kind, tmp_path)
    files = sorted((model / "variables").iterdir())
    victim = data.draw(st.sampled_from(files))
    content = bytearray(victim.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    victim.write_bytes(content)

    expected = Reason.VARIABLES_INDEX_CORRUPT if victim.suffix == ".index" else Reason.TENSOR_CHECKSUM
    assert refusal(model) is expected


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_mutation_of_the_graph_or_index_does_more_than_refuse(
    data: st.DataObject, real_models: Path, tmp_path: Path
) -> None:
    """Random edits of hostile kind end in a refusal or in a good model, never in another exception."""
    model = copy_of(real_models, data.draw(st.sampled_from(KINDS)), tmp_path)
    files = [path for path in (model / "saved_model.pb", model / INDEX) if path.exists()]
    victim = data.draw(st.sampled_from(files))
    content = bytearray(victim.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=12))
    victim.write_bytes(content)

    assert refusal(model) in {None, *Reason}
