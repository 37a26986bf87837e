"""What real models may do is found, and ordinary ones pass without a word."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures_models import KINDS
from servesync.errors import ReleaseRefused
from servesync.verify import check_operations, find_operations
from servesync.verify.dangerous_ops import (
    ASSET_OPERATIONS,
    DANGEROUS_OPS,
    HARMLESS_IF,
    OF_OTHER_RELEASES,
    SAVER_OPERATIONS,
)
from servesync.verify.operations import MAX_FINDINGS

SIGNATURE = "signature serving_default"
FOUND = {
    "read_file": ("ReadFile", SIGNATURE),
    "read_in_branch": ("ReadFile", SIGNATURE),
    "write_in_called_function": ("WriteFile", SIGNATURE),
    "write_at_init": ("WriteFile", "init op"),
    "python_function": ("EagerPyFunc", SIGNATURE),
    "text_lines": ("TextLineDataset", SIGNATURE),
    "mapped_read": ("ReadFile", SIGNATURE),
    "print_to_file": ("PrintV2", SIGNATURE),
}
HARMLESS = ["print_to_stderr", "unused_function", "vocabulary_layer", "table_in_tf1", "hundred_layers"]


@pytest.mark.parametrize("kind", FOUND)
def test_what_a_model_does_is_found(kind: str, unsafe_models: Path) -> None:
    """The one operation, its danger and its entrance are named, and it can be refused."""
    report = find_operations(unsafe_models / kind)

    assert [(finding.operation, finding.root) for finding in report.findings] == [FOUND[kind]]
    assert report.total == 1
    with pytest.raises(ReleaseRefused, match=FOUND[kind][0]):
        check_operations(report, "refuse")


@pytest.mark.parametrize("kind", HARMLESS)
def test_a_harmless_model_passes(kind: str, unsafe_models: Path) -> None:
    """Nothing is reported of what only looks dangerous."""
    report = find_operations(unsafe_models / kind)

    assert report.findings == ()
    assert report.reachable > 20


@pytest.mark.parametrize("kind", KINDS)
def test_an_ordinary_model_passes(kind: str, real_models: Path) -> None:
    """Variables, assets and savers of all kinds are no danger."""
    report = find_operations(real_models / kind)

    assert report.findings == ()
    assert report.reachable > 0


def test_every_name_is_one_of_tensorflow(made: Path) -> None:
    """The list names what the installed release has, or says of which names it has not."""
    registry = set((made / "operations.txt").read_bytes().split())

    assert len(registry) > 1000
    assert DANGEROUS_OPS.keys() - registry == OF_OTHER_RELEASES
    assert DANGEROUS_OPS.keys() >= SAVER_OPERATIONS | ASSET_OPERATIONS | HARMLESS_IF.keys()


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_mutation_does_more_than_refuse(data: st.DataObject, unsafe_models: Path, tmp_path: Path) -> None:
    """Edits anywhere in a real graph end in a refusal or a report."""
    kind = data.draw(st.sampled_from([*FOUND, "vocabulary_layer", "table_in_tf1"]))
    content = bytearray((unsafe_models / kind / "saved_model.pb").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=8))
    (tmp_path / "saved_model.pb").write_bytes(content)

    try:
        report = find_operations(tmp_path)
    except ReleaseRefused:
        return
    assert len(report.findings) == min(report.total, MAX_FINDINGS)
