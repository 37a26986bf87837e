"""Small documents of the store: who asks gets an answer when a job has read them."""

import pytest

from agent_parts import Context, run_job
from servesync.agent.documents import MOST_AT_ONCE, DocumentReader, NotReadYet
from servesync.domain.versions import Model, StoredObject
from servesync.errors import Reason, Stopped, StoreError

M = Model("m")


def item(number: int, etag: str = "e") -> StoredObject:
    """Return one of several documents."""
    return StoredObject(f"m/{number}.json", 10, etag)


def wanting(*items: StoredObject) -> DocumentReader:
    """Return documents of which these were asked for; each reads as its ETag."""
    documents = DocumentReader(lambda one, _: one.etag.encode())
    for one in items:
        with pytest.raises(NotReadYet):
            documents.get(one, M)
    return documents


def idle(documents: DocumentReader) -> bool:
    """Whether nothing is asked for (mypy takes a property for something that stays as it is)."""
    return documents.is_idle


def read_all(documents: DocumentReader) -> int:
    """Let all jobs run; return how many there were."""
    count = 0
    while jobs := documents.jobs():
        count += len(jobs)
        for job in jobs:
            end = run_job(job)
            assert not isinstance(end.error, OSError)
            documents.ended(job, end.result, end.error)
    return count


def test_what_was_read_is_answered_from_then_on() -> None:
    """It is read once, whoever asks, and digested in the job."""
    documents = wanting(item(1), item(1))
    with pytest.raises(NotReadYet):
        documents.get(item(2), M, len)
    assert not idle(documents)

    assert read_all(documents) == 2

    assert idle(documents)
    assert (documents.get(item(1), M), documents.get(item(2), M)) == (b"e", 1)
    assert documents.jobs() == []


def test_a_changed_object_is_another_document() -> None:
    """By its ETag."""
    documents = wanting(item(1))
    read_all(documents)

    with pytest.raises(NotReadYet):
        documents.get(item(1, "other"), M)
    read_all(documents)

    assert documents.get(item(1, "other"), M) == b"other"
    assert documents.get(item(1), M) == b"e"


def test_what_failed_fails_until_the_next_listing() -> None:
    """Nobody asks the store for it again and again; the listing does not forget what is being read."""
    answers: list[bytes | StoreError] = [StoreError(Reason.STORE_FAILED, "no"), b"yes"]

    def read(_: StoredObject, __: object) -> bytes:
        found = answers.pop(0)
        if isinstance(found, StoreError):
            raise found
        return found

    documents = wanting(item(1))
    documents.read = read
    read_all(documents)
    for _ in range(2):
        with pytest.raises(StoreError):
            documents.get(item(1), M)
    assert documents.jobs() == []

    documents.listed()
    with pytest.raises(NotReadYet):
        documents.get(item(1), M)
    read_all(documents)

    assert documents.get(item(1), M) == b"yes"


def test_only_a_few_are_read_at_once() -> None:
    """However many are wanted; one that ends makes place for the next."""
    documents = wanting(*map(item, range(MOST_AT_ONCE + 3)))

    first = documents.jobs()

    assert len(first) == MOST_AT_ONCE
    assert documents.jobs() == []
    documents.ended(first[0], b"", None)
    assert len(documents.jobs()) == 1
    for job in first[1:]:
        documents.ended(job, b"", None)
    assert read_all(documents) == 2


def test_what_is_being_read_is_not_asked_for_twice() -> None:
    """Also if the store is listed meanwhile."""
    documents = wanting(item(1))
    (job,) = documents.jobs()

    documents.listed()
    with pytest.raises(NotReadYet):
        documents.get(item(1), M)

    assert documents.jobs() == []
    assert not idle(documents)
    documents.ended(job, b"late", None)
    assert idle(documents)
    assert documents.get(item(1), M) == b"late"


def test_a_reader_may_be_told_to_stop() -> None:
    """What reads gets the job's own context."""
    seen: list[bool] = []

    def read(_: StoredObject, context: object) -> bytes:
        assert isinstance(context, Context)
        seen.append(context.should_stop())
        context.check()
        return b""

    documents = wanting(item(1))
    documents.read = read
    (job,) = documents.jobs()
    context = Context()
    context.is_cancelled = True

    assert isinstance(run_job(job, context).error, Stopped)
    assert seen == [True]
