"""The shelf and the workspace: what lies on disk, and the one way onto the shelf."""

from servesync.install.content import hash_tree, prove_staged
from servesync.install.host_cache import HostCache
from servesync.install.interrupted import Interrupted, interrupted
from servesync.install.inventory import Checked, Inventory
from servesync.install.lock import Lock, lock_holder
from servesync.install.pieces import (
    PieceTable,
    PlacedPiece,
    keep_pieces,
    piece_tables,
    sweep_pieces,
    write_staged,
)
from servesync.install.positions import Position, Positions
from servesync.install.proof import Proven, seal
from servesync.install.records import Record, Unreadable
from servesync.install.refusals import Refusals
from servesync.install.reserve import Leaving, Reserve, awaited_back
from servesync.install.shelf import Shelf
from servesync.install.workspace import Workspace

__all__ = [
    "Checked",
    "HostCache",
    "Interrupted",
    "Inventory",
    "Leaving",
    "Lock",
    "PieceTable",
    "PlacedPiece",
    "Position",
    "Positions",
    "Proven",
    "Record",
    "Refusals",
    "Reserve",
    "Shelf",
    "Unreadable",
    "Workspace",
    "awaited_back",
    "hash_tree",
    "interrupted",
    "keep_pieces",
    "lock_holder",
    "piece_tables",
    "prove_staged",
    "seal",
    "sweep_pieces",
    "write_staged",
]
