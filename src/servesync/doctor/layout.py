"""What lies in the store, as the agent sees it: what each model has, and why other keys are no releases."""

import difflib
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator
from contextlib import closing
from typing import Final

from servesync.doctor.findings import Check, Finding, Level, fail, ok, warn
from servesync.domain.channel import parse_key
from servesync.domain.versions import Layout, Model, Release, StoredObject, Version
from servesync.settings import ModelSettings, Settings
from servesync.store import KeyPattern, KeyProblem, Listing, Probe, S3Store, explain

SHOWN: Final = 5
SHOWN_OF_A_KIND: Final = 3
SHOWN_CHARACTERS: Final = 120
LOOKED_AT: Final = 1000
MOST_NAMES: Final = 1000


class _Keys:
    """Counts every key of a listing, and keeps a few examples of each kind."""

    def __init__(self, pattern: str, wanted: Container[str]) -> None:
        self._pattern = pattern
        self._wanted = wanted
        self._known = KeyPattern(pattern)
        self.kinds: Counter[str] = Counter()
        self.problems: dict[str, list[tuple[str, KeyProblem]]] = {}
        self.names: set[str] = set()
        self.count = 0

    def see(self, key: str, size: int) -> None:
        if self._known.is_marker(key, size):
            return
        self.count += 1
        if parse_key(key) is not None:
            return
        problem = explain(self._pattern, key, self._wanted)
        if problem is not None:
            self.kinds[problem.kind] += 1
            kept = self.problems.setdefault(problem.kind, [])
            if len(kept) < SHOWN_OF_A_KIND * SHOWN:
                kept.append((key, problem))
        parsed = self._known.parse(key)
        if parsed is not None and len(self.names) < MOST_NAMES:
            self.names.add(parsed.model)

    def shown(self, at_most: int) -> Iterator[tuple[str, KeyProblem]]:
        """Yield keys that are no release: a few of each kind first, then more of them."""
        kinds = [list(kept) for kept in self.problems.values()]
        for depth in range(SHOWN_OF_A_KIND * SHOWN):
            for kept in kinds:
                if depth < len(kept) and at_most > 0:
                    at_most -= 1
                    yield kept[depth]


class LayoutArea:
    """Examines the whole listing, and then has the size of the largest wanted release (`largest_bytes`).

    `sample`: an archive with a manifest, as mirrors must have it; None if there is none.
    """

    def __init__(self, settings: Settings, show_keys: int) -> None:
        self._settings = settings
        self._show_keys = show_keys
        self.largest_bytes = 0
        self.sample: StoredObject | None = None

    def examine(self) -> Iterator[Finding]:
        """Yield the findings for each model, then those on keys that belong to none."""
        store = self._settings.store
        models = {Model(model.name): model for model in self._settings.models}
        keys = _Keys(store.key_pattern, models)
        with closing(S3Store(store, self._settings.fetch, self._settings.limits)) as reader:
            listing = reader.list(models.__contains__, keys.see)
        if keys.count == 0:
            yield self._empty()
            return
        for model, wish in models.items():
            yield from self._model(model, wish, listing, keys.names)
        yield from _misfits(keys, self._show_keys)
        others = sorted(keys.names - models.keys())
        if others:
            yield ok(Check.LAYOUT_OTHERS, f"in the store, but not in the settings: {_some(others)}")

    def _empty(self) -> Finding:
        """Return why there may be nothing below the prefix: the keys may lie elsewhere in the bucket."""
        store = self._settings.store
        text = f"no key begins with {store.prefix!a} in the bucket {store.bucket}"
        with Probe(store) as probe:
            answer = probe.list_some("", at_most=LOOKED_AT)
        if answer.error is not None:
            advice = "publish a model there, or correct the prefix in store.url"
            return fail(Check.LAYOUT_PREFIX, text, advice)
        if not answer.keys:
            return fail(Check.LAYOUT_PREFIX, f"the bucket {store.bucket} is empty", "publish a model")
        tops = Counter(key.partition("/")[0] for key in answer.keys if "/" in key)
        near = difflib.get_close_matches(store.prefix.rstrip("/"), list(tops), 1)
        best = near or [name for name, _ in tops.most_common(1)]
        where = f"; {best[0]!a} has some: is store.url s3://{store.bucket}/{best[0]}?" if best else ""
        return fail(Check.LAYOUT_PREFIX, text, f"correct the prefix in store.url, or publish there{where}")

    def _model(
        self, model: Model, wish: ModelSettings, listing: Listing, names: set[str]
    ) -> Iterator[Finding]:
        releases = listing.releases.get(model, ())
        problems = {v: error for (name, v), error in listing.problems.items() if name == model}
        usable = [r for r in releases if not self._settings.store.require_manifest or r.manifest]
        self.largest_bytes = max([self.largest_bytes, *(release.stored_bytes for release in usable)])
        proven = [release.objects[0] for release in usable if release.manifest]
        self.sample = self.sample or next((item for item in proven if item.size), None)
        yield from self._unproven(model, releases)
        yield from _channels(model, wish, listing.channels.get(model, {}))
        for version, error in sorted(problems.items(), reverse=True)[:SHOWN]:
            said = f"{error.reason.value}: {error}"
            advice = "it is not installed; docs/reasons.md has more on the reason"
            yield warn(Check.LAYOUT_RELEASE, said, advice, f"{model} {version}")
        if usable:
            yield _offer(model, wish, usable)
        else:
            text = "no version of it can be installed" if releases or problems else "no version in the store"
            advice = _maybe_meant(model, names, self._settings.store.key_pattern)
            level = Level.FAIL if wish.required else Level.WARN
            yield Finding(Check.LAYOUT_MODEL, level, text, advice, model)

    def _unproven(self, model: Model, releases: tuple[Release, ...]) -> Iterator[Finding]:
        bare = [release for release in releases if release.manifest is None]
        if not bare or not self._settings.store.require_manifest:
            return
        versions = _some(str(release.version) for release in reversed(bare))
        directories = any(release.layout is Layout.DIRECTORY for release in bare)
        how = "publish them with `servesync publish`" if directories else "run `servesync manifest` for each"
        text = f"without a manifest, which store.require_manifest asks for: {versions}"
        yield warn(Check.LAYOUT_UNPROVEN, text, f"{how}, or set store.require_manifest: false", model)


