"""A trial load that hangs holds up no cancel, and leaves no process."""

import threading
from pathlib import Path

import psutil
import pytest

import archives as a
from servesync.errors import Stopped, SyncError
from servesync.transfer.transfer import TransferOrder
from servesync.verify import Expectations
from transfer_box import Context, TransferBox


@pytest.mark.slow
def test_a_cancel_ends_a_trial_that_hangs(tf1_models: Path, tmp_path: Path) -> None:
    """The process is killed, and the staging is gone."""
    out = tf1_models / "hanging"
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    box = TransferBox(tmp_path, verify={"level": "load"})
    order = TransferOrder(box.archive(a.tar_gz(files)), Expectations())
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    context, errors = Context(), list[SyncError]()

    def run() -> None:
        try:
            box.transfers.run(order, context)
        except SyncError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not (trials := _started_since(before)) and thread.is_alive():
        thread.join(0.1)
    context.cancel()
    thread.join(30)

    assert trials
    assert [type(error) for error in errors] == [Stopped]
    assert not _started_since(before)
    assert box.left() == []
    assert box.transfers.trial.acquire(blocking=False)


def _started_since(before: set[int]) -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
