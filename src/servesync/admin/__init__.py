"""What the running agent shows: probes, metrics, its status for programs, and a page for people.

The deciding thread and its jobs write to the `Board` and go on; everything else here only reads from it.
"""

from servesync.admin.board import Board, Counting
from servesync.admin.metrics import Stage
from servesync.admin.snapshot import (
    DiskSpace,
    HeldVersion,
    MemoryBudget,
    ModelStatus,
    OnDisk,
    ServerStatus,
    Snapshot,
    StoreStatus,
    Trouble,
    VersionStatus,
)

__all__ = [
    "Board",
    "Counting",
    "DiskSpace",
    "HeldVersion",
    "MemoryBudget",
    "ModelStatus",
    "OnDisk",
    "ServerStatus",
    "Snapshot",
    "Stage",
    "StoreStatus",
    "Trouble",
    "VersionStatus",
]
