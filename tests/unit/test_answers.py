"""What the model server says counts as soon as it is said; where it says nothing, and of which model."""

from pathlib import Path

import pytest

from agent_parts import HandClock, Parts, PromptJobs, ServerStub, settings_of
from servesync.agent.agent import Agent
from servesync.agent.asking import PATIENCE_SECONDS
from servesync.domain.versions import Model, Version
from servesync.errors import Reason, ServerError
from servesync.install import Workspace
from servesync.jobs import Job, JobKind, Running
from servesync.planning.facts import Served, ServerState

M, N = Model("m"), Model("n")
UP = Served(ServerState.AVAILABLE)
SILENT = ServerError(Reason.SERVER_UNREACHABLE, "no answer")


class _Later:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.is_cancelled = False

    def cancel(self) -> None:
        """Note it."""
        self.is_cancelled = True


class SlowServer(PromptJobs):
    """Questions to the server are answered when the test says so; all other jobs run at once."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[_Later] = []

    def start(self, job: Job) -> Running:
        """Keep a question to the server."""
        if job.kind is not JobKind.ASK_SERVER:
            return super().start(job)
        self.asked.append(_Later(job))
        return self.asked[-1]

    def answer(self) -> None:
        """Let the server answer the oldest question."""
        super().start(self.asked.pop(0).job)


class Scene:
    """An agent that only looks, beside a server that is slow."""

    def __init__(self, folder: Path, *names: str) -> None:
        workspace = Workspace(folder / "models")
        workspace.claim()
        workspace.prepare([Model(name) for name in names])
        self.jobs, self.clock, self.server = SlowServer(), HandClock(), ServerStub()
        self.parts = Parts(server=self.server, clock=self.clock, jobs=self.jobs)
        serving = {"models_dir": str(workspace.models_dir), "rest_url": "http://127.0.0.1:9"}
        self.agent: Agent = self.parts.agent(settings_of(workspace.models_dir, *names, serving=serving))

    def said(self, *, refresh: bool = False) -> object:
        """Take a turn; return what it took for the server's word on `m`: None while it waits for one."""
        seen = self.agent.turn(refresh=refresh).seen
        if seen is None:
            return None
        return seen.snapshot.models[M].facts.server.versions or {}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """One model."""
    return Scene(tmp_path, M)


def test_a_server_that_does_not_answer_counts_as_silent_after_a_while(scene: Scene) -> None:
    """Until it does; nobody else waits for it, and no second question is asked."""
    scene.server.said = {M: {Version(1): UP}}
    assert scene.said(refresh=True) is None
    scene.clock.seconds += PATIENCE_SECONDS - 0.01
    assert scene.said() is None

    scene.clock.seconds += 0.01
    assert scene.said() == {}
    assert scene.said() == {}

    scene.jobs.answer()
    assert scene.said() == {1: UP}


def test_news_asks_anew(scene: Scene) -> None:
    """An answer that is older than the news is not the last word: a new question follows it."""
    scene.server.said = {M: {Version(1): UP}}
    scene.agent.turn()
    scene.clock.seconds += 0.5
    scene.agent.turn()
    scene.jobs.answer()
    scene.server.said = {M: {Version(2): UP}}

    assert scene.said() is None
    scene.jobs.answer()

    assert scene.said() == {2: UP}


def test_where_one_model_is_unreachable_the_others_are_not_asked(tmp_path: Path) -> None:
    """It is the same server: a second wait tells nothing new."""
    scene = Scene(tmp_path, M, N)
    scene.server.said = {M: SILENT, N: {Version(1): UP}}
    scene.agent.turn()
    scene.jobs.answer()

    seen = scene.agent.turn(refresh=False).seen

    assert seen is not None
    assert seen.server_error is SILENT
    assert [seen.snapshot.models[model].facts.server.versions for model in (M, N)] == [None, None]


def test_one_models_bad_answer_is_no_others(tmp_path: Path) -> None:
    """Something answers, so the others are asked."""
    scene = Scene(tmp_path, M, N)
    scene.server.said = {M: ServerError(Reason.SERVER_BAD_ANSWER, "html"), N: {Version(1): UP}}
    scene.agent.turn()
    scene.jobs.answer()

    seen = scene.agent.turn(refresh=False).seen

    assert seen is not None
    assert seen.snapshot.models[M].facts.server.versions is None
    assert seen.snapshot.models[N].facts.server.versions == {1: UP}


def test_a_bug_in_the_question_counts_as_silence(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it does where no thread can be started: nothing is decided on an old answer."""
    scene.server.said = {M: {Version(1): UP}}
    scene.agent.turn()
    scene.jobs.answer()
    assert scene.said() == {1: UP}

    def refuse(*_: object) -> None:
        raise ServerError(Reason.THREADS_EXHAUSTED, "no thread")

    monkeypatch.setattr(scene.server, "status", refuse)
    scene.clock.seconds += 5
    scene.agent.turn()
    scene.jobs.answer()

    assert scene.said() == {}
