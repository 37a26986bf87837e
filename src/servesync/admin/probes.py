"""What the probes answer: yes or no, and what is missing. An outage of the store fails none of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from servesync.admin.agent_status import AgentStatus
from servesync.admin.snapshot import Snapshot, iso
from servesync.domain.versions import Model, Version
from servesync.planning.facts import Served, ServerState

NOT_LOOKED_YET = "the agent has not looked at its models directory yet"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of a probe; `missing` holds one sentence for each thing that keeps it from being a yes."""

    missing: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


class AskServer(Protocol):
    """Asks the model server now, within a second or two."""

    def __call__(self, model: Model, /) -> Mapping[Version, Served] | str:
        """Return what it says of each version of `model`, or why it says nothing."""


def livez(agent_status: AgentStatus) -> Verdict:
    """Whether the deciding thread is at work or asleep, and not silent for too long.

    Jobs do not count here.
    """
    silent, limit = agent_status.silent_seconds, agent_status.stuck_after_seconds
    if silent < limit:
        return Verdict()
    return Verdict((f"the deciding thread has given no sign for {silent:.0f} s (stuck after {limit:.0f})",))


def startupz(seen: Snapshot | None) -> Verdict:
    """Whether every required model has a proven version on the shelf, and the server its models.config."""
    if seen is None:
        return Verdict((NOT_LOOKED_YET,))
    missing = [
        f"{model}: no proven version on disk" + (f" ({item.trouble.text})" if item.trouble else "")
        for model, item in sorted(seen.models.items())
        if item.required and not item.proven
    ]
    if seen.config_file_missing:
        missing.append(seen.config_file_missing)
    return Verdict(tuple(missing))


def draining(since_at: float | None) -> Verdict:
    """Whether nobody has asked for requests to go elsewhere."""
    if since_at is None:
        return Verdict()
    called = "servesync drain was called; a restart of the agent ends that, or DELETE /drain"
    return Verdict((f"draining since {iso(since_at)}: {called}",))


def readyz(seen: Snapshot | None, ask: AskServer) -> Verdict:
    """Like `startupz`; asks the server as well whether it serves a proven version of every required model.

    A version counts once it has answered the trial requests. Where there is no server to ask, a version on
    the shelf is enough.
    """
    started = startupz(seen)
    if seen is None or not started.good or seen.server.url is None:
        return started
    missing: list[str] = []
    for model, item in sorted(seen.models.items()):
        if not item.required:
            continue
        said = ask(model)
        if isinstance(said, str):
            return Verdict((*missing, f"{model}: {said}"))
        tried = {version for version in item.proven if not item.versions[version].untried}
        served = [said[version].state for version in tried & said.keys()]
        if ServerState.AVAILABLE not in served:
            states = ", ".join(f"{version} {one.state.value}" for version, one in sorted(said.items())[:10])
            untried = ", still on trial" if item.proven - tried else ""
            text = f"the server serves no proven version ({states or 'it lists none'}{untried})"
            missing.append(f"{model}: {text}")
    return Verdict(tuple(missing))
