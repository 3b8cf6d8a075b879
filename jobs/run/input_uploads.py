"""The upload of the images and videos of a run's clips, before its workers need them.

Several are uploaded at once; those that the store holds are not read again.
"""

from collections.abc import Iterable, Iterator

from jobs.errors import InputError, StoppedError
from jobs.inputs.checked_inputs import CheckedInputs
from jobs.records.input_files import write_input
from jobs.records.keys import list_keys
from jobs.store.parts import in_parallel
from jobs.store.store import Store
from jobs.types import ClipSpec
from pipelines.clip_inputs import InputFile

NUM_THREADS = 4  # each holds a file in memory


def upload_inputs(
    store: Store, clips: Iterable[ClipSpec], inputs: CheckedInputs
) -> Iterator[InputFile]:
    """Upload the inputs of some clips, and yield each when the store holds it.

    Args:
        inputs: the files that the manifest names, which the plan has read.

    Raises:
        StoppedError: a file is gone, or was changed after the plan was made.
        StoreError: the store does not answer or refuses.
    """
    if not len(inputs):
        return
    held = {parsed.sha256 for parsed in list_keys(store, "input")}

    def missing() -> Iterator[InputFile]:
        for clip in clips:
            for file in clip.request.inputs.files():
                if file.sha256 not in held:
                    held.add(file.sha256)
                    yield file

    def upload(file: InputFile) -> InputFile:
        write_input(store, file.sha256, inputs.content(file))
        return file

    try:
        yield from in_parallel(upload, missing(), NUM_THREADS)
    except InputError as error:
        raise StoppedError(str(error)) from error
