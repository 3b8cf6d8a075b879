"""The gallery's page in a real browser, on a real gallery of real MP4s, from disk and by http."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from jobs.media.encode import encode_mp4
from jobs.media.sound import facts_of
from jobs.records.commit import JSON, MP4, read_record
from jobs.records.keys import clip_key, record_key
from jobs.records.scores.score_record import write_score
from jobs.report.gallery import Gallery
from jobs.report.links import PlainLinks
from jobs.report.target import Target
from jobs.settings.run_config import EncodingConfig, StoreConfig
from jobs.store.store import Store, open_store
from pipelines.request import AudioTrack, VideoFrames
from tests.builders.browser import chromium, until, watched_page, web_server
from tests.builders.outputs import NEGATIVES, PROMPTS, make_output
from tests.builders.records import score_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NUM_CLIPS = 200


@dataclass(frozen=True)
class Output:
    """An output with its gallery on disk."""

    store: Store
    folder: Path
    committed: tuple[str, ...]

    @property
    def root(self) -> str:
        return f"{self.folder.as_uri()}/"

    @property
    def url(self) -> str:
        return f"{self.root}report/index.html"

    def refresh(self, *, is_running: bool = False) -> None:
        gallery = Gallery(
            self.store, Target(self.store, is_output=True), PlainLinks("../"), refresh_s=0.2
        )
        gallery.refresh(is_running=is_running)


def made(folder: Path, num_clips: int) -> Output:
    store = open_store(folder.as_uri(), StoreConfig())
    output = Output(store, folder, make_output(store, num_clips).committed)
    output.refresh()
    return output


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def output(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Output:
    return made(tmp_path_factory.mktemp("output") / "spring", NUM_CLIPS)


@pytest.fixture(scope="module")
def opened(browser: "Browser", output: Output) -> "Iterator[Page]":
    with watched_page(browser, output.root, viewport={"width": 960, "height": 600}) as page:
        open_view(page, output.url, "")
        yield page


@pytest.fixture
def page(opened: "Page") -> "Page":
    """Return the page that most tests share, as a new reader would see it."""
    opened.mouse.move(0, 0)
    opened.evaluate(
        """() => {
            const { page, route } = nagfarm;
            localStorage.clear();
            page.picks.read();
            if (page.playback.isInStep) page.playback.stopInStep();
            clearTimeout(page.playback.timer);
            page.playback.hover(null); // the pointer has left, a moment ago
            document.activeElement.blur();
            page.go(route.DEFAULT);
            page.view.scroller.scrollTop = 0;
        }"""
    )
    return opened


def open_view(page: "Page", url: str, state: str) -> None:
    page.goto(f"{url}#{state}")
    until(page, "nagfarm.page.source.index !== null && nagfarm.page.isLoaded")


def go(page: "Page", **state: Any) -> None:
    page.evaluate("state => nagfarm.page.go(state)", state)


def found(page: "Page") -> str:
    return page.locator(".found").inner_text()


def names(page: "Page") -> list[str]:
    """Return the names of the tiles that are drawn, in their order on the page."""
    return page.evaluate(
        "[...document.querySelectorAll('.clips-view:not([hidden]) .tile')]"
        ".sort((a, b) => a.dataset.place - b.dataset.place)"
        ".map((tile) => tile.querySelector('.name').textContent)"
    )


def playing(page: "Page") -> int:
    return page.evaluate(
        "[...document.querySelectorAll('.tile video')].filter((one) => one.currentTime > 0).length"
    )


def test_the_grid_has_prompts_down_and_negative_prompts_across(page: "Page") -> None:
    heads = page.locator(".column-head").all_inner_texts()
    assert heads == ["no negative prompt", *NEGATIVES[1:]]
    assert page.locator(".corner").inner_text() == "Prompt"
    page.locator(".grid-view .scroller").evaluate("one => one.scrollTop = 1e6")
    until(page, f"document.querySelectorAll('[aria-rowindex=\"{len(PROMPTS) + 1}\"]').length")
    seen = set(page.locator(".row-head").all_text_contents())
    assert seen <= set(PROMPTS)
    assert PROMPTS[-1] in seen
    # any two axes: the same clips by method and model
    page.get_by_label("Rows", exact=True).select_option("method")
    page.get_by_label("Columns", exact=True).select_option("model")
    assert set(page.locator(".row-head").all_inner_texts()) == {"nag", "cfg"}
    assert page.locator(".column-head").all_inner_texts() == ["fake", "coarse"]
    # a cell of many clips leads to all of them
    page.locator(".more-clips").first.click()
    assert page.get_by_role("listitem").count() > 4
    assert set(page.locator(".clips-view .value").all_inner_texts()) == {"nag"}


def test_a_clip_plays_under_the_pointer_and_all_play_in_step(page: "Page") -> None:
    pictures = page.locator(".grid-view .picture")
    assert page.locator("video").count() == 0  # pictures alone until then
    pictures.nth(2).hover()
    until(page, "document.querySelector('.tile video')?.currentTime > 0")
    pictures.nth(3).hover()
    until(
        page,
        "document.querySelectorAll('.tile video').length === 1"
        " && document.querySelectorAll('.grid-view .tile')[3].querySelector('video')",
    )
    page.keyboard.press("Space")
    until(
        page,
        "[...document.querySelectorAll('.tile video')].filter((one) => one.currentTime > 0.2)"
        ".length > 20",
    )
    page.keyboard.press("Space")  # a pause sets all of them to one frame
    until(
        page,
        "!nagfarm.page.playback.group.isPlaying && nagfarm.page.playback.group.ready().every("
        "(one) => one.paused && !one.seeking)",
    )
    page.evaluate("nagfarm.page.playback.group.seek(0.5)")  # there is a next frame
    until(page, "nagfarm.page.playback.group.ready().every((one) => !one.seeking)")
    times = page.evaluate("nagfarm.page.playback.group.ready().map((one) => one.currentTime)")
    assert len(times) > 20
    assert max(times) - min(times) < 0.01
    page.keyboard.press(".")
    until(
        page,
        f"nagfarm.page.playback.group.ready().every((one) => !one.seeking &&"
        f" Math.abs(one.currentTime - {times[0]}) > 0.01)",
    )
    assert page.locator(".tile[data-source] video").count() <= 60
    page.keyboard.press("Escape")
    assert page.locator("video").count() == 0


def test_filters_and_the_order(page: "Page", output: Output) -> None:
    page.keyboard.press("c")
    assert found(page) == f"{NUM_CLIPS} clips"
    page.get_by_role("button", name="Status", exact=True).click()
    page.get_by_role("dialog").get_by_label("committed").check()
    page.keyboard.press("Escape")
    assert found(page) == f"{len(output.committed)} of {NUM_CLIPS} clips"
    page.get_by_role("button", name="Method", exact=True).click()
    page.get_by_role("dialog").get_by_label("cfg").check()
    page.keyboard.press("Escape")
    records = [read_record(output.store, one) for one in output.committed]
    of_cfg = [one for one in records if one.request.method == "cfg"]
    assert found(page) == f"{len(of_cfg)} of {NUM_CLIPS} clips"
    page.keyboard.press("/")
    page.keyboard.type("FOX snow red")
    of_fox = [one for one in of_cfg if "fox" in one.request.prompt
              and "red" in one.request.negative_prompt]  # fmt: skip
    assert 0 < len(of_fox) < len(of_cfg)
    assert found(page) == f"{len(of_fox)} of {NUM_CLIPS} clips"
    page.keyboard.press("Escape")
    page.get_by_label("Sort by").select_option("denoise")
    by_time = sorted(of_fox, key=lambda one: (round(one.stage_totals_s["denoise"], 4), one.name))
    assert names(page) == [one.name for one in by_time]
    page.get_by_role("button", name="Order: ascending").click()
    assert names(page) != [one.name for one in by_time]
    assert names(page)[0] in {one.name for one in by_time[-3:]}
    # a tile that was there before the last change leads to its clip, and changes no filter
    page.locator(".clips-view .picture").first.click()
    page.keyboard.press("Escape")
    assert found(page) == f"{len(of_fox)} of {NUM_CLIPS} clips"
    # the address has it all: the page opened anew shows the same
    before = names(page)
    page.reload()
    page.wait_for_selector(".clips-view .tile")
    assert names(page) == before
    page.get_by_role("button", name="Clear filters").click()
    assert found(page) == f"{NUM_CLIPS} clips"


def test_clips_are_sorted_by_a_score_and_show_it(browser: "Browser", tmp_path: Path) -> None:
    output = made(tmp_path / "scored", 3)
    high, low, without = output.committed
    for clip_id, value in ((high, 31.52345), (low, 20.0)):
        write_score(output.store, score_of(clip_id, "clip", "a", 9, prompt=value))
    output.refresh()
    by_id = {one: read_record(output.store, one).name for one in output.committed}
    with watched_page(browser, output.root) as page:
        open_view(page, output.url, "view=clips")
        page.get_by_label("Sort by").select_option(label="Score clip.prompt")
        assert names(page) == [by_id[low], by_id[high], by_id[without]]
        assert page.locator(".clips-view .caption .value").all_inner_texts()[:2] == ["20", "31.52"]
        page.get_by_role("button", name="Order: ascending").click()
        assert names(page) == [by_id[high], by_id[low], by_id[without]]
        go(page, clip=high)
        facts = page.locator(".clip-view dl").inner_text().split("\n")
        assert facts[facts.index("Score clip.prompt") + 1] == "31.52"
        go(page, clip=without)
        assert "Score clip.prompt" not in page.locator(".clip-view dl").inner_text()


def test_a_clip_beside_its_neighbours(page: "Page", output: Output) -> None:
    record = next(
        one for one in (read_record(output.store, own) for own in output.committed)
        if one.request.prompt == PROMPTS[0] and one.request.method == "cfg"
    )  # fmt: skip
    go(page, clip=record.clip_id)
    view = page.locator(".clip-view")
    assert view.locator("h1").inner_text() == record.name
    view.get_by_text("Record", exact=True).click()
    shown = json.loads(view.locator("pre.code").last.text_content() or "")
    assert shown == json.loads(record.to_json())
    strips = dict(
        zip(view.locator(".strips h2").all_inner_texts(), view.locator(".strip").all(), strict=True)
    )
    assert {"Other negative prompts", "Other methods", "Other models"} <= {
        one.strip() for one in strips
    }
    negatives = strips["Other negative prompts"].locator(".prompt").all_inner_texts()
    assert set(negatives) <= {"no negative prompt", *NEGATIVES} - {record.request.negative_prompt}
    strips["Other negative prompts"].locator(".picture").first.click()
    until(
        page,
        "[...document.querySelectorAll('.side video')].filter((one) => one.currentTime > 0)"
        ".length === 2",
    )
    border = "getComputedStyle(document.querySelector('.second')).clipPath"
    assert page.evaluate(border) == "inset(0px 0px 0px 50%)"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(border) == "inset(0px 0px 0px 52%)"
    view.get_by_label("Border between the two clips").fill("20")
    assert page.evaluate(border) == "inset(0px 0px 0px 20%)"
    view.get_by_role("button", name="Side by side").click()
    boxes = [one.bounding_box() for one in view.locator(".side").all()]
    assert boxes[0]
    assert boxes[1]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    first = page.evaluate("nagfarm.page.state.beside")
    page.locator(".clip-view").focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("nagfarm.page.state.beside") != first
    page.keyboard.press("Escape")
    assert view.is_hidden()
    assert page.locator(".clip-view video").count() == 0  # nothing goes on behind


def give_sound(output: Output, clip_id: str, folder: Path) -> None:
    """Commit a clip anew, with a second of a tone as nagfarm encodes it."""
    time_s = np.arange(24_000) / 24_000
    wave = (0.3 * np.sin(2 * np.pi * 220 * time_s)).astype(np.float32)
    audio = AudioTrack(np.stack([wave, wave], axis=1), 24_000)
    frames = np.random.default_rng(0).integers(0, 256, (8, 64, 96, 3), np.uint8)
    path = folder / "clip.mp4"
    encode_mp4(VideoFrames(frames, 8, audio), path, EncodingConfig(), {"clip_id": clip_id})
    body, record = path.read_bytes(), read_record(output.store, clip_id)
    sha256 = hashlib.sha256(body).hexdigest()
    key = clip_key(clip_id, sha256)
    output.store.put(key, body, MP4)
    heard = replace(
        record, sha256=sha256, key=key, uri=output.store.uri_of(key), num_bytes=len(body),
        audio=facts_of(audio),
    )  # fmt: skip
    output.store.put(record_key(clip_id), heard.to_json(), JSON)
    output.refresh()


def test_a_clip_with_sound_plays_with_it_and_others_offer_none(
    browser: "Browser", tmp_path: Path
) -> None:
    output = made(tmp_path / "heard", 2)
    silent, loud = output.committed
    give_sound(output, loud, tmp_path)
    video = "document.querySelector('.side video')"
    # from disk the page could not look into its video
    with web_server(output.folder) as root, watched_page(browser, root) as page:
        open_view(page, f"{root}report/index.html", f"clip={loud}")
        sound = page.locator(".player .sound")
        assert sound.is_visible()
        assert "aac, 24 kHz stereo" in page.locator(".clip-view .facts").inner_text()
        assert page.evaluate(f"{video}.muted")
        page.keyboard.press("m")
        until(page, f"!{video}.muted && !{video}.paused && {video}.webkitAudioDecodedByteCount > 0")
        tracks = "(stream => [stream.getVideoTracks().length, stream.getAudioTracks().length])"
        assert page.evaluate(f"{tracks}({video}.captureStream())") == [1, 1]
        go(page, clip=silent)
        assert sound.is_hidden()


def test_failures_with_class_message_and_traceback(page: "Page") -> None:
    page.get_by_role("link", name="Failures").click()
    groups = page.locator(".failure-group h2").all_inner_texts()
    assert [one.split() for one in groups] == [
        ["memory", "OutOfMemoryError", "5", "clips"], ["clip", "FrameCheckError", "3", "clips"],
    ]  # fmt: skip
    quarantined = page.locator(".failed-clips details", has=page.get_by_text("quarantined")).first
    quarantined.locator("summary").first.click()
    attempts = quarantined.locator(".attempt")
    attempts.nth(1).wait_for()
    assert attempts.count() == 2
    assert "<img src=x onerror=alert(" in attempts.first.inner_text()
    assert "second line" in attempts.first.inner_text()
    attempts.first.locator("summary").click()
    assert 'File "model.py", line 7' in attempts.first.locator("pre").inner_text()
    assert "failed on 2 workers" in quarantined.inner_text()


def test_charts_of_what_the_filters_leave(page: "Page") -> None:
    page.keyboard.press("n")
    charts = page.locator(".chart")
    titles = charts.locator("figcaption").all_inner_texts()
    assert [one.split(",")[0] for one in titles] == [
        "Clips committed every 10 seconds", "Seconds of each stage",
        "Share of time in which devices were busy", "Peak memory",
    ]  # fmt: skip
    assert page.locator(".chart canvas").count() == 4
    is_filled = "document.querySelector('.chart').querySelector('.table-scroll td')"
    charts.first.get_by_text("As a table").click()
    until(page, is_filled)  # when the browser reports that it opened
    counts = charts.first.locator(".table-scroll td").all_inner_texts()
    assert sum(map(int, counts)) == int(page.locator(".tiles dd").first.inner_text())
    go(page, query="fox")
    until(page, f"!{is_filled}")  # the charts are drawn anew
    page.locator(".chart").first.get_by_text("As a table").click()
    until(page, is_filled)
    fewer = page.locator(".chart").first.locator(".table-scroll td").all_inner_texts()
    assert 0 < sum(map(int, fewer)) < sum(map(int, counts))
    assert "denoise" in page.locator("section", has_text="Stages by model").last.inner_text()


def test_the_cost_by_model_and_stage_with_the_waste_and_the_price(page: "Page") -> None:
    page.keyboard.press("n")
    section = page.locator("section", has_text="Cost in device-hours").last
    names = section.locator("thead th").all_inner_texts()
    cells = section.locator("tbody tr").locator("th, td").all_inner_texts()
    assert dict(zip(names, cells, strict=True)) == {
        "Model": "fake", "Device": "cpu", "All": "2.60", "denoise": "2.00", "decode": "0.500",
        "wasted: failed": "0.100", "Price": "USD 6.50",
    }  # fmt: skip
    assert {"2.60", "3.8%", "USD 6.50"} <= set(page.locator(".tiles dd").all_inner_texts())


def test_picks_last_and_become_a_manifest(page: "Page", output: Output) -> None:
    pictures = page.locator(".grid-view .picture")
    for at in (0, 5):
        pictures.nth(at).hover()
        until(page, f"nagfarm.page.playback.hovered === document.querySelectorAll('.tile')[{at}]")
        page.keyboard.press("p")
    page.keyboard.press("4")
    ids = page.evaluate("nagfarm.page.picks.picked()")
    assert len(ids) == 2
    page.reload()
    page.wait_for_selector(".is-picked")
    assert page.locator(".is-picked .stars").all_inner_texts().count("★★★★") == 1
    page.keyboard.press("k")
    assert page.get_by_role("listitem").count() == 2
    page.get_by_role("textbox", name="Seeds").fill("5..8, 9007199254740993")
    page.get_by_role("textbox", name="Steps").fill("25")
    assert page.locator(".result").inner_text() == "2 picks \u00d7 5 seeds = 10 rows"
    with page.expect_download() as download:
        page.get_by_role("button", name="Download picks.jsonl").click()
    lines = download.value.path().read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["seed"] for row in rows[:5]] == [5, 6, 7, 8, 9007199254740993]
    assert {row["num_inference_steps"] for row in rows} == {25}
    assert len({row["name"] for row in rows}) == 10
    for own_id, row in zip(sorted(ids), rows[::5], strict=True):
        request = read_record(output.store, own_id).request
        assert (row["prompt"], row["method"]) == (request.prompt, request.method)
    page.get_by_role("textbox", name="Seeds").fill("8..5")
    assert "ends before it begins" in page.locator(".result").inner_text()
    assert page.get_by_role("button", name="Download picks.jsonl").is_disabled()


def test_texts_of_strangers_stay_texts(page: "Page") -> None:
    page.keyboard.press("c")
    for prompt in PROMPTS[4:]:
        go(page, chosen={"prompt": [prompt]})
        shown = page.locator(".clips-view .prompt").first
        assert shown.text_content() == prompt
        assert shown.get_attribute("dir") == "auto"
    assert page.evaluate("document.querySelectorAll('main b, main img[onerror]').length") == 0
    go(page, chosen={"negative_prompt": [NEGATIVES[3]]}, query="<script>")
    assert found(page) != f"0 of {NUM_CLIPS} clips"


@pytest.mark.slow  # a page of its own
def test_an_open_page_picks_up_new_clips(browser: "Browser", tmp_path: Path) -> None:
    with watched_page(browser, f"{tmp_path.as_uri()}/") as page:
        output = made(tmp_path, 20)
        output.refresh(is_running=True)
        open_view(page, output.url, "view=clips&sort=committed")
        assert found(page) == "20 clips"
        assert page.locator(".live").inner_text() == "rendering"
        make_output(output.store, 30)
        output.refresh(is_running=True)
        until(page, "document.querySelector('.found').textContent === '30 clips'")
        assert page.locator("#message").inner_text() == "10 new clips"
        output.refresh()
        until(page, "document.querySelector('.live').textContent === ''")


@pytest.mark.slow  # a page of its own
def test_a_web_server_shows_the_same_and_nothing_else_is_asked(
    browser: "Browser", output: Output
) -> None:
    with web_server(output.folder) as root, watched_page(browser, root) as page:
        open_view(page, f"{root}report/index.html", "")
        page.locator(".grid-view .picture").first.hover()
        until(page, "document.querySelector('.tile video')?.currentTime > 0")
        page.keyboard.press("Space")
        until(page, "nagfarm.page.playback.group.time_s > 0.5")
        page.keyboard.press("Space")
        # a video waits just before its end, and the clock may stand behind that
        page.evaluate("nagfarm.page.playback.group.seek(nagfarm.page.playback.group.time_s)")
        until(
            page,
            "nagfarm.page.playback.group.ready().every((one) => !one.seeking"
            " && Math.abs(one.currentTime - nagfarm.page.playback.group.time_s) < 0.01)",
        )


def test_keys_alone_lead_through_the_page(page: "Page") -> None:
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keys").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowDown")  # the first cell
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    cell = page.evaluate("({...document.activeElement.closest('.cell').dataset})")
    assert (cell["row"], cell["column"]) == ("1", "1")
    for _ in range(len(PROMPTS)):
        page.keyboard.press("ArrowDown")  # rows that were not drawn before
    last = page.evaluate("document.activeElement.closest('.cell').dataset.row")
    assert int(last) == len(PROMPTS) - 1
    focused = page.evaluate("document.activeElement.closest('.tile').dataset.id")
    page.keyboard.press("Enter")
    assert page.evaluate("nagfarm.page.state.clip") == focused
    page.keyboard.press("p")
    assert page.evaluate("nagfarm.page.picks.picked()") == [focused]
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.closest('.tile').dataset.id") == focused
    page.keyboard.press("]")
    assert "at=1" in page.url


def unnamed(page: "Page") -> list[str]:
    """Return the controls without an accessible name, as a reader of the screen would get them."""
    session = page.context.new_cdp_session(page)
    tree = session.send("Accessibility.getFullAXTree")
    roles = {"button", "link", "textbox", "searchbox", "combobox", "checkbox", "slider", "grid"}
    return [
        f"{node['role']['value']} {node['nodeId']}"
        for node in tree["nodes"]
        if not node["ignored"]
        and node["role"]["value"] in roles
        and not node.get("name", {}).get("value", "").strip()
    ]


def test_an_address_and_a_storage_of_strangers_break_nothing(page: "Page") -> None:
    for name in ("__proto__", "constructor", "meta.none"):
        for state in (f"is.{name}=x", f"rows={name}", f"columns={name}", f"slice={name}"):
            for view in ("clips", "numbers", "grid"):
                page.evaluate(
                    "hash => nagfarm.page.go(nagfarm.route.fromHash(hash))", f"view={view}&{state}"
                )
        assert page.locator(".grid-view .tile").count() > 0
    go(page, chosen={"meta.none": ["x"]})
    page.get_by_role("button", name="Note none").click()  # a list without values
    page.keyboard.press("Escape")
    number = """kept => {
        localStorage.setItem("nagfarm x", kept);
        return nagfarm.preferences.number("x", 2, 5);
    }"""
    assert [page.evaluate(number, kept) for kept in ("4", "5", "-1", "1.5", "x")] == [4, 2, 2, 2, 2]


def test_clips_without_times_have_numbers_and_clips_without_a_video_no_player(
    page: "Page",
) -> None:
    page.evaluate(
        """() => {
            const { numbers } = nagfarm.page.clips;
            for (const id of Object.keys(numbers)) if (/^stage:/.test(id)) numbers[id].fill(NaN);
        }"""
    )
    go(page, view="numbers")
    assert page.locator(".chart canvas").count() == 3
    page.evaluate("nagfarm.page.source.show(nagfarm.page.source.index)")  # the times again
    assert page.locator(".chart canvas").count() == 4
    go(page, view="failures")
    title = page.locator(".failure-group h2 [dir]").first
    title.evaluate("one => one.textContent = 'X'.repeat(500)")
    content = page.locator(".scroller.failures")
    assert content.evaluate("one => one.scrollWidth <= one.clientWidth")
    page.locator(".failed-clips details").first.evaluate(
        "one => nagfarm.page.go({clip: one.dataset.id})"
    )
    assert page.locator(".player .side").is_visible()
    assert page.locator(".player .transport").is_hidden()


def test_a_chart_of_one_moment_spans_a_minute_around_it(page: "Page") -> None:
    page.evaluate(
        """() => {
            window.plots = [];
            window.uPlot = class extends uPlot {
                constructor(...options) { super(...options); window.plots.push(this); }
            };
        }"""
    )
    go(page, view="numbers", query="clip-00003")
    spans = page.evaluate("plots.map((one) => one.scales.x.max - one.scales.x.min)")
    assert spans == [60] * 4


def test_a_video_that_cannot_be_loaded_says_so(page: "Page", output: Output) -> None:
    go(page, clip=output.committed[0])
    label = page.locator(".side .side-label")
    assert label.text_content() == ""
    page.locator(".side video").evaluate("one => one.dispatchEvent(new Event('error'))")
    assert label.text_content() == "This video cannot be loaded"


def test_every_control_has_a_name(page: "Page", output: Output) -> None:
    for view in ("grid", "clips", "failures", "numbers", "picks"):
        go(page, view=view)
        assert unnamed(page) == [], view
    go(page, clip=output.committed[0])
    page.wait_for_selector(".clip-view pre", state="attached")
    assert unnamed(page) == []


@pytest.mark.slow  # a page of its own
def test_a_phone_in_the_dark(browser: "Browser", output: Output) -> None:
    phone = {"width": 390, "height": 800}
    options: dict[str, Any] = {"viewport": phone, "has_touch": True, "is_mobile": True}
    with watched_page(browser, output.root, color_scheme="dark", **options) as page:
        open_view(page, output.url, "")
        for view in ("grid", "clips", "failures", "numbers", "picks"):
            go(page, view=view)
            assert page.evaluate("document.documentElement.scrollWidth") == phone["width"], view
        red, *_ = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)")
        assert int(red) < 60
        go(page, view="clips")
        page.get_by_role("button", name="Filters").tap()
        assert page.get_by_role("button", name="Prompt", exact=True).is_visible()
        page.locator(".clips-view .picture").first.tap()
        player = page.locator(".clip-view .stage").bounding_box()
        assert player
        assert player["width"] <= phone["width"]
        assert page.evaluate("document.documentElement.scrollWidth") == phone["width"]