def _channels(model: Model, wish: ModelSettings, there: Collection[str]) -> Iterator[Finding]:
    names = sorted(there)
    for name in wish.channels:
        if name in names:
            yield ok(Check.LAYOUT_CHANNEL, f"the store has the channel {name}, which is followed", model)
            continue
        text = f"follows the channel {name}, which the store does not have"
        advice = f"`servesync promote {model} VERSION --channel {name} -c FILE`"
        level = Level.FAIL if wish.required else Level.WARN
        others = f", or correct the name; there are {_some(names)}" if names else ""
        yield Finding(Check.LAYOUT_CHANNEL, level, text, f"{advice}{others}", model)


def _offer(model: Model, wish: ModelSettings, usable: list[Release]) -> Finding:
    versions = sorted((release.version for release in usable), reverse=True)
    proven = sum(release.manifest is not None for release in usable)
    there = _some(str(version) for version in versions)
    text = f"offers {there}; with a manifest: {proven} of {len(versions)}"
    pinned = wish.versions.pin
    missing = [str(v) for v in pinned if Version(v) not in versions] if pinned else []
    if missing:
        said = f"pinned, but not in the store: {', '.join(missing)} (there are {there})"
        advice = "publish them, or correct versions.pin"
        return Finding(Check.LAYOUT_MODEL, Level.FAIL if wish.required else Level.WARN, said, advice, model)
    return ok(Check.LAYOUT_MODEL, text, model)


def _maybe_meant(model: Model, names: set[str], pattern: str) -> str:
    folded = {name.casefold(): name for name in names}
    near = folded.get(model.casefold())
    close = [near] if near else difflib.get_close_matches(model, sorted(names), 1)
    if close:
        return f"the store has {close[0]!a}: correct the name in models, or publish under this one"
    example = pattern.replace("{model}", model).replace("{version}", "1")
    return f"publish one as {example}.tar.gz below the prefix; layout.keys says what is wrong with others"


def _misfits(keys: _Keys, at_most: int) -> Iterator[Finding]:
    shown = 0
    for key, problem in keys.shown(at_most):
        shown += 1
        text = key if len(key) <= SHOWN_CHARACTERS else key[:SHOWN_CHARACTERS] + "..."
        yield warn(Check.LAYOUT_KEYS, f"no release ({problem.kind})", problem.text, ascii(text).strip("'"))
    total = sum(keys.kinds.values())
    if total > shown:
        counts = ", ".join(f"{kind} {count}" for kind, count in keys.kinds.most_common())
        text = f"{total} of {keys.count} keys are no release: {counts}"
        yield warn(Check.LAYOUT_KEYS, text, "--show-keys N shows more of them")
    elif total == 0:
        yield ok(Check.LAYOUT_KEYS, f"all {keys.count} keys belong to releases")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(ascii(name).strip("'") for name in listed[:SHOWN]) + more
