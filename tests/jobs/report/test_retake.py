"""From a real run to the picks rendered again: render, report, look, pick, export, render.

With NAGFARM_SCREENSHOTS=FOLDER the test also writes the pictures of docs/how-to/gallery.md there.
"""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobs.records.commit import committed_ids, read_record
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store
from tests.builders.browser import chromium, until, watched_page

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.slow, pytest.mark.cluster, pytest.mark.models, pytest.mark.timeout(600),
]  # fmt: skip

REPOSITORY = Path(__file__).parents[3]
MANIFEST = """\
name: shapes
model: shapes-wan-4step
axes:
  prompt:
    - a circle moving right
    - a square moving up
    - a triangle standing still
  negative_prompt: ["", red, blue, "green, yellow"]
  seed: {range: [0, 2]}
  guidance: [{method: nag}, {method: cfg, guidance_scale: 3}]
combine: prompt * negative_prompt * seed * guidance
"""
NUM_CLIPS = 3 * 4 * 2 * 2
NUM_PICKS = 3


def nagfarm(*arguments: str, cwd: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    environment.pop("RAY_ADDRESS", None)
    finished = subprocess.run(
        [sys.executable, "-m", "jobs", *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr


def picture(page: "Page", name: str, folder: str | None) -> None:
    """Write a screenshot with few colours, so that it stays small."""
    if folder is None:
        return
    from PIL import Image

    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    small = image.quantize(160, dither=Image.Dither.NONE)
    small.save(Path(folder) / f"gallery-{name}.png", optimize=True)


def open_page(page: "Page", root: str, state: str = "") -> None:
    page.goto("about:blank")
    page.goto(f"{root}report/index.html#{state}")
    until(page, "nagfarm.page.isLoaded")


def test_picks_of_a_real_run_are_exported_and_rendered(tmp_path: Path) -> None:
    (tmp_path / "shapes.yaml").write_text(MANIFEST)
    shots = os.environ.get("NAGFARM_SCREENSHOTS")
    store = open_store((tmp_path / "out").as_uri(), StoreConfig())
    root = f"{(tmp_path / 'out').as_uri()}/"
    with chromium() as browser:
        nagfarm("render", "shapes.yaml", "--output", "./out", cwd=tmp_path)
        nagfarm("report", "./out", cwd=tmp_path)
        before = set(committed_ids(store))
        with watched_page(browser, root) as page:
            open_page(page, root)
            looked_at(page, shots)
            rows = exported(page, shots, tmp_path / "picks.jsonl")
        assert [row["seed"] for row in rows] == [5, 6, 7, 8] * NUM_PICKS
        nagfarm("render", "picks.jsonl", "--output", "./out", cwd=tmp_path)
        nagfarm("report", "./out", cwd=tmp_path)
        fresh = [read_record(store, one) for one in set(committed_ids(store)) - before]
        # a negative prompt that is empty has no effect, and so has a second method beside it
        assert len(fresh) == len({json.dumps(row) for row in rows})
        assert {one.request.sampling.seed for one in fresh} == {5, 6, 7, 8}
        assert {one.request.sampling.num_inference_steps for one in fresh} == {6}
        with watched_page(browser, root) as page:
            open_page(page, root, "view=clips&is.seed=7")
            assert page.get_by_role("listitem").count() == NUM_PICKS
        if shots:
            phone: dict[str, Any] = {"viewport": {"width": 390, "height": 720}, "is_mobile": True}
            with watched_page(browser, root, has_touch=True, **phone) as page:
                open_page(page, root)
                page.wait_for_timeout(500)
                picture(page, "phone", shots)


def looked_at(page: "Page", shots: str | None) -> None:
    """Look through the page of a real run: grid, playing videos, a clip beside another, charts."""
    assert page.locator(".column-head").all_inner_texts() == [
        "no negative prompt", "red", "blue", "green, yellow",
    ]  # fmt: skip
    page.keyboard.press("Space")
    until(
        page,
        "[...document.querySelectorAll('.tile video')].filter((one) => one.currentTime > 0.5)"
        ".length > 12",
    )
    page.keyboard.press("Space")
    until(page, "nagfarm.page.playback.group.ready().every((one) => !one.seeking)")
    picture(page, "grid", shots)
    page.keyboard.press("Escape")
    page.locator(".cell[data-row='0'][data-column='1'] .picture").first.click()
    strip = page.locator("section", has_text="Other negative prompts").last
    strip.locator(".picture").last.click()
    until(
        page,
        "[...document.querySelectorAll('.side video')].filter((one) => one.currentTime > 0.5)"
        ".length === 2",
    )
    page.keyboard.press("Space")
    page.wait_for_selector(".more-facts details")
    picture(page, "clip", shots)
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    assert page.locator(".chart canvas").count() == 4
    picture(page, "numbers", shots)
    page.keyboard.press("g")


def exported(page: "Page", shots: str | None, path: Path) -> list[dict[str, Any]]:
    """Pick clips of one seed by the keyboard, and export them with other seeds and steps."""
    page.keyboard.press("c")
    page.evaluate("nagfarm.page.choose('method', ['nag'])")
    page.evaluate("nagfarm.page.choose('seed', ['1'])")
    for _ in range(NUM_PICKS):
        page.keyboard.press("ArrowRight")
        page.keyboard.press("p")
        page.keyboard.press("4")
    page.get_by_role("button", name="Clear filters").click()
    page.keyboard.press("k")
    page.get_by_role("textbox", name="Seeds").fill("5..8")
    page.get_by_role("textbox", name="Steps").fill("6")
    if shots:  # a picture for everyone has no path of this machine
        page.evaluate("nagfarm.page.source.index.uri = 's3://renders/shapes'")
        page.evaluate("nagfarm.page.form.show()")
    picture(page, "picks", shots)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download picks.jsonl").click()
    download.value.save_as(path)
    return [json.loads(line) for line in path.read_text().splitlines()]
