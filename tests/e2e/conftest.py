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
