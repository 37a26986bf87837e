"""Obtains the credentials that sign requests, and checks that they can be sent before any request is.

Whatever is raised while credentials are obtained or refreshed becomes `CredentialsUnusable`, by one rule
and not by a list of errors: providers read files, run programs and ask servers, and all of them fail in
ways of their own.
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import botocore.credentials
import botocore.session
from botocore.exceptions import InvalidRegionError, NoRegionError

from servesync.deadline import Deadline, TookTooLong
from servesync.redaction import remember
from servesync.store.flaws import flaw_of, flaw_of_secret
from servesync.store.foreign import safe_wording
from servesync.store.named_files import not_regular

CONFIGURATION: Final = "the AWS configuration"
PROCESS_GRACE_SECONDS: Final = 2.0
LAST_SECONDS: Final = 5
"""Credentials that end sooner would not outlast a request."""
SHORTEST_KEY_ID: Final = 16
"""Amazon's are this long; a shorter one is a name that somebody chose, perhaps the bucket's, too."""
_TOKEN: Final = "AWS_CONTAINER_AUTHORIZATION_TOKEN"  # noqa: S105 (a variable's name)
_ROLE_TOKEN: Final = "AWS_WEB_IDENTITY_TOKEN_FILE"  # noqa: S105 (as above)
_URI: Final = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
_STATUS: Final = re.compile(r"non 200 response \(?([0-9]{3})")
_T = TypeVar("_T")


class CredentialsUnusable(Exception):
    """There are no credentials that a request can be signed with; the text says why, and holds no secret."""

    def __init__(self, provider: str, what: str) -> None:
        super().__init__(what)
        self.provider = provider


@dataclass(frozen=True, slots=True)
class SignsWith:
    """The credentials that sign requests, and their provider (botocore's name); compared, but never shown."""

    provider: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False)


def obtain(core: botocore.session.Session, seconds: float) -> SignsWith:
    """Return the credentials of `core`; it checks those that it refreshes later in the same way.

    `seconds`: how long each provider may take, now and when it refreshes its credentials.

    Raises:
        CredentialsUnusable: there are no credentials, or they cannot be obtained or sent.
        NoRegionError, InvalidRegionError: a provider needs a region for its request.
    """
    found = obtain_if_any(core, seconds)
    if found is None:
        raise CredentialsUnusable("none", f"no credentials were found{_unread_files(core)}")
    return found


def obtain_if_any(core: botocore.session.Session, seconds: float) -> SignsWith | None:
    """Return what `obtain` does; None if there are no credentials, and all AWS files can be read."""
    core.register("before-sign", _check_signer)
    with usable(CONFIGURATION):
        _check_role_token(core.get_scoped_config())
        providers = core.get_component("credential_provider").providers
        chain = _Chain([_bounded(core, provider, seconds) for provider in providers], seconds)
        core.register_component("credential_provider", chain)
        found = core.get_credentials()
    if found is None:
        unread = _unread_files(core)
        if unread:
            raise CredentialsUnusable("none", f"no credentials were found{unread}")
        return None
    frozen: Any = found.get_frozen_credentials()
    return SignsWith(str(found.method), frozen.access_key, frozen.secret_key, frozen.token)


def _check_role_token(profile: Mapping[str, Any]) -> None:
    """Make sure that the file with the token of a role is a regular one, if it is there.

    Raises:
        CredentialsUnusable: the file is a pipe, a device or the like.
    """
    path = profile.get("web_identity_token_file") or os.environ.get(_ROLE_TOKEN)
    what = not_regular(path) if path else ""
    if what:
        text = f"{_ROLE_TOKEN} names {path!a}: {what}: name the file that holds the token of the role"
        raise CredentialsUnusable(botocore.credentials.AssumeRoleWithWebIdentityProvider.METHOD, text)


@contextmanager
def usable(provider: str) -> Iterator[None]:
    """Raise `CredentialsUnusable` for any error inside, without a text that may hold a secret.

    The original error stays its context, for a debugger; Python does not print it.
    """
    try:
        yield
    except (CredentialsUnusable, NoRegionError, InvalidRegionError):
        raise
    except Exception as error:  # noqa: BLE001 (the one rule of this module)
        what = _container_flaw(error) if provider == botocore.credentials.ContainerProvider.METHOD else ""
        text = f"no credentials from {provider}: {what or safe_wording(error)}"
        if provider == CONFIGURATION:
            text = f"{provider} (environment, profile) cannot be used: {safe_wording(error)}"
        raise CredentialsUnusable(provider, text) from None


class _Chain:
    """Asks one provider after the other, as botocore's own resolver does, and names the one that fails."""

    def __init__(self, providers: list[Any], seconds: float) -> None:
        self.providers = providers
        self._seconds = seconds

    def load_credentials(self) -> "_Checked | None":
        """Return the credentials of the first provider that has some."""
        for provider in self.providers:
            with usable(provider.METHOD):
                found = _within(self._seconds, provider.METHOD, provider.load)
            if found is not None:
                return _Checked(found, self._seconds)
        return None


