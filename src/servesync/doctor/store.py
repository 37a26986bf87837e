"""Is the store reachable, is it the right one, who asks, and what may they do there?"""

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from servesync.doctor.findings import Check, Finding, fail, ok, warn
from servesync.doctor.store_advice import advice_for
from servesync.doctor.wire import speaks_tls
from servesync.errors import Reason, StoreError, TransferError
from servesync.settings import Store
from servesync.store import Answer, Operation, Probe, caller, is_aws, odd_advice, signs_with

SKEW_DOUBTFUL_SECONDS: Final = 60
SKEW_REFUSED_SECONDS: Final = 15 * 60
LOOK_FOR_A_KEY: Final = 50
_CHECK_OF: Final = {
    Reason.STORE_TLS: Check.STORE_TLS,
    Reason.STORE_WRONG_REGION: Check.STORE_REGION,
    Reason.STORE_CREDENTIALS: Check.STORE_CREDENTIALS,
    Reason.STORE_CLOCK_SKEW: Check.STORE_CLOCK,
}
_MAYBE_THE_WRONG_SCHEME: Final = frozenset(
    {Reason.STORE_UNREACHABLE, Reason.STORE_BAD_ANSWER, Reason.STORE_FAILED}
)
_READABLE: Final = frozenset({Reason.OBJECT_CHANGED, Reason.OBJECT_GONE})
"""An empty object has no first byte; another may have been removed since."""
_SET_CLOCK: Final = (
    "set this machine's clock (NTP: chrony, systemd-timesyncd); S3 refuses 15 minutes and more"
)


