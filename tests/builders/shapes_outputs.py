"""Outputs of true Shapes clips that were drawn and not rendered, for tests of measures."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from jobs.clip_id import clip_id
from jobs.media.encode import encode_mp4
from jobs.records.commit import commit_record, upload_clip, write_run
from jobs.records.keys import RUN_FILE
from jobs.records.schema import ClipRecord
from jobs.settings.run_config import EncodingConfig
from jobs.store.store import Store
from jobs.types import ClipSpec, StageTiming
from nag.params import NagParams
from pipelines.request import (
    GenerationRequest,
    GuidanceMethod,
    SamplingParams,
    VideoFrames,
    VideoShape,
)
from pipelines.shapes.world import FPS, NUM_FRAMES, SIZE_PX, render_uint8, sample_clip
from pipelines.texts import RequestTokens, Tokens
from tests.builders.records import LONG_AGO, RUN_ID, record_of
from tests.builders.specs import MODEL


@dataclass(frozen=True)
class Drawn:
    """A clip to commit: its texts, and the attributes of the picture."""

    prompt: str
    negative_prompt: str
    method: GuidanceMethod
    shown: Mapping[str, str]
    meta: Mapping[str, str]
    seed: int = 0


def drawn(
    prompt: str, negative_prompt: str = "", method: GuidanceMethod = "nag", *, seed: int = 0,
    unwanted: str = "", **shown: str,
) -> Drawn:  # fmt: skip
    return Drawn(
        prompt, negative_prompt, method, shown, {"unwanted": unwanted} if unwanted else {}, seed
    )


def commit_drawn(store: Store, clip: Drawn) -> ClipRecord:
    """Commit a clip of the Shapes world."""
    write_run(store, RUN_ID, RUN_FILE, {})
    request = GenerationRequest(
        clip.prompt,
        clip.negative_prompt,
        VideoShape(NUM_FRAMES, SIZE_PX, SIZE_PX),
        float(FPS),
        SamplingParams(2, 5.0 if clip.method == "cfg" else 1.0, None, clip.seed),
        NagParams(),
        clip.method,
    )
    tokens = RequestTokens.of(request, lambda text: Tokens(len(text), text))
    own_id, name = clip_id(MODEL, request, tokens), f"{clip.method}-{clip.seed}"
    spec = ClipSpec(own_id, name, MODEL, request, tokens=tokens, meta=dict(clip.meta))
    return commit_spec(store, spec, clip.shown)


def commit_spec(
    store: Store, spec: ClipSpec, shown: Mapping[str, str], denoise_s: float = 1.0
) -> ClipRecord:
    """Commit a true clip with these attributes as the clip of a manifest."""
    body = mp4_of(tuple(sorted(shown.items())))
    record = replace(
        record_of(store, body, spec.clip_id),
        name=spec.name,
        model=spec.model,
        meta=dict(spec.meta),
        request=spec.request,
        tokens=spec.tokens,
        num_frames=NUM_FRAMES,
        width=SIZE_PX,
        height=SIZE_PX,
        fps=float(FPS),
        timings=(StageTiming("denoise", LONG_AGO, denoise_s, 0),),
    )
    uploaded = upload_clip(store, spec.clip_id, body, now=lambda: LONG_AGO)
    assert commit_record(store, uploaded, record, now=lambda: LONG_AGO)
    return record


@cache
def mp4_of(shown: tuple[tuple[str, str], ...]) -> bytes:
    """Return the MP4 of a true clip with these attributes."""
    clip = sample_clip(torch.Generator().manual_seed(1), anywhere=False, **dict(shown))
    frames = render_uint8([clip])[0].permute(1, 2, 3, 0).contiguous().numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip.mp4")
        encode_mp4(VideoFrames(frames, float(FPS)), path, EncodingConfig(preset="ultrafast"), {})
        return path.read_bytes()