class _Checked(botocore.credentials.Credentials):
    """Credentials that are checked now and after each refresh; those that cannot be sent raise our error."""

    def __init__(self, found: Any, seconds: float) -> None:  # noqa: ANN401 (botocore has no common type)
        self._found = found
        self._seconds = seconds
        self._checked: object = None
        self.method = found.method

    def get_frozen_credentials(self) -> Any:  # noqa: ANN401 (botocore's type has no stub)
        """Return the credentials to sign with now.

        Raises:
            CredentialsUnusable: they could not be refreshed, or cannot be sent.
        """
        ask = self._found.get_frozen_credentials
        is_due = getattr(self._found, "refresh_needed", lambda *_: False)
        with usable(self.method):
            try:
                frozen = _within(self._seconds, self.method, ask) if is_due() else ask()
            except TookTooLong:
                if self._checked is None or is_due(LAST_SECONDS):
                    raise
                frozen = self._checked  # the old ones are valid still
        if frozen is not self._checked:
            _check(frozen, self.method)
            self._checked = frozen
        return frozen

    def get_deferred_property(self, property_name: str) -> Callable[[], Any]:
        """Return a function that reads one property when it is needed."""
        return lambda: getattr(self.get_frozen_credentials(), property_name, None)


def _check(frozen: Any, provider: str) -> None:  # noqa: ANN401 (botocore's type has no stub)
    """Make sure that a request signed with `frozen` can be sent as it is.

    Raises:
        CredentialsUnusable: its text says which of the three is flawed and how, without the value.
    """
    given = {
        "access key id": (frozen.access_key, flaw_of),
        "secret key": (frozen.secret_key, flaw_of_secret),
        "session token": (frozen.token, flaw_of),
    }
    is_name = len(str(frozen.access_key)) < SHORTEST_KEY_ID
    secret = (frozen.secret_key, frozen.token, None if is_name else frozen.access_key)
    remember(*(value for value in secret if isinstance(value, str)))
    for name, (value, flaw) in given.items():
        if name == "session token" and value in {None, ""}:
            continue  # then none is sent
        wrong = flaw(value)
        if wrong:
            raise CredentialsUnusable(provider, f"the {name} from {provider} {wrong}")


def _check_signer(**about: Any) -> None:  # noqa: ANN401 (botocore's events hand over anything)
    """Check the keys with which a provider signs its own requests: a role's are those of `source_profile`."""
    found = getattr(about["request_signer"], "_credentials", None)
    if found is not None and not isinstance(found, _Checked):
        method = str(found.method)
        _check(found.get_frozen_credentials(), "source_profile" if method == "explicit" else method)


# -- bounds ------------------------------------------------------------------------------------------------


def _within(seconds: float, provider: str, ask: Callable[[], _T]) -> _T:
    return _deadline(seconds, provider).call(ask)


@cache
def _deadline(seconds: float, _provider: str) -> Deadline:
    """Return the one deadline of a provider, which counts all abandoned calls to it."""
    return Deadline(seconds + PROCESS_GRACE_SECONDS, "servesync-credentials")


class _Program(subprocess.Popen[bytes]):
    """A `credential_process` that is killed when it has not ended in time."""

    seconds: float

    def communicate(self, *_: object, **__: object) -> tuple[bytes, bytes]:
        """Return what it wrote."""
        try:
            return super().communicate(timeout=self.seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            self._forget_output()
            raise TookTooLong(f"the program has not ended within {self.seconds:g} s") from None

    def _forget_output(self) -> None:
        """Close the pipes: processes that the program started may hold their other ends for ever."""
        for pipe in (self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self.wait(PROCESS_GRACE_SECONDS / 2)


def _bounded(core: botocore.session.Session, provider: Any, seconds: float) -> Any:  # noqa: ANN401 (as above)
    """Return the provider; if it runs a program, that is killed when its time is over."""
    if not isinstance(provider, botocore.credentials.ProcessProvider):
        return provider

    def start(*arguments: Any, **options: Any) -> _Program:  # noqa: ANN401 (those of Popen)
        program = _Program(*arguments, **options)
        program.seconds = seconds
        return program

    profile = core.get_config_variable("profile") or "default"
    return botocore.credentials.ProcessProvider(profile, lambda: core.full_config, popen=start)


# -- better texts for failures that botocore words badly ---------------------------------------------------


def _container_flaw(error: Exception) -> str:
    """Return why the server of a container's credentials (ECS, EKS Pod Identity) cannot be asked, or ""."""
    if isinstance(error, TookTooLong):
        return ""  # the call that hung would hang again
    file = os.environ.get(f"{_TOKEN}_FILE")
    try:
        token = Path(file).read_text() if file is not None else os.environ.get(_TOKEN)
    except (OSError, ValueError) as unread:
        why = unread.strerror if isinstance(unread, OSError) else safe_wording(unread)
        return f"{_TOKEN}_FILE names {file!a}: {why}"
    remember(token)
    flaw = flaw_of(token) if token is not None else ""
    if flaw:
        return f"the token in {file!a} {flaw}" if file is not None else f"{_TOKEN} {flaw}"
    if isinstance(error, ValueError) and str(error).startswith("Unsupported host"):
        return f"{_URI} names a host that AWS does not take credentials from"
    status = _STATUS.search(str(error))
    return f"its server answered HTTP {status[1]}" if status else ""


def _unread_files(core: botocore.session.Session) -> str:
    """Return which AWS files exist but cannot be read: botocore treats them as absent."""
    names = [str(core.get_config_variable(name) or "") for name in ("credentials_file", "config_file")]
    problems = [problem for name in names if name and (problem := _unread(Path(name).expanduser()))]
    return f" ({', '.join(problems)})" if problems else ""


def _unread(path: Path) -> str:
    try:
        if path.is_dir():
            return f"{str(path)!a} is a directory"
        if path.is_file():
            path.open("rb").close()
    except OSError as error:
        return f"{str(path)!a}: {error.strerror}"
    return ""
