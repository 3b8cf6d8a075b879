"""A real browser for tests of the gallery: the chromium of this machine, driven by playwright.

A watched page notes what must never happen: an error, a dialog, a request off its origin.
"""

import functools
import http.server
import io
import json
import os
import re
import shutil
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Dialog, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Generator["Browser"]:
    """Start the browser; the test is skipped on a machine without one."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"needs a browser on the PATH: {', '.join(NAMES)}")
    # the sandbox needs rights that root in a container lacks
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=flags)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Troubles:
    """The notes of one page: nothing may be in them."""

    root: str
    notes: list[str] = field(default_factory=list[str])

    def watch(self, page: "Page") -> None:
        page.on("console", lambda line: self._note(line.type in ("error", "warning"), line.text))
        page.on("pageerror", lambda error: self._note(True, f"exception: {error}"))
        page.on("dialog", self._dismiss)
        page.on("request", lambda request: self._note(self._is_off(request.url), request.url))
        page.on(
            "response",
            lambda answer: self._note(answer.status >= 400, f"{answer.status} {answer.url}"),
        )

    def _dismiss(self, dialog: "Dialog") -> None:
        self._note(True, "a dialog")
        dialog.dismiss()

    def _is_off(self, url: str) -> bool:
        return not url.startswith((self.root, "blob:", "data:image/"))

    def _note(self, is_trouble: bool, text: str) -> None:
        if is_trouble:
            self.notes.append(text)


@contextmanager
def watched_page(browser: "Browser", root: str, **options: Any) -> Generator["Page"]:
    """Open a page that must stay below `root`, and check at its end that it caused no trouble.

    Args:
        root: URL of the output.
        options: options of the context of the browser, such as `color_scheme`.
    """
    options = {"viewport": {"width": 1280, "height": 800}, **options}
    context: BrowserContext = browser.new_context(**options)
    context.set_default_timeout(15_000)
    page = context.new_page()
    troubles = Troubles(root)
    troubles.watch(page)
    try:
        yield page
    finally:
        context.close()
    assert troubles.notes == []


def until(page: "Page", expression: str, timeout_s: float = 20) -> None:
    """Wait until a JavaScript expression is true, frame by frame.

    The waits of playwright evaluate texts in the page, which the page's policy forbids.
    """
    never = f"never true: {expression}"
    page.evaluate(
        f"""async () => {{
            const end = performance.now() + {timeout_s * 1000};
            while (!({expression})) {{
                if (performance.now() > end) throw new Error({json.dumps(never)});
                await new Promise(requestAnimationFrame);
            }}
        }}"""
    )


@contextmanager
def web_server(folder: Path) -> Generator[str]:
    """Serve a folder as any plain web server would, and yield its URL."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the library's name
            del format, args

        def send_head(self) -> io.BytesIO | None:
            """Answer a request for a part of a file too, since a browser seeks in videos so."""
            path = Path(self.translate_path(self.path))
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if wanted is None or not path.is_file():
                return super().send_head()  # pyright: ignore[reportReturnType] a file as well
            content = path.read_bytes()
            first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
            part = content[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Type", self.guess_type(str(path)))
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            return io.BytesIO(part)

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
