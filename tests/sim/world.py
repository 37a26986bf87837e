"""A world of one model: a store, a shelf, a server, and time that passes only when a test lets it.

The shelf is changed by the planner's actions, carried out as the executor does, and by whoever meddles. Each
action is judged on the spot; `Broken` is raised when it breaks a guarantee.
"""

from dataclasses import dataclass, field, replace
from typing import Final

from servesync.errors import Reason, ReleaseRefused, StoreError, SyncError
from servesync.plan.facts import Action, Latest, ModelPlan, Policy, ServerPolicy
from servesync.plan.planner import plan
from servesync.plan.versions import Version
from sim.eyes import NAME, Eyes
from sim.judge import judge_arrival, judge_departure, judge_outcome, judge_prune
from sim.server import Bytes, Loads, Server
from sim.values import Broken, Item, Release, said

REST_SECONDS: Final = 5.0
FETCH_SECONDS: Final = 1
KEEP_IN_RESERVE: Final = 1
CALM_SECONDS: Final = 20
STUCK_SECONDS: Final = 150
LONGEST_SECONDS: Final = 1500
ARRIVALS: Final = frozenset({"Install", "Repair", "Restore"})


@dataclass
class World:
    """Everything there is. Tests read and change it as the world would, and call `cycle` and `wait`."""

    policy: Policy = field(default_factory=lambda: Latest(1))
    told: ServerPolicy = ServerPolicy.ALL
    has_server: bool = True
    store: dict[Version, Release] = field(default_factory=dict)
    store_answers: bool = True
    listing_is_empty: bool = False
    transfers_break: bool = False
    shelf: dict[Version, Item] = field(default_factory=dict)
    reserve: dict[Version, Item] = field(default_factory=dict)
    refusals: dict[Version, tuple[str, Reason]] = field(default_factory=dict)
    channels: dict[str, Version] = field(default_factory=dict)
    positions: dict[str, Version] = field(default_factory=dict)
    """Where the agent has seen the channels last; on disk."""
    withdrawn: dict[Version, str] = field(default_factory=dict)
    """The identities that were withdrawn."""
    known_withdrawn: set[Version] = field(default_factory=set)
    """What the agent has learnt of that; on disk."""
    now: float = 0.0
    meddled: bool = False
    """Somebody else has changed the shelf since it was last calm: what that takes away is not our doing."""
    trace: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start the server, and an agent."""
        self.server = Server(self.told, self._bytes)
        self.restart_agent()

    def restart_agent(self) -> None:
        """Forget what an agent has only in mind."""
        self._eyes = Eyes(self)

    def wait(self, seconds: int) -> None:
        """Let time pass, in steps of a second.

        Raises:
            Broken: a server that runs has nothing left that answers.
        """
        for _ in range(seconds):
            self.now += 1.0
            before = set(self.server.answering)
            if self.has_server:
                self.server.step(self.now)
            lost = before and not self.server.answering and self.server.is_ready
            if lost and not self.meddled:
                raise Broken(f"nothing answers any more, {sorted(before)} did: {self.trace[-8:]}")

    def cycle(self) -> ModelPlan:
        """Look, plan and act once, as the agent does; return the plan."""
        made = plan(self._eyes.facts())
        for version, item in self.reserve.items() if made.served else ():
            if item.returning and version not in made.wanted:
                self.reserve[version] = replace(item, returning=False, tries=0, confirmed=False)
        if made.actions:
            names = [f"{type(action).__name__} {action.version}" for action in made.actions]
            self.trace.append(f"{self.now:g}: {', '.join(names)}")
        arrivals = [action for action in made.actions if type(action).__name__ in ARRIVALS]
        for action in made.actions:
            if action not in arrivals:
                self.act(action)
        for action in arrivals[:1]:
            self.act(action)
        return made

    def calm_down(self) -> None:
        """End every fault, let the agent work until nothing happens any more, and check what it came to.

        Raises:
            Broken: it never comes to rest, or not to what is wanted.
        """
        self.store_answers, self.listing_is_empty, self.transfers_break = True, False, False
        self.server.is_silent = False
        quiet, started = 0, self.now
        while quiet < CALM_SECONDS:
            quiet = quiet + 1 if self._is_idle(self.cycle()) else 0
            self.wait(1)
            if self.is_stuck and self.now > started + STUCK_SECONDS:
                return
            if self.now > started + LONGEST_SECONDS:
                raise Broken(f"no rest after {LONGEST_SECONDS} s: {self.trace[-12:]}")
        judge_outcome(self)
        self.meddled = False

    def _is_idle(self, made: ModelPlan) -> bool:
        busy = self.has_server and self.server.is_busy
        done = all(getattr(action, "overdue", False) for action in made.actions)
        return done and not busy and self._eyes.next_due() is None

    @property
    def is_stuck(self) -> bool:
        """The server dies of what lies on the shelf whenever it starts, and nothing there has ever served.

        Nobody can tell from outside of what it dies. The plan says so in words, and waits for a person or for
        a higher version. So it does with damage that cannot be mended, and with what is not ours.
        """
        stays = any(item.confirmed and item.is_ours and not item.is_damaged for item in self.shelf.values())
        bad = any(
            item.is_damaged or (item.release.loads is not Loads.WELL and not (item.is_ours and stays))
            for item in self.shelf.values()
        )
        return self.has_server and bad and not self.server.is_ready and self.server.crashes > 0

    def _bytes(self) -> dict[Version, Bytes]:
        """Return what the server's scanner sees."""
        return {
            version: Bytes(item.release.identity, Loads.FAILS if item.is_damaged else item.release.loads)
            for version, item in self.shelf.items()
        }

    # -- acting -------------------------------------------------------------------------------------------

    def act(self, action: Action) -> None:
        """Carry out an action as the executor does, after judging it.

        Raises:
            Broken: it must not be done.
        """
        version = action.version
        match type(action).__name__:
            case "Install" | "Repair":
                self._bring(action)
            case "Restore":
                judge_arrival(self, version, self.reserve[version].release.identity)
                self._put(version, self.reserve.pop(version))
            case "Confirm":
                self.shelf[version] = replace(self.shelf[version], confirmed=True, tries=0)
            case "Quarantine" | "Retry" | "Prune" as name:
                self._take_off(action, name)
            case other:
                assert other == "Wait", f"the world knows no {other}"

    def _bring(self, action: Action) -> None:
        version = action.version
        is_repair = type(action).__name__ == "Repair"
        listed = (self._eyes.listing or {})[version]
        judge_arrival(self, version, listed.identity)
        self.wait(FETCH_SECONDS)
        error = self._proof(version, listed, is_repair=is_repair)
        if isinstance(error, ReleaseRefused):
            self.refusals[version] = (listed.identity, error.reason)
            if error.reason is Reason.VERSION_WITHDRAWN:
                self.known_withdrawn.add(version)
        elif error is not None:
            self._eyes.attempts.failed((NAME, version), listed.identity, error, self.now)
        else:
            self._eyes.attempts.succeeded((NAME, version))
            self.refusals.pop(version, None)
            old = self.shelf[version] if is_repair else Item(listed)
            fresh = Item(listed, confirmed=old.confirmed, tries=old.tries)
            self._put(version, fresh, is_repair=is_repair)

    def _proof(self, version: Version, listed: Release, *, is_repair: bool) -> SyncError | None:
        """Return why bringing a release fails, if it does."""
        item = self.shelf.get(version)
        if not self.store_answers:
            return StoreError(Reason.STORE_UNREACHABLE, "down")
        if self.store.get(version) != listed:
            return StoreError(Reason.OBJECT_CHANGED, "not what was listed")
        if self.withdrawn.get(version) == listed.identity:
            return ReleaseRefused(Reason.VERSION_WITHDRAWN, "withdrawn")
        if self.transfers_break:
            return StoreError(Reason.TRANSFER_BROKEN, "reset")
        if not listed.is_sound:
            return ReleaseRefused(Reason.ARCHIVE_CORRUPT, "not sound")
        if item is not None and not is_repair and (item.is_ours or item.release != listed):
            return ReleaseRefused(Reason.VERSION_FOREIGN, "other bytes under this number")
        return None

    def _put(self, version: Version, item: Item, *, is_repair: bool = False) -> None:
        """Make a version visible, with what the server says of its number at this moment."""
        status = self.server.status()
        word = said((status or {}).get(version))
        if status is None and is_repair:
            word = "LOADING"
        self.shelf[version] = replace(item, returning=False, said_before=word)
        self._eyes.waited.pop(version, None)
        self._eyes.unheard.pop(version, None)

    def _take_off(self, action: Action, name: str) -> None:
        version = action.version
        item = judge_departure(self, action)
        rest_seconds = REST_SECONDS
        match name:
            case "Quarantine":
                self.refusals[version] = (item.release.identity, Reason(getattr(action, "reason", "")))
            case "Retry":
                self.reserve[version] = replace(item, tries=item.tries + 1, returning=True)
                rest_seconds *= 4.0**item.tries
            case _:
                judge_prune(self, version)
                self._keep(version, item)
        del self.shelf[version]
        self._eyes.rests_until[version] = self.now + rest_seconds

    def _keep(self, version: Version, item: Item) -> None:
        """Put what leaves by policy into the reserve, from which the oldest gives way."""
        if item.is_damaged or version in self.known_withdrawn:
            return
        self.reserve[version] = replace(item, confirmed=False, tries=0, at=self.now)
        kept = [number for number, there in self.reserve.items() if not there.returning]
        for gone in sorted(kept, key=lambda number: self.reserve[number].at)[:-KEEP_IN_RESERVE]:
            del self.reserve[gone]
