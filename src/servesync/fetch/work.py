"""What a worker does with one part, without the pool's lock: it reads and proves it, and hands it on."""

from servesync.errors import SyncError, internal_error
from servesync.fetch.flow import Lease
from servesync.fetch.reading import prove


def read_part(lease: Lease) -> SyncError | None:
    """Read and prove one part; return what went wrong."""
    piece = lease.piece
    part, buffer = piece.part, lease.buffer
    try:
        if part.length:
            lease.flow.read(part.item, part.offset, part.length, buffer[: part.length], lease.is_over)
            prove(part, buffer, again=piece.differed)
    except SyncError as error:
        return error
    except BaseException as error:  # noqa: BLE001 (a worker must not die in silence)
        return internal_error(error, f"reading {part.item.key!a}")
    return None


def hand_on(lease: Lease) -> SyncError | OSError | None:
    """Hand a part to the sink, range by range; return what went wrong."""
    part, sink = lease.piece.part, lease.flow.sink
    assert sink is not None  # noqa: S101 (else it would be ready now)
    try:
        for proof in part.proofs:
            start = proof.offset - part.offset
            sink(proof, lease.buffer[start : start + proof.size])
    except (SyncError, OSError) as error:
        return error
    except BaseException as error:  # noqa: BLE001 (a worker must not die in silence)
        return internal_error(error, f"taking {part.item.key!a}")
    return None