class StoreArea:
    """Examines the store; `can_list` tells afterwards whether the layout can be examined, too."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.can_list = False

    def examine(self) -> Iterator[Finding]:
        """Yield what is found, from the credentials up to the first byte of an object."""
        try:
            signing = signs_with(self._store)
        except StoreError as error:
            advice = advice_for(error, "", Operation.LIST, self._store)
            yield fail(Check.STORE_CREDENTIALS, error.what, advice)
            return
        if signing is None:
            yield fail(
                Check.STORE_CREDENTIALS,
                "no credentials: none in the environment, in a profile, or from a role of this machine",
                "give the agent a role (IRSA, task role, instance profile), or AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, in the environment in which it runs",
            )
            return
        kind = ", temporary" if signing.is_temporary else ""
        text = f"from {signing.source} (access key ending in {signing.key_ends_in}{kind})"
        yield ok(Check.STORE_CREDENTIALS, text)
        if is_aws(self._store):
            yield self._identity()
        with Probe(self._store) as probe:
            yield from self._examine_bucket(probe)

    def _identity(self) -> Finding:
        try:
            found = caller(self._store)
        except StoreError as error:
            said = error.what
            if error.reason is Reason.STORE_CREDENTIALS:
                return fail(Check.STORE_IDENTITY, said, advice_for(error, "", Operation.LIST, self._store))
            advice = "only needed to say who the agent is; let sts.REGION.amazonaws.com through to see it"
            return warn(Check.STORE_IDENTITY, said, advice)
        return ok(Check.STORE_IDENTITY, f"AWS knows the agent as {found.arn} (account {found.account})")

    def _examine_bucket(self, probe: Probe) -> Iterator[Finding]:
        answer = probe.list_some(self._store.prefix, at_most=LOOK_FOR_A_KEY)
        clock = _clock(answer)
        if clock is not None:
            yield clock
        if answer.error is not None:
            yield self._no_listing(probe, answer, answer.error)
            return
        self.can_list = True
        yield self._listing(answer)
        yield from self._bucket_is_right(answer)
        yield self._reading(probe, answer)

    def _listing(self, answer: Answer) -> Finding:
        if answer.is_version_1:
            return warn(
                Check.STORE_LIST,
                f"listing {self._store.url} works, but only in version 1 of ListObjects",
                "no more than one page of keys (usually 1,000) can be listed so: take a release of the store "
                "that knows version 2 (list-type=2)",
            )
        return ok(Check.STORE_LIST, f"listing {self._store.url} works")

    def _no_listing(self, probe: Probe, answer: Answer, error: StoreError | TransferError) -> Finding:
        owner = self._store.expected_bucket_owner
        denied = error.reason is Reason.STORE_DENIED
        if denied and owner and probe.list_some(self._store.prefix, for_owner=False).error is None:
            return fail(
                Check.STORE_OWNER,
                f"the bucket {self._store.bucket} does not belong to the account {owner}",
                "if store.url names the right bucket, correct store.expected_bucket_owner; if not, somebody "
                "else has a bucket of this name: correct store.url",
            )
        paid = self._store.request_payer is not None
        if denied and not paid and probe.list_some(self._store.prefix, pays=True).error is None:
            return fail(
                Check.STORE_LIST,
                f"readers of the bucket {self._store.bucket} pay (Requester Pays)",
                "set store.request_payer: requester, if that is meant",
            )
        return _trouble(error, Operation.LIST, answer.code, self._store, answer.region)

    def _bucket_is_right(self, answer: Answer) -> Iterator[Finding]:
        if self._store.expected_bucket_owner:
            yield ok(Check.STORE_OWNER, f"the store let {self._store.expected_bucket_owner} pass as owner")
        ours = self._store.region
        if ours and answer.region and answer.region != ours:
            yield warn(
                Check.STORE_REGION,
                f"the bucket is in {answer.region}, store.region says {ours}: requests take a detour",
                f"set store.region: {answer.region}",
            )
        elif answer.region:
            yield ok(Check.STORE_REGION, f"the bucket is in {answer.region}")

    def _reading(self, probe: Probe, answer: Answer) -> Finding:
        key = next((key for key in answer.keys if not key.endswith("/")), None)
        if key is None:
            return warn(
                Check.STORE_READ,
                "s3:GetObject could not be tried: no object below the prefix",
                "publish a version, then run this again",
            )
        read = probe.read_one(key)
        if read.error is None or read.error.reason in _READABLE:
            return ok(Check.STORE_READ, f"reading works, tried with {key!a:.100}")
        text = f"{read.error.what} (tried {key!a:.100})"
        if read.error.reason is Reason.OBJECT_ARCHIVED:
            advice = "restore it, and keep models out of the lifecycle rules that archive objects"
            return warn(Check.STORE_READ, text, advice)
        advice = advice_for(read.error, read.code, Operation.READ, self._store)
        of_this_one = odd_advice(read.error)  # how it was uploaded; others may be readable
        return (warn if of_this_one else fail)(Check.STORE_READ, text, advice)


def _clock(answer: Answer) -> Finding | None:
    if answer.skew_seconds is None:
        return None
    seconds = abs(answer.skew_seconds)
    way = "behind" if answer.skew_seconds > 0 else "ahead of"
    text = f"this machine's clock is {seconds:.0f} s {way} the store's"
    if seconds > SKEW_REFUSED_SECONDS:
        return fail(Check.STORE_CLOCK, text, _SET_CLOCK)
    if seconds > SKEW_DOUBTFUL_SECONDS:
        return warn(Check.STORE_CLOCK, text, _SET_CLOCK)
    return ok(Check.STORE_CLOCK, f"within {max(seconds, 1):.0f} s of the store's clock")


def _trouble(
    error: StoreError | TransferError, operation: Operation, code: str, store: Store, region: str = ""
) -> Finding:
    """Return the finding for a request that failed, under the check that its reason belongs to."""
    advice = advice_for(error, code, operation, store)
    check = _CHECK_OF.get(error.reason, Check.STORE_LIST)
    if error.reason is Reason.STORE_WRONG_REGION and region:
        advice = f"set store.region: {region}"
    if error.reason in _MAYBE_THE_WRONG_SCHEME and _wants_https(store.endpoint_url):
        check, advice = Check.STORE_TLS, "the endpoint speaks TLS: write https:// in store.endpoint_url"
    return fail(check, error.what, advice)


def _wants_https(url: str | None) -> bool:
    parts = urlsplit(url or "")
    return parts.scheme == "http" and speaks_tls(parts.hostname or "", parts.port or 80)
