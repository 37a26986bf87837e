"""Drives a headless Chromium over its debugging pipe: no driver, no port, nothing to download."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--remote-debugging-pipe",
)

START = """
import os, sys
ends = [os.dup(int(end)) for end in sys.argv[1].split(",")]  # out of the way of 3 and 4
ends = [os.dup(end) if end in (3, 4) else end for end in ends]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""The browser reads commands from its descriptor 3 and writes answers to 4."""


def find_chromium() -> str | None:
    """Return where the browser is, if there is one."""
    return shutil.which("chromium") or shutil.which("google-chrome")


class Page:
    """One tab."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._numbers = itertools.count(1)
        self._rest = b""
        self._session: str | None = None
        self.messages: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def _call(self, method: str, **parameters: object) -> Any:
        number = next(self._numbers)
        message: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            if answer.get("method") == "Log.entryAdded":
                self.messages.append(answer["params"]["entry"]["text"])

    def _read(self) -> Any:
        while b"\0" not in self._rest:
            block = os.read(self._from, 1 << 20)
            assert block, "the browser has ended"
            self._rest += block
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def look_at(self, url: str, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Load a page at a window size, with light or dark preferred."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self._call("Emulation.setScrollbarsHidden", hidden=True)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=url)
        deadline = time.monotonic() + 30
        while self.run("document.readyState + location.href") != "complete" + url:
            assert time.monotonic() < deadline, "the page does not load"
            time.sleep(0.05)

    def scripts(self, *, on: bool) -> None:
        """Switch JavaScript on or off for the next page."""
        self._call("Emulation.setScriptExecutionDisabled", value=not on)

    def run(self, script: str) -> Any:
        """Return the value of an expression; a promise is waited for."""
        found = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self) -> str:
        """Return what a reader sees."""
        return str(self.run("document.body.innerText"))

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        found = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def chromium(program: str, folder: Path) -> Iterator[Page]:
    """Run a browser with an empty profile in `folder`; it is ended on leaving."""
    read_by_browser, to_browser = os.pipe()
    from_browser, written_by_browser = os.pipe()
    ends = f"{read_by_browser},{written_by_browser}"
    options = [*FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    command = [sys.executable, "-c", START, ends, program, *options]
    process = subprocess.Popen(
        command,
        pass_fds=(read_by_browser, written_by_browser),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_by_browser)
    os.close(written_by_browser)
    try:
        yield Page(to_browser, from_browser)
    finally:
        process.terminate()
        process.wait(20)
        os.close(to_browser)
        os.close(from_browser)
