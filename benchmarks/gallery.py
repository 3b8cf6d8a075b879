"""`python -m benchmarks.gallery` measures the gallery's page with many clips in a real browser.

The outputs are written once, below build/. Chromium opens the page from disk, in a window of
1280 by 800 pixels. A time ends with the frame that shows the change.
"""

import functools
import statistics
from typing import TYPE_CHECKING, Any

from benchmarks.command import Benchmark, Measure, Options, main
from benchmarks.report import ROOT, Cases, Figure, markdown_table, shown
from jobs.report.gallery import Gallery
from jobs.report.links import PlainLinks
from jobs.report.target import Target
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store
from tests.builders.browser import chromium, until, watched_page
from tests.builders.outputs import make_output

if TYPE_CHECKING:
    from playwright.sync_api import Browser

OUTPUTS = ROOT / "build" / "gallery"
SIZES = (1_000, 10_000)
FIRST_PAINT_S, FILTER_S = 2.0, 0.1  # goals
NUM_OPENED = 5
NUM_CHANGES = 10  # each kind so often
FIRST_TILE = """
new MutationObserver((_, observer) => {
    if (!document.querySelector(".tile")) return;
    observer.disconnect();
    requestAnimationFrame(() => setTimeout(() => (window.firstTileMs = performance.now())));
}).observe(document, {childList: true, subtree: true});
"""
LOADED = "window.firstTileMs && nagfarm.page.isLoaded"
TIMES = """() => ({
    paint_s: performance.getEntriesByName("first-contentful-paint")[0].startTime / 1000,
    tiles_s: window.firstTileMs / 1000,
    loaded_s: performance.now() / 1000,
    heap_mib: performance.memory.usedJSHeapSize / 2 ** 20,
    num_elements: document.querySelectorAll("*").length,
})"""
# A change of the state, and the time until its frame is painted.
CHANGE = """async (state) => {
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    const begin = performance.now();
    nagfarm.page.go(state);
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    return (performance.now() - begin) / 1000;
}"""
NO_FILTER: dict[str, Any] = {"query": "", "chosen": {}, "view": "clips", "sort": "name"}
CHANGES: dict[str, dict[str, Any]] = {
    "search a word": {"query": "fox"},
    "search a word that no clip has": {"query": "nothing"},
    "choose a negative prompt": {"chosen": {"negative_prompt": ["red"]}},
    "choose a method and a model": {"chosen": {"method": ["cfg"], "model": ["fake"]}},
    "sort by denoise time": {"sort": "denoise"},
    "open the grid": {"view": "grid"},
    "grid of prompts and seeds": {"view": "grid", "rows": "prompt", "columns": "seed"},
    "charts": {"view": "numbers"},
}
FILTERS = tuple(name for name in CHANGES if name.startswith(("search", "choose")))


def write_gallery(num_clips: int) -> str:
    """Return the URI of an output of so many clips and its gallery, written if it is missing."""
    folder = OUTPUTS / str(num_clips)
    store = open_store(folder.as_uri(), StoreConfig())
    if not (folder / "made").exists():
        make_output(store, num_clips)
        (folder / "made").touch()
    Gallery(store, Target(store, is_output=True), PlainLinks("../")).refresh()
    return f"{folder.as_uri()}/"


def measure(num_clips: int) -> dict[str, Any]:
    """Return the times of one size, in seconds."""
    root = write_gallery(num_clips)
    with chromium() as browser:
        opened = [open_once(browser, root) for _ in range(NUM_OPENED)]
        return {
            "num_clips": num_clips,
            "opened": {name: [one[name] for one in opened] for name in opened[0]},
            "changes": changes(browser, root),
        }


def open_once(browser: "Browser", root: str) -> dict[str, float]:
    """Open the page in a fresh context, so without a cache."""
    with watched_page(browser, root) as page:
        page.add_init_script(FIRST_TILE)
        page.goto(f"{root}report/index.html")
        until(page, LOADED)
        return page.evaluate(TIMES)


def changes(browser: "Browser", root: str) -> dict[str, list[float]]:
    """Return the times of each kind of change, each from the unfiltered clips."""
    with watched_page(browser, root) as page:
        page.add_init_script(FIRST_TILE)
        page.goto(f"{root}report/index.html#view=clips")
        until(page, LOADED)
        times: dict[str, list[float]] = {name: [] for name in CHANGES}
        for _ in range(NUM_CHANGES):
            for name, change in CHANGES.items():
                page.evaluate(CHANGE, NO_FILTER)
                times[name].append(page.evaluate(CHANGE, {**NO_FILTER, **change}))
        return times


def cases(options: Options) -> dict[str, Measure]:
    sizes = (20,) if options.tiny else SIZES
    return {f"{size:,} clips": functools.partial(measure, size) for size in sizes}


def figures(cases: Cases) -> list[Figure]:
    """Return the promised times, each the median of its tries."""
    found: list[Figure] = []
    for name, case in cases.items():
        slowest = max(statistics.median(case["changes"][one]) for one in FILTERS)
        paint, tiles = (statistics.median(case["opened"][one]) for one in ("paint_s", "tiles_s"))
        found += [
            Figure(f"{name}: first paint", paint, goal=FIRST_PAINT_S, unit="s"),
            Figure(f"{name}: first clips", tiles, goal=FIRST_PAINT_S, unit="s"),
            Figure(f"{name}: slowest filter", slowest, goal=FILTER_S, unit="s"),
        ]
    return found


def body(cases: Cases) -> str:
    """Return the page's text and tables."""
    opened = [
        (
            name,
            *(
                shown(statistics.median(case["opened"][one]), "s")
                for one in ("paint_s", "tiles_s", "loaded_s")
            ),
            shown(statistics.median(case["opened"]["heap_mib"]), "MiB"),
            f"{max(case['opened']['num_elements']):,}",
        )
        for name, case in cases.items()
    ]
    changed = [
        (
            change,
            *(
                ", ".join(
                    f"{time_s(case['changes'][change]) * 1000:.0f}"
                    for time_s in (min, statistics.median, max)
                )
                for case in cases.values()
            ),
        )
        for change in CHANGES
    ]
    head = ("opened", "first paint", "first clips", "all clips", "heap", "elements")
    return f"""\
The gallery's page in headless Chromium, which paints without a GPU. It is opened {NUM_OPENED}
times from disk, without a cache; medians:

{markdown_table(head, opened)}
"First clips" are on the page when the first part of the data is read, "all clips" at the end.

A change of the page, {NUM_CHANGES} times each, from the click to the frame that shows it, in
milliseconds: least, median, most.

{markdown_table(("change", *cases), changed)}"""


BENCHMARK = Benchmark(
    name="gallery",
    title="The gallery with many clips",
    about=__doc__ or "",
    libraries=("playwright",),
    cases=cases,
    figures=figures,
    body=body,
)

if __name__ == "__main__":
    main(BENCHMARK)
