"""What the running agent shows: probes, metrics, its status for programs, and a page for people.

The deciding thread and its jobs write to `AgentStatus`; everything else in this package only reads it.
"""

from servesync.admin.agent_status import AgentStatus, Counting
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
    "AgentStatus",
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
