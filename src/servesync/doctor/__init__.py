"""`servesync doctor`: examines all that the agent depends on, says what is wrong, and what to do about it.

It changes nothing that lasts, takes no lock, and may run beside an agent at any time.
"""

from servesync.doctor.examine import examine
from servesync.doctor.findings import Check, Finding, Level

__all__ = ["Check", "Finding", "Level", "examine"]
