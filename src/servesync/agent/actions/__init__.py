"""The small effects of the deciding thread: each is a rename and a record, with its arguments spelled out."""

from servesync.agent.actions.arrive import install, repair, restore, set_aside, take_over
from servesync.agent.actions.leave import prune, quarantine, step_aside

__all__ = [
    "install",
    "prune",
    "quarantine",
    "repair",
    "restore",
    "set_aside",
    "step_aside",
    "take_over",
]
