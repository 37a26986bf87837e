"""The trial by request against the server: it refuses no model that answers its real clients."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures_models import KINDS
from servesync.domain.methods import Method
from servesync.domain.versions import Model, Version
from servesync.serving.rest import ModelServer as Rest
from servesync.verify import read_signatures
from servesync.verify.live import Outcome
from trial_scene import served, tried

CLIENT_KINDS = [
    "images",
    "examples",
    "ragged",
    "two_inputs",
    "two_signatures",
    "fixed_batch",
    "any_rank",
    "unit_length",
    "convolution",
    "checked",
    "strings",
]
EXAMPLE_KINDS = [
    "classify",
    "classify_with_defaults",
    "regress",
    "regress_with_defaults",
    "scores_only",
    "labels_only",
    "estimator",
    "many_features",
    "old_parser",
    "hidden_features",
    "classify_of_numbers",
    "strict",
    "with_golden",
]
SOUND = [*KINDS, *CLIENT_KINDS, *EXAMPLE_KINDS, "vocabulary_layer", "line"]


@pytest.fixture(scope="module")
def folders(
    real_models: Path, unsafe_models: Path, client_models: Path, example_models: Path, exported: Path
) -> dict[str, Path]:
    """Where each kind lies."""
    return (
        {kind: real_models / kind for kind in KINDS}
        | {kind: client_models / kind for kind in CLIENT_KINDS}
        | {kind: example_models / kind for kind in EXAMPLE_KINDS}
        | {"vocabulary_layer": unsafe_models / "vocabulary_layer", "line": exported / "1"}
    )


@pytest.fixture(scope="module")
def server(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    """One server with all kinds, each as versions 1 and 2 of a model."""
    models = {kind: {1: place, 2: place} for kind, place in folders.items()}
    with served(tmp_path_factory.mktemp("kinds"), models) as running:
        yield running.rest


@pytest.mark.parametrize("against", [None, 1], ids=["alone", "beside_an_old_one"])
@pytest.mark.parametrize("kind", SOUND)
def test_no_sound_model_is_refused(
    kind: str, against: int | None, server: Rest, folders: dict[str, Path]
) -> None:
    """Whether the request made from its signature fits it or not."""
    report = tried(server, kind, folders[kind], against)

    assert report.judgement.outcome is Outcome.GOOD, report.judgement.text
    assert report.requests >= 1, report.judgement.text


@pytest.mark.parametrize("kind", [*CLIENT_KINDS, *EXAMPLE_KINDS])
def test_a_model_that_is_stricter_than_the_one_before_is_not_refused(
    kind: str, server: Rest, folders: dict[str, Path]
) -> None:
    """The old version of another kind answers what the new one may rightly reject."""

    class Lenient:
        """Gives numbers where the old version is asked."""

        def ask(
            self, model: Model, version: Version, request: tuple[Method, bytes], *more: object
        ) -> tuple[int, bytes]:
            """Answer everything for version 1."""
            if version != Version(1):
                return server.ask(model, version, request, *more)  # type: ignore[arg-type]
            return 200, {
                Method.PREDICT: b'{"outputs": 1.0}',
                Method.CLASSIFY: b'{"results": [[["no", 1.0], ["yes", 0.0]]]}',
                Method.REGRESS: b'{"results": [1.0]}',
            }[request[0]]

    report = tried(Lenient(), kind, folders[kind])  # type: ignore[arg-type]

    assert report.judgement.outcome is Outcome.GOOD, report.judgement.text


def test_every_signature_that_clients_need_is_asked(server: Rest, folders: dict[str, Path]) -> None:
    """Each by its own method; only the predict request, which holds an empty string, is rejected."""
    signatures = read_signatures(folders["estimator"])

    report = tried(server, "estimator", folders["estimator"], required=signatures)

    assert (report.judgement.outcome, report.requests) == (Outcome.GOOD, 3)
    assert "has answered 3 requests" in report.judgement.text
    assert report.judgement.text.count("HTTP") == 1
    assert "the request made from signature 'predict': HTTP 400" in report.judgement.text


def test_with_golden_only_nothing_is_made_up(server: Rest, folders: dict[str, Path]) -> None:
    """`serving.smoke: golden`: a version without golden requests is not asked."""
    report = tried(server, "line", folders["line"], None, only_golden=True)

    assert (report.judgement.outcome, report.requests) == (Outcome.GOOD, 0)
    assert "no golden requests" in report.judgement.text
