"""The pictures that a worker writes for the eye, and the error of a clip that it refuses.

A clip gets a poster and a thumbnail. A refused clip keeps a small MP4, with its sound, and its
latents beside the record of its failure, so that a person sees at a glance whether the check or the
clip is wrong. A clip does not fail because one of these cannot be written.
"""

import contextlib

from jobs.errors import JobError, StoreError
from jobs.media.encode import encode_mp4
from jobs.media.posters import posters_of_mp4
from jobs.records.pictures import write_latents, write_posters, write_refused_clip
from jobs.settings.run_config import EncodingConfig
from jobs.store.store import Store
from jobs.types import ClipSpec
from jobs.worker.mp4_tags import mp4_tags
from jobs.worker.rendering import RefusedFrames
from jobs.worker.spool import CLIP_FILE, Spool, SpooledClip
from pipelines.catalog.model_config import ModelConfig

ENCODING = EncodingConfig(crf=30, preset="veryfast", audio_kbit_s=64)
MAX_PX = 480  # the longer side


def upload_posters(store: Store, spooled: SpooledClip) -> None:
    """Upload the posters of a clip, if that is possible; a clip from the spool has none as yet."""
    record = spooled.record
    with contextlib.suppress(JobError, OSError):
        posters = spooled.posters or posters_of_mp4(spooled.body, record.num_frames)
        write_posters(store, record.clip_id, record.sha256, posters)


def keep_refused(
    store: Store, spool: Spool, spec: ClipSpec, where: tuple[str, int], refused: RefusedFrames
) -> None:
    """Write the latents and a small MP4 of a refused clip, if that is possible.

    Args:
        spool: has the disk on which the MP4 is made.
        where: id of the run and number of the attempt.
    """
    with contextlib.suppress(StoreError):
        write_latents(store, spec.clip_id, *where, refused.latents)
    if refused.video is None:
        return
    tags = {**mp4_tags(spec), "title": f"{spec.name}, refused", "refused": refused.fault}
    with contextlib.suppress(JobError, OSError), spool.room() as folder:
        path = folder / CLIP_FILE
        encode_mp4(refused.video, path, ENCODING, tags, MAX_PX)
        write_refused_clip(store, spec.clip_id, *where, path.read_bytes())


def refusal(refused: RefusedFrames, model: ModelConfig) -> str:
    """Return the message of the error, with the line of the model's YAML that lifts its limits.

    Values that are NaN or infinite have no limit, and so no remedy.
    """
    if not refused.beyond:
        return refused.fault
    line = ", ".join(f"{name}: null" for name in refused.beyond)
    words = model.frame_checks.words_of(refused.beyond[0])
    by_prompt = f", or put a word such as {words[0]!r} into the prompt" if words else ""
    return (
        f"{refused.fault}; if such clips are right, write frame_checks: {{{line}}} into "
        f"{model.name}.yaml{by_prompt}"
    )
