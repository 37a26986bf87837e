"""Does the server answer, is it told of each model, and does it scan the directory that the agent fills?"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from servesync.doctor.findings import Check, Finding, fail, ok, warn
from servesync.doctor.wire import speaks_tls
from servesync.domain.versions import Model, Version, parse_canonical
from servesync.errors import Reason, ServerError
from servesync.install import Workspace
from servesync.planning.facts import Served, ServerState
from servesync.serving.rest import ModelServer
from servesync.settings import Serving

RECENT_SECONDS: Final = 5.0
CHECK_AGAIN_SECONDS: Final = 2.0
CONFIGURED: Final = "in its models.config, or by --model_name and --model_base_path"
TELL_ALL: Final = "tell it model_version_policy {{ all {{}} }} for {model} in its models.config"


def examine_server(serving: Serving, workspace: Workspace, models: list[Model]) -> Iterator[Finding]:
    """Yield what the server at `serving.rest_url` says of each model, compared with the shelf."""
    if serving.rest_url is None:
        return
    with ModelServer(serving.rest_url) as server:
        try:
            server.status(models[0])
        except ServerError as error:
            yield _no_answer(error, serving.rest_url, [workspace.shelf(model) for model in models])
            return
        yield ok(Check.SERVER_ANSWER, f"a model server answers at {serving.rest_url}")
        for model in models:
            shelf = workspace.shelf(model)
            yield from _model(server, serving, model, shelf)


def _no_answer(error: ServerError, url: str, shelves: list[Path]) -> Finding:
    text, parts = str(error), urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if error.reason is Reason.SERVER_BAD_ANSWER:
        advice = "give the REST port (--rest_api_port, usually 8501), not gRPC's and not another service's"
        return fail(Check.SERVER_ANSWER, text, advice)
    if parts.scheme == "http" and speaks_tls(host, port):
        return fail(Check.SERVER_ANSWER, text, "it speaks TLS there: write https:// in serving.rest_url")
    if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text:
        return fail(Check.SERVER_ANSWER, text, "it speaks no TLS there: write http:// in serving.rest_url")
    if "CERTIFICATE_VERIFY_FAILED" in text:
        advice = "nobody vouches for its certificate: use http:// on loopback, beside the server"
        return fail(Check.SERVER_ANSWER, text, advice)
    if any(map(_shelved, shelves)):
        advice = (
            "is it running (its log may say why not), with --rest_api_port, and is that the port in "
            "serving.rest_url? It also opens no port until it has loaded a first version"
        )
        return fail(Check.SERVER_ANSWER, text, advice)
    advice = "no version is on the shelf yet: before the first one a server opens no port"
    return warn(Check.SERVER_ANSWER, text, advice)


def _model(server: ModelServer, serving: Serving, model: Model, shelf: Path) -> Iterator[Finding]:
    try:
        state = _read_state(server, serving, model, shelf)
        if state.trouble(serving) is not None:  # the server may be in the middle of a change
            time.sleep(CHECK_AGAIN_SECONDS)
            state = _read_state(server, serving, model, shelf)
    except ServerError as error:
        yield fail(Check.SERVER_ANSWER, str(error), "look at the server's log", model)
        return
    trouble = state.trouble(serving)
    if trouble is not None:
        yield trouble
    elif not state.served and not state.shelved:
        yield ok(Check.SERVER_MODEL, "nothing on the shelf yet, and nothing known to the server", model)
    else:
        yield ok(Check.SERVER_MODEL, f"serves {_listed(state.available) or 'nothing yet'}", model)
    yield from state.refused()


def _read_state(server: ModelServer, serving: Serving, model: Model, shelf: Path) -> "_ModelState":
    return _ModelState(model, serving.base_path(model), _shelved(shelf), server.status(model))


@dataclass(frozen=True, slots=True)
class _ModelState:
    """One model at one moment: the shelf with the age of each version (seconds), and what the server says.

    `base_path`: where the server is to find the shelf.
    """

    model: Model
    base_path: Path
    shelved: Mapping[Version, float]
    served: Mapping[Version, Served]

    @property
    def available(self) -> list[Version]:
        return sorted(v for v, said in self.served.items() if said.state is ServerState.AVAILABLE)

    def trouble(self, serving: Serving) -> Finding | None:
        """Return what is wrong between shelf and server, if anything is."""
        questions: tuple[Callable[[], Finding | None], ...] = (
            self._unknown,
            self._elsewhere,
            lambda: self._only_the_latest(serving),
            self._not_seen,
        )
        return next((found for ask in questions if (found := ask()) is not None), None)

    def _unknown(self) -> Finding | None:
        if self.served or not self.shelved:
            return None
        text = f"the server knows no {self.model}, though the shelf holds {_listed(self.shelved)}"
        advice = f"tell it of {self.model} with the base path {self.base_path} {CONFIGURED}"
        return fail(Check.SERVER_MODEL, text, advice, self.model)

    def _elsewhere(self) -> Finding | None:
        strangers = [v for v in self.available if v not in self.shelved]
        if not strangers:
            return None
        text = f"the server serves {_listed(strangers)}, which the shelf does not hold"
        advice = f"its base path for {self.model} is not {self.base_path}: correct it {CONFIGURED}"
        return fail(Check.SERVER_BASE_PATH, text, advice, self.model)

    def _only_the_latest(self, serving: Serving) -> Finding | None:
        highest = max(self.available, default=None)
        if highest is None or serving.version_policy == "latest":
            return None
        left_out = [v for v, age in self.shelved.items() if v < highest and self._unseen(v, age)]
        if not left_out:
            return None
        text = (
            f"serving.version_policy is all, but the server leaves out {_listed(left_out)} and serves "
            f"{_listed(self.available)}: it keeps to its policy latest"
        )
        advice = f"{TELL_ALL.format(model=self.model)}, or set serving.version_policy: latest"
        return fail(Check.SERVER_POLICY, text, advice, self.model)

    def _not_seen(self) -> Finding | None:
        highest = max(self.available, default=None)
        unseen = [
            v for v, age in self.shelved.items() if (highest is None or v > highest) and self._unseen(v, age)
        ]
        if not unseen or not self.served:
            return None
        text = f"the server has not seen {_listed(unseen)}, which the shelf holds"
        advice = (
            f"does it scan {self.base_path} and no copy of it, and with --file_system_poll_wait_seconds=1?"
        )
        return fail(Check.SERVER_BASE_PATH, text, advice, self.model)

    def _unseen(self, version: Version, age: float) -> bool:
        said = self.served.get(version)
        ended_well = said is not None and said.state is ServerState.END and not said.failed
        return age > RECENT_SECONDS and (said is None or ended_well)

    def refused(self) -> Iterator[Finding]:
        """Yield the versions on the shelf that the server could not load."""
        for version in sorted(self.shelved):
            said = self.served.get(version)
            if said is not None and said.failed:
                text = f"the server could not load it: {said.error_code}: {said.message}"
                advice = "an agent at work takes it off the shelf; publish a good one under a higher number"
                yield fail(Check.SERVER_VERSION, text, advice, f"{self.model} {version}")


def _shelved(shelf: Path) -> dict[Version, float]:
    """Return the versions on a shelf, each with its age in seconds."""
    found: dict[Version, float] = {}
    try:
        for entry in shelf.iterdir():
            version = parse_canonical(entry.name)
            if version is not None:
                found[version] = time.time() - entry.lstat().st_ctime
    except OSError:
        return {}
    return found


def _listed(versions: "list[Version] | Mapping[Version, float]") -> str:
    return ", ".join(str(version) for version in sorted(versions))
