"""The upload of the images and videos of a run's clips, beside the rendering.

Decides the order, which is that of the clips, and how far it runs ahead of them. A clip is offered
to the workers once the store holds its own inputs, so that the first clips begin while those of the
last ones are still on this machine. Those that the store holds already are not read again.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from jobs.digests import Sha256Set
from jobs.errors import (
    InputError,
    ObjectMissingError,
    RefusedError,
    StoreUnavailableError,
)
from jobs.manifest.manifest import Manifest
from jobs.records.input_files import write_input
from jobs.records.keys import list_keys
from jobs.store.store import Store
from jobs.text import counted
from jobs.types import ClipSpec
from pipelines.clip_inputs import InputFile

NUM_THREADS = 4  # each holds a file in memory
CLIPS_AHEAD = 64  # taken from the plan before a worker asks for them
PAUSE_S = 5.0  # in an outage; the store's client has already retried for long
WORD_AFTER_S, WORD_EVERY_S = 10.0, 60.0  # about clips that wait
T = TypeVar("T")


class InputUploads:
    """The uploads of one run. Inside its `with` block, threads upload.

    Args:
        manifest: the manifest, whose inputs the plan has read.
        max_outage_s: seconds of an outage of a store after which the run stops.
        say: prints a line.
    """

    def __init__(
        self, store: Store, manifest: Manifest, max_outage_s: float, say: Callable[[str], None]
    ) -> None:
        self._store = store
        self._manifest = manifest
        self._max_outage_s = max_outage_s
        self._say = say
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="inputs")
        self._is_over = threading.Event()
        self._listed: Future[Sha256Set] | None = None
        self._held = Sha256Set()  # by the store, for certain
        self._under_way: dict[str, Future[None]] = {}  # by digest
        self._num_uploaded = 0
        self._word_due_s: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Begin no further upload, and wait for none: a clip that needs one is not offered."""
        self._is_over.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def before(self, clips: Iterator[ClipSpec]) -> Iterator[ClipSpec | None]:
        """Yield each clip, in order, once the store holds its inputs; None while it does not.

        Raises:
            ManifestError: a file is gone, or was changed after the plan was made, with the line
                that names it.
            StoreError: a store does not answer for too long, or refuses.
        """
        if not len(self._manifest.inputs):
            yield from clips
            return
        ahead: deque[ClipSpec] = deque()
        has_more = True
        while True:
            while has_more and len(ahead) < CLIPS_AHEAD:
                clip = next(clips, None)
                has_more = clip is not None
                if clip is not None:
                    self._begin(clip)
                    ahead.append(clip)
            if not ahead:
                return
            if self._is_ready(ahead[0]):
                self._word_due_s = None
                yield ahead.popleft()
            else:
                self._tell_of_the_wait()
                yield None

    def _begin(self, clip: ClipSpec) -> None:
        """Begin the uploads of a clip that are neither done nor under way."""
        for file in clip.request.inputs.files():
            if file.sha256 in self._held or file.sha256 in self._under_way:
                continue
            if self._listed is None:  # the first piece of work, for which the others wait
                self._listed = self._threads.submit(self._through_outages, self._list)
            upload = self._threads.submit(self._upload, file, self._listed)
            self._under_way[file.sha256] = upload

    def _is_ready(self, clip: ClipSpec) -> bool:
        """Return True if the store holds all inputs of a clip."""
        for file in clip.request.inputs.files():
            upload = self._under_way.get(file.sha256)
            if upload is None:
                continue
            if not upload.done():
                return False
            try:
                upload.result()
            except InputError as error:
                raise self._manifest.refuse_input(file, str(error)) from error
            del self._under_way[file.sha256]
            self._held.add(file.sha256)
        return True

    def _list(self) -> Sha256Set:
        found = Sha256Set()
        for parsed in list_keys(self._store, "input"):
            found.add(parsed.sha256)
        return found

    def _upload(self, file: InputFile, listed: "Future[Sha256Set]") -> None:
        if file.sha256 in listed.result():
            return
        self._through_outages(lambda: self._write(file))
        self._num_uploaded += 1

    def _write(self, file: InputFile) -> None:
        try:
            content = self._manifest.inputs.content(file)
        except (ObjectMissingError, RefusedError) as error:
            raise InputError(str(error)) from error
        write_input(self._store, file.sha256, content)

    def _through_outages(self, act: Callable[[], T]) -> T:
        """Act; while a store does not answer, act again and again for a limited time."""
        end_s = time.monotonic() + self._max_outage_s
        while True:
            try:
                return act()
            except StoreUnavailableError:
                if time.monotonic() >= end_s or self._is_over.wait(PAUSE_S):
                    raise

    def _tell_of_the_wait(self) -> None:
        now_s = time.monotonic()
        if self._word_due_s is None:
            self._word_due_s = now_s + WORD_AFTER_S
        elif now_s >= self._word_due_s:
            self._word_due_s = now_s + WORD_EVERY_S
            files = counted(self._num_uploaded, "file")
            self._say(f"clips wait for the upload of their images and videos, {files} so far")
