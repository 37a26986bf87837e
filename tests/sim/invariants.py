"""What must hold in the simulated world, decided from what is true there, not from what an agent knows."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from servesync.domain.versions import Model, Version
from servesync.errors import Reason
from servesync.planning.facts import Everything, Follow, Latest, Pin, Policy, ServerPolicy
from sim.contents import Contents, Loads
from sim.shelves import Broken, Eye, Item, Shelf

if TYPE_CHECKING:
    from sim.world import World

NOTHING: Final = Shelf()
MOST_IN_STAGING: Final = 8
OUTSIDE: Final = frozenset({"models"})


@dataclass
class Invariants:
    """Looks at the disk after every step, and compares with what there was before."""

    world: "World"
    damaged: set[tuple[Model, Version, int]] = field(default_factory=set)
    """What somebody has damaged: by model, number, and inode of the folder."""

    foreign: dict[tuple[Model, Version], int] = field(default_factory=dict)
    """The inodes of folders that somebody else has put there."""

    checks: Counter[str] = field(default_factory=Counter)
    """How often each guarantee was looked at."""

    _last: dict[str, Shelf] = field(default_factory=dict)
    _answering: dict[str, set[Version]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Look at the world's directory from now on."""
        self._eye = Eye(self.world.models_dir)

    # -- what is there ------------------------------------------------------------------------------------

    @property
    def models(self) -> list[str]:
        """All models that have a folder, or had one, or are asked for."""
        folder = self.world.models_dir
        found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        return sorted(
            name for name in found | self.world.models.keys() | self._last.keys() if not name.startswith(".")
        )

    def now(self, model: str) -> Shelf:
        """Return what lies on the shelf of a model."""
        return self._eye.shelf(Model(model))

    def put(self, model: str, number: int) -> None:
        """Take note of a version that somebody else has put there."""
        key = (Model(model), Version(number))
        self.foreign[key] = (self.world.models_dir / model / str(number)).stat().st_ino
        self._last[model] = self.now(model)

    def forget(self, model: str, number: int | None = None) -> None:
        """Take note of what somebody else has removed."""
        for key in [key for key in self.foreign if key[0] == model and number in (None, int(key[1]))]:
            del self.foreign[key]
        self._last[model] = self.now(model)

    def policy(self, model: str) -> Policy:
        """Return what is asked for; nothing of a model that is not in the settings."""
        wanted = self.world.models.get(model, {})
        if "latest" in wanted:
            return Latest(wanted["latest"])
        if "pin" in wanted:
            return Pin(frozenset(map(Version, wanted["pin"])))
        if "channel" in wanted:
            names = wanted["channel"]
            return Follow((names,) if isinstance(names, str) else tuple(names))
        return Everything()

    def positions(self, model: str) -> dict[str, Version]:
        """Return where channels stand for the agent."""
        return dict(self._eye.positions(Model(model)))

    def withdrawn(self, model: str, shelf: Shelf) -> set[Version]:
        """Return what is withdrawn, as the disk or the store says."""
        on_disk = {v for v, refusal in shelf.refusals.items() if refusal.reason == Reason.VERSION_WITHDRAWN}
        return on_disk | {v for name, v in self.world.store.withdrawn if name == model}

    def contents(self, model: str, version: Version, item: Item) -> Contents | None:
        """Return whose bytes lie under a number; None if they are nobody's, or damaged."""
        known = self.world.store.published.get((Model(model), version), ())
        return next((contents for contents in known if contents.digest == item.digest), None)

    def is_damaged(self, model: str, version: Version, item: Item) -> bool:
        """Whether somebody has damaged what lies there."""
        return (Model(model), version, item.inode) in self.damaged

    def is_foreign(self, model: str, version: Version, item: Item) -> bool:
        """Whether somebody else has put it there, and nobody has taken it over."""
        is_theirs = self.foreign.get((Model(model), version)) == item.inode
        return is_theirs and (item.record is None or item.record.content.digest != item.digest)

    # -- after every step ---------------------------------------------------------------------------------

    def check(self, what: str) -> None:
        """Check every invariant that the last change may have broken.

        Raises:
            Broken: it must not be so.
        """
        self.checks["looks"] += 1
        self._check_places()
        for model in self.models:
            before, now = self._last.get(model, NOTHING), self.now(model)
            self._last[model] = now
            for version, item in now.items.items():
                self._check_bytes(model, version, item)
                old = before.items.get(version)
                if old is None or old.inode != item.inode:
                    self._note(what, "came", model, version)
                    self._check_arrival(model, version, item, now)
            for version, item in before.items.items():
                if version not in now.items:
                    self._note(what, "left", model, version)
                    self._check_departure(model, version, item, (before, now))
                elif now.items[version].inode != item.inode:
                    self._check_swap(model, version, item)

    def _note(self, what: str, verb: str, model: str, version: Version) -> None:
        self.world.trace.append(f"{self.world.clock.now:g} ({what}): {model} {version} {verb}")

    def _check_places(self) -> None:
        """Nothing lies outside of the models directory, and little in staging."""
        self.checks["places"] += 1
        found = {path.name for path in self.world.folder.iterdir()}
        if found - OUTSIDE:
            raise Broken(f"outside of the models directory: {sorted(found - OUTSIDE)}")
        staging = self._eye.staging()
        if len(staging) > MOST_IN_STAGING:
            raise Broken(f"{len(staging)} folders in staging: {self.world.said()}")

    def _check_bytes(self, model: str, version: Version, item: Item) -> None:
        """What is ours is complete, and was published under its number."""
        self.checks["bytes"] += 1
        if self.is_foreign(model, version, item) or self.is_damaged(model, version, item):
            return
        contents = self.contents(model, version, item)
        if contents is None or not contents.is_sound:
            raise Broken(f"{model} {version} is on the shelf, and is no sound release: {self.world.said()}")

    def _check_arrival(self, model: str, version: Version, item: Item, now: Shelf) -> None:
        """What was refused comes under no other circumstances than as something else."""
        self.checks["arrivals"] += 1
        refusal = now.refusals.get(version)
        if refusal is None or item.record is None or refusal.reason == Reason.VERSION_FOREIGN:
            return
        if refusal.identity == item.record.identity:
            raise Broken(f"{model} {version} comes again, refused as {refusal.reason}")

    def _check_swap(self, model: str, version: Version, item: Item) -> None:
        """Only what is damaged is replaced."""
        self.checks["swaps"] += 1
        if not self.is_damaged(model, version, item):
            raise Broken(f"{model} {version} was replaced, and was not damaged: {self.world.said()}")

    def _check_departure(
        self, model: str, version: Version, item: Item, shelves: tuple[Shelf, Shelf]
    ) -> None:
        """Only what is ours leaves, and nothing as refused that answers."""
        self.checks["departures"] += 1
        before, now = shelves
        if self.is_foreign(model, version, item):
            raise Broken(f"{model} {version} left, which is not ours")
        if model not in self.world.models:
            raise Broken(f"{model} {version} left, of a model that is not in the settings")
        kept, refusal = now.reserve.get(version), now.refusals.get(version)
        was_refused = (
            refusal is not None
            and refusal.reason != Reason.VERSION_WITHDRAWN
            and version not in before.refusals
        )
        if (kept is not None and kept.returning) or was_refused:
            confirmed = item.record is not None and item.record.confirmed
            if confirmed and self._answers(model, version, item):
                raise Broken(f"{model} {version} was taken off, and answers: {self.world.said()}")
        else:
            self._check_prune(model, version, item, shelves)

    def _answers(self, model: str, version: Version, item: Item) -> bool:
        contents = self.contents(model, version, item)
        answering = self.world.server.answering(model)
        return contents is not None and answering.get(version) == contents.identity

    def _check_prune(self, model: str, version: Version, item: Item, shelves: tuple[Shelf, Shelf]) -> None:
        """Policy must say so, by what lies on the shelf alone: what a listing lacks is no reason."""
        self.checks["prunes"] += 1
        before, now = shelves
        world, policy = self.world, self.policy(model)
        withdrawn = self.withdrawn(model, before) | self.withdrawn(model, now)
        answering = world.server.answering(model)
        ours = {v: i for v, i in before.items.items() if not self.is_foreign(model, v, i)}
        worth = {v for v, i in ours.items() if not self.is_damaged(model, v, i) or v in answering}
        stay = self.demanded(model, worth - withdrawn)
        if version in stay and not self._makes_room(version, now):
            raise Broken(f"{model} {version} is pruned, though {policy} asks for it: {world.said()}")
        if version in withdrawn and item.record is not None and not item.record.confirmed:
            return
        is_lost = version in withdrawn or self.is_damaged(model, version, item)
        if is_lost and not stay:
            raise Broken(f"{model} {version} is withdrawn or damaged, but the last one: {world.said()}")
        if self._makes_room(version, now):
            return
        self._check_missing(model, version, is_lost=is_lost, there=set(before.items), withdrawn=withdrawn)
        if self.world.told is ServerPolicy.LATEST and version == max(before.items) and worth - {version}:
            return  # the server loads the next one before it lets the highest go
        if world.has_server and not (answering.keys() & before.items.keys()) - {version}:
            raise Broken(f"{model} {version} is pruned, and no other version answers: {world.said()}")

    def _check_missing(
        self, model: str, version: Version, *, is_lost: bool, there: set[Version], withdrawn: set[Version]
    ) -> None:
        """Nothing is pruned while what policy wants in its place is missing."""
        match self.policy(model):
            case Latest(count) if not is_lost:
                above = [v for v in there - withdrawn if v > version]
                if len(above) < count:
                    raise Broken(f"{model} {version} is pruned with fewer than {count} above it")
            case Pin(versions) if not versions - withdrawn <= there:
                raise Broken(f"{model} {version} is pruned while a pin is missing: {self.world.said()}")
            case Follow(names):
                found = self.positions(model)
                targets = {found[name] for name in names if name in found}
                if not targets <= there | withdrawn:
                    raise Broken(f"{model} {version} is pruned while a channel's version is missing")
            case _:
                pass

    def _makes_room(self, version: Version, now: Shelf) -> bool:
        """Whether it left for a version that does not fit beside it, and can come back."""
        short = self.world.overrides.get("memory", {}).get("when_short")
        return short == "retire_first" and version in now.reserve

    def demanded(self, model: str, candidates: Iterable[Version]) -> set[Version]:
        """Return those of the candidates that the policy asks for."""
        found = set(candidates)
        match self.policy(model):
            case Latest(count):
                return set(sorted(found, reverse=True)[:count])
            case Pin(versions):
                return found & versions
            case Everything():
                return found
            case Follow(names):
                known = self.positions(model)
                return found & {known[name] for name in names if name in known}

    # -- the server ---------------------------------------------------------------------------------------

    def before_step(self) -> None:
        """Note what answers before the server lives on."""
        self._answering = {name: set(self.world.server.answering(name)) for name in self.world.server.names}

    def after_step(self) -> None:
        """No model loses the last version that answers, unless the server itself ended.

        Raises:
            Broken: one did.
        """
        world = self.world
        for model, before in self._answering.items():
            self.checks["answers"] += 1
            lost = before and not world.server.answering(model) and world.server.is_ready
            may_retire = world.overrides.get("memory", {}).get("when_short") == "retire_first"
            if lost and model in world.server.names and model not in world.meddled and not may_retire:
                raise Broken(f"nothing of {model} answers any more, {sorted(before)} did: {world.said()}")

    # -- at rest ------------------------------------------------------------------------------------------

    def wanted(self, model: str) -> set[Version]:
        """Return what should be served once all is calm."""
        world, shelf = self.world, self.now(model)
        offered = {version: world.store.comes_as(model, version) for version in world.store.offers(model)}
        can_come = {
            version
            for version, contents in offered.items()
            if contents is not None
            and self._can_be_served(contents)
            and self._is_free(model, version, contents)
        }
        there = {
            version
            for version, item in shelf.items.items()
            if not self.is_foreign(model, version, item) and self._is_worth(model, version, item)
        }
        return self.demanded(model, can_come | there)

    def _is_free(self, model: str, version: Version, contents: Contents) -> bool:
        """Whether nothing else lies under a number."""
        item = self.now(model).items.get(version)
        if item is None or item.digest == contents.digest:
            return True
        return self.is_damaged(model, version, item) and self._record_is_of(item, contents)

    @staticmethod
    def _record_is_of(item: Item, contents: Contents) -> bool:
        return item.record is not None and item.record.content.digest == contents.digest

    def _is_worth(self, model: str, version: Version, item: Item) -> bool:
        withdrawn = (Model(model), version) in self.world.store.withdrawn
        contents = self.contents(model, version, item)
        if self.is_damaged(model, version, item):
            return version in self.world.server.answering(model) and not withdrawn
        return contents is not None and self._can_be_served(contents) and not withdrawn

    def _can_be_served(self, contents: Contents) -> bool:
        """Without a server nobody finds out that sound bytes do not load."""
        return contents.is_good or (contents.is_sound and not self.world.has_server)

    @property
    def leftovers(self) -> list[str]:
        """What lies in staging and in the trash."""
        return [*self._eye.staging(), *self._eye.trash()]

    def flaw_of_rest(self) -> str:
        """Return what is not as it should be in a calm world; nothing if all is well."""
        self.checks["rests"] += 1
        if self.leftovers:
            return f"staging and trash hold {self.leftovers}"
        flaws = (self._flaw_of(model) for model in self.world.models)
        return next((flaw for flaw in flaws if flaw), "")

    def _flaw_of(self, model: str) -> str:
        world, shelf = self.world, self.now(model)
        expected = self.wanted(model)
        if self.is_stuck:
            return ""
        if world.has_server and not world.server.is_ready and expected:
            return "the server is not up"
        served = set(world.server.answering(model)) if world.has_server else set(shelf.items)
        if world.told is ServerPolicy.LATEST and world.has_server:
            expected &= {max(shelf.items, default=Version(0))}
        missing = {
            v for v in expected if v not in served or v not in shelf.items or self._is_to_mend(model, v)
        }
        if missing:
            return f"{model} {sorted(missing)} are wanted, and not served"
        ours = {v for v, item in shelf.items.items() if not self.is_foreign(model, v, item)}
        is_exact = isinstance(self.policy(model), Latest) and world.told is ServerPolicy.ALL
        if expected and is_exact and ours != expected:
            return f"{model} {sorted(ours - expected)} are still there"
        return ""

    def _is_to_mend(self, model: str, version: Version) -> bool:
        item = self.now(model).items[version]
        contents = self.world.store.comes_as(model, version)
        damaged = self.is_damaged(model, version, item)
        return damaged and contents is not None and self._record_is_of(item, contents)

    @property
    def is_stuck(self) -> bool:
        """The server cannot come up, and no agent can help it: the plan says so in words.

        One of its models has nothing good at all; or it ends of what is not ours, which nobody may touch, or
        of what is damaged, and nobody can mend.
        """
        world = self.world
        if not world.has_server or world.server.is_ready:
            return False
        if not all(map(self.wanted, world.server.names)):
            return True
        items = [(name, v, item) for name in world.models for v, item in self.now(name).items.items()]
        return any(
            self.is_damaged(name, v, item)
            or (self.is_foreign(name, v, item) and self._loads(name, v, item) is not Loads.WELL)
            for name, v, item in items
        )

    def _loads(self, model: str, version: Version, item: Item) -> Loads:
        contents = self.contents(model, version, item)
        return contents.loads if contents is not None else Loads.WELL
