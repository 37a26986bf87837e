"""An agent in a box, pointed at a fresh bucket."""

from pathlib import Path

import pytest

from agent_box import AgentBox
from fixtures_store import Bucket


@pytest.fixture
def box(tmp_path: Path, bucket: Bucket) -> AgentBox:
    """The agent's folder and settings; nothing runs yet."""
    server = bucket.server
    return AgentBox(tmp_path, server.endpoint_url, bucket.name, server.access_key, server.secret_key)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two models of the demo, trained once."""
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    out = tmp_path_factory.mktemp("exported")
    command = [sys.executable, "-m", "servesync.demo.models", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "No module named 'tensorflow'" in done.stderr:
        pytest.skip("no tensorflow here")
    assert done.returncode == 0, done.stderr[-2000:]
    return out
