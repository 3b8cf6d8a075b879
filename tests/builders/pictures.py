"""Committed clips with real MP4s of one colour each, for the tests of sheets and comparisons."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jobs.clip_id import clip_id
from jobs.media.encode import encode_mp4
from jobs.records.commit import commit_record, upload_clip
from jobs.records.schema import ClipRecord
from jobs.settings.run_config import EncodingConfig
from jobs.store.store import Store
from pipelines.request import VideoFrames, VideoShape
from tests.builders.records import LONG_AGO, record_of
from tests.builders.specs import MODEL, spec

Colour = tuple[int, int, int]
RED, GREEN, BLUE = (220, 30, 30), (30, 200, 30), (30, 30, 220)


@dataclass(frozen=True)
class ColouredClip:
    """A clip of one colour, whose last frame is another one."""

    name: str
    colour: Colour = RED
    last: Colour = GREEN
    prompt: str = "a red fox"
    negative_prompt: str = ""
    seed: int = 0
    size: tuple[int, int] = (32, 48)  # height, width
    num_frames: int = 5
    fps: float = 8.0

    def frames(self) -> VideoFrames:
        frames = np.full((self.num_frames, *self.size, 3), self.colour, np.uint8)
        frames[-1] = self.last
        return VideoFrames(frames, self.fps)

    def write(self, path: Path) -> Path:
        encode_mp4(self.frames(), path, EncodingConfig(preset="ultrafast"), {})
        return path

    def commit(self, store: Store, folder: Path) -> ClipRecord:
        """Commit the clip to an output."""
        body = self.write(folder / "coloured.mp4").read_bytes()
        height, width = self.size
        of = spec(self.prompt, self.seed)
        shape = VideoShape(self.num_frames, height, width)
        request = replace(of.request, negative_prompt=self.negative_prompt, shape=shape)
        uploaded = upload_clip(store, clip_id(MODEL, request, of.tokens), body, lambda: LONG_AGO)
        record = replace(
            record_of(store, body, uploaded.clip_id),
            name=self.name,
            request=request,
            meta={"shot": str(self.seed)},
            num_frames=self.num_frames,
            height=height,
            width=width,
            fps=self.fps,
        )
        assert commit_record(store, uploaded, record, lambda: LONG_AGO)
        return record
