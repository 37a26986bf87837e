"""The page in a real browser: what it says in four situations, and that it updates itself.

Screenshots go to the folder PAGE_SCREENSHOTS, if it is set, to be looked at. Contrast and labels are
checked by axe-core, if AXE_CORE names its `axe.min.js` (npm: axe-core).
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from admin_client import AdminClient
from agent_box import AgentBox
from big_models import files_of, small_archive
from browser import Page, chromium, find_chromium
from fixtures_store import Bucket
from http_stubs import door_before

Tree = dict[str, bytes]
NARROW = 360


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One browser for all tests."""
    program = find_chromium()
    if program is None:
        pytest.skip("no chromium here (Debian's package chromium)")
    with chromium(program, tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture
def tree(real_models: Path) -> Tree:
    """The files of a good model."""
    return files_of(real_models / "plain_module")


def contrast_and_labels(page: Page) -> list[str]:
    """Return what axe-core has against the page."""
    axe = os.environ.get("AXE_CORE")
    if not axe:
        return []
    page.run(Path(axe).read_text() + "; 1")
    return list(page.run("axe.run().then(found => found.violations.map(v => v.id + ': ' + v.nodes[0].html))"))


def check(page: Page, admin: AdminClient, name: str) -> str:
    """Look at the page wide and narrow, light and dark; return its text."""
    folder = os.environ.get("PAGE_SCREENSHOTS")
    admin.await_listening()
    page.look_at("about:blank")  # what the page before still says is not this test's
    page.messages.clear()
    for width, dark in ((1200, False), (1200, True), (NARROW, False), (NARROW, True)):
        page.look_at(f"{admin.url}/", width=width, dark=dark)
        assert page.run("document.documentElement.scrollWidth") <= width, "it must not scroll sideways"
        assert contrast_and_labels(page) == []
        if folder:
            page.screenshot(Path(folder) / f"{name}-{width}-{'dark' if dark else 'light'}.png")
    assert page.messages == [], "the browser has nothing to complain about"
    return page.text()


def becomes(box: AgentBox, page: Page, what: Callable[[str], bool]) -> None:
    """Wait until the page that is open shows something, without loading it again."""
    box.until(lambda: what(page.text()), "the page to update itself")


def test_idle(box: AgentBox, bucket: Bucket, tree: Tree, page: Page) -> None:
    """What is served, since when, and what comes next; then a new version appears by itself."""
    box.models = [{"name": "m", "versions": {"latest": 2}}, {"name": "other", "required": False}]
    admin = AdminClient.listen(box)
    for version in (1, 2, 3):
        bucket.put(f"prod/m/{version}.tar.gz", small_archive(tree, version))
    with box.running():
        box.until(lambda: box.numbers() == ["2", "3"])
        box.until(lambda: not admin.status()["activity"])
        text = check(page, admin, "idle")
        assert "Everything required is served" in text
        assert "No version in the store or on the disk" in text
        assert "not wanted" in text
        assert page.run("document.querySelectorAll('h1, h2, h3').length") >= 6
        bucket.put("prod/m/4.tar.gz", small_archive(tree, 4))
        becomes(box, page, lambda text: "policy (latest: 2)" in text and "\n4\n" in text.replace("\t", "\n"))
        assert page.messages == []


def test_installing(box: AgentBox, bucket: Bucket, tree: Tree, page: Page) -> None:
    """The progress of the download, which goes on by itself."""
    admin = AdminClient.listen(box)
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    box.overrides["fetch"] = {"max_bytes_per_second": 1 << 20}
    with box.running():
        box.until(lambda: box.numbers() == ["1"])
        bucket.put("prod/m/2.tar.gz", small_archive(tree | {"assets/big.bin": os.urandom(60 << 20)}, 2))
        box.until(lambda: ((admin.status()["activity"] or {}).get("done_bytes") or 0) > 1 << 20)
        text = check(page, admin, "installing")
        assert "fetch m 2" in text
        assert "one model is not yet as wanted" in text
        shown = page.run("document.querySelector('.bar').getAttribute('aria-label')")
        box.until(
            lambda: page.run("document.querySelector('.bar').getAttribute('aria-label')") != shown,
            "the bar to move",
        )


def test_a_refused_release(box: AgentBox, bucket: Bucket, tree: Tree, page: Page) -> None:
    """Which one, and why; what a publisher wrote into it is text and nothing else."""
    box.overrides["serving"] = {"rest_url": "http://127.0.0.1:9"}
    admin = AdminClient.listen(box)
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    bucket.put("prod/m/2.tar.gz", b"no archive <img src=x onerror=alert(1)>")
    with box.running():
        box.until(lambda: box.numbers() == ["1"] and box.events("version_refused"))
        box.until(lambda: admin.status()["troubles"])
        text = check(page, admin, "refused")
        assert "archive_format" in text
        assert "no archive <img" in text
        assert "server_unreachable" in text.replace(" ", "_")
        assert page.run("document.querySelectorAll('main img, main script').length") == 0


def test_contrast_and_labels(box: AgentBox, bucket: Bucket, tree: Tree, page: Page) -> None:
    """axe-core finds nothing, here and, where it is, in each situation above and below."""
    if not os.environ.get("AXE_CORE"):
        pytest.skip("no axe-core here: AXE_CORE names its axe.min.js (npm: axe-core)")
    admin = AdminClient.listen(box)
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    with box.running():
        box.until(lambda: box.numbers() == ["1"])
        check(page, admin, "axe")


def test_the_store_is_down(box: AgentBox, bucket: Bucket, tree: Tree, page: Page) -> None:
    """It is said first, with what to check; what is served is served. Then the agent itself goes."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    with door_before(box.endpoint_url) as (url, door):
        box.endpoint_url = url
        admin = AdminClient.listen(box)
        with box.running():
            box.until(lambda: box.numbers() == ["1"])
            door.state = "denied"
            box.until(lambda: admin.status()["troubles"])
            text = check(page, admin, "store-down")
            assert "not all is well" in text
            assert "s3:ListBucket" in text
        page.messages.clear()
        becomes(box, page, lambda text: "what you see is old" in text)
        page.messages.clear()


def test_all_but_the_updating_works_without_scripts(
    box: AgentBox, bucket: Bucket, tree: Tree, page: Page
) -> None:
    """And the page says so."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    admin = AdminClient.listen(box)
    with box.running():
        box.until(lambda: box.numbers() == ["1"])
        admin.await_listening()
        page.scripts(on=False)
        try:
            box.until(lambda: admin.ask("/readyz").status == 200, "ready")
            page.look_at(f"{admin.url}/")
            assert "Everything required is served" in page.text()
            assert "Without JavaScript" in page.text()
        finally:
            page.scripts(on=True)
