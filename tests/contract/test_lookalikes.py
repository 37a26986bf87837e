"""What stands where a model's bytes should be is named for what it is: pointers, and an upload's framing."""

import shutil
from pathlib import Path

import pytest

from agent_box import tar_gz_of
from big_models import files_of
from servesync.errors import Reason, ReleaseRefused
from servesync.publishing import Request, publish_tree, store_at
from servesync.verify import verify_structure, verify_tensors
from unpack_box import UnpackBox

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n"
SIGNATURE = b";chunk-signature=" + b"0a" * 32
INDEX = "variables/variables.index"
SHARD = "variables/variables.data-00000-of-00001"


@pytest.fixture
def model(real_models: Path, tmp_path: Path) -> Path:
    """A copy of a plain model, to be broken."""
    return Path(shutil.copytree(real_models / "plain_module", tmp_path / "model"))


def framed(data: bytes, signature: bytes = SIGNATURE) -> bytes:
    """Return data as it is on the wire in aws-chunked encoding."""
    return b"%x%s\r\n%s\r\n0%s\r\n\r\n" % (len(data), signature, data, signature)


def refusal(root: Path) -> ReleaseRefused:
    """Return why a model is refused."""
    with pytest.raises(ReleaseRefused) as caught:
        verify_structure(root)
    return caught.value


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("saved_model.pb", Reason.SAVED_MODEL_CORRUPT),
        (INDEX, Reason.VARIABLES_INDEX_CORRUPT),
        (SHARD, Reason.VARIABLES_SHARD_SIZE),
        ("assets/words.txt", Reason.RELEASE_INCOMPLETE),
        ("assets.extra/tf_serving_warmup_requests", Reason.RELEASE_INCOMPLETE),
    ],
)
def test_a_git_lfs_pointer_is_named(name: str, reason: Reason, model: Path) -> None:
    """Also in place of an asset, with which the server would load the version and answer nonsense."""
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(POINTER)

    error = refusal(model)

    assert error.reason is reason
    assert name in str(error)
    assert "Git LFS pointer" in str(error)
    assert "git lfs pull" in str(error)


def test_a_pointer_is_not_published(model: Path) -> None:
    """The publisher is told at once; the store is not even asked."""
    (model / SHARD).write_bytes(POINTER)
    nowhere = store_at(url="s3://acme/prod", endpoint_url="http://127.0.0.1:9", region="x")

    with pytest.raises(ReleaseRefused, match="git lfs pull"):
        publish_tree(model, nowhere, Request("m", 1))


@pytest.mark.parametrize("signature", [SIGNATURE, b""], ids=["signed", "unsigned"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("saved_model.pb", Reason.SAVED_MODEL_CORRUPT),
        (INDEX, Reason.VARIABLES_INDEX_CORRUPT),
        (SHARD, Reason.VARIABLES_SHARD_SIZE),
    ],
)
def test_the_framing_of_an_upload_is_named(name: str, reason: Reason, signature: bytes, model: Path) -> None:
    """As a store leaves it in that does not know aws-chunked."""
    (model / name).write_bytes(framed((model / name).read_bytes(), signature))

    error = refusal(model)

    assert error.reason is reason
    assert name in str(error)
    assert "aws-chunked" in str(error)
    assert "upload it again" in str(error)


def test_a_text_may_begin_as_a_frame_does(model: Path) -> None:
    """A vocabulary, with the line ends of Windows."""
    (model / "assets").mkdir(exist_ok=True)
    (model / "assets/words.txt").write_bytes(b"a\r\nbad\r\ncafe\r\n")
    (model / "assets/lfs.md").write_bytes(b"A pointer begins with `" + POINTER[:42] + b"`.\n")

    assert verify_structure(model).tensors > 0
    assert verify_tensors(model).tensors > 0


@pytest.mark.parametrize("signature", [SIGNATURE, b""], ids=["signed", "unsigned"])
def test_an_archive_in_frames_is_named(signature: bytes, model: Path, tmp_path: Path) -> None:
    """Instead of "something unknown"."""
    archive = framed(tar_gz_of(files_of(model), "1"), signature)

    with pytest.raises(ReleaseRefused, match="aws-chunked") as caught:
        UnpackBox(tmp_path / "box").unpack(archive)

    assert caught.value.reason is Reason.ARCHIVE_FORMAT
    assert "upload it again" in str(caught.value)


def test_a_pointer_in_place_of_an_archive_is_named(tmp_path: Path) -> None:
    """A bucket that was filled from a checkout without LFS."""
    with pytest.raises(ReleaseRefused, match="git lfs pull") as caught:
        UnpackBox(tmp_path / "box").unpack(POINTER)

    assert caught.value.reason is Reason.ARCHIVE_FORMAT
