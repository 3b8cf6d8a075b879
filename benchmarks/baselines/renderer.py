"""A clip as an engineer renders it with diffusers alone: one call, `export_to_video`, an upload.

The pipeline is stock. Its text encoding and its decoder are wrapped only to time the stages.
"""

import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from diffusers import WanPipeline
from diffusers.utils import export_to_video

import nag
from benchmarks.baselines.workload import CFG_SCALE, FPS, Clip, ClipTimes, Script, StageWatch
from nag.params import NagParams
from pipelines.families.device import TorchDevice


class PlainRenderer:
    """A `WanPipeline`, loaded once, and the loop's body."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._device = TorchDevice(torch.device(script.device))
        self._pipeline: Any = WanPipeline.from_pretrained(
            script.folder,
            dtype={
                "default": getattr(torch, script.dtype),
                "vae": getattr(torch, script.vae_dtype),
            },
        ).to(script.device)
        self._pipeline.set_progress_bar_config(disable=True)
        if script.lora:
            path = Path(script.lora)
            self._pipeline.load_lora_weights(path.parent, weight_name=path.name)
            self._pipeline.fuse_lora()
            self._pipeline.unload_lora_weights()
        self._upload = _uploader(script.output)
        self._installed = nag.install(self._pipeline) if script.guidance == "nag" else None
        self._watch = StageWatch(self._finish_work)
        self._time_stages()

    def frames(self, clip: Clip) -> Any:
        """Return the frames, (T, H, W, 3) from 0 to 1."""
        script = self._script
        has_cfg = script.guidance == "cfg"
        with self._guided(clip):
            return self._pipeline(
                prompt=clip.prompt,
                negative_prompt=clip.negative_prompt if has_cfg else None,
                guidance_scale=CFG_SCALE if has_cfg else 1.0,
                num_frames=script.num_frames,
                height=script.height,
                width=script.width,
                num_inference_steps=script.num_inference_steps,
                max_sequence_length=script.max_sequence_length,
                generator=torch.Generator("cpu").manual_seed(clip.seed),
            ).frames[0]

    def render(self, clip: Clip) -> ClipTimes:
        """Render, export and upload one clip."""
        watch = self._watch = StageWatch(self._finish_work)
        self._device.reset_peak_memory()
        frames = self.frames(clip)
        watch.end("decode")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{clip.name}.mp4")
            export_to_video(frames, str(path), fps=FPS)
            watch.end("encode")
            self._upload(path)
            watch.end("upload")
        return ClipTimes(
            clip.name,
            str(os.getpid()),
            watch.started_at,
            watch.stages_s,
            watch.started_at + sum(watch.stages_s.values()),
            self._device.peak_memory().num_bytes,
        )

    def _finish_work(self) -> None:
        self._device.mark().wait()

    def _guided(self, clip: Clip) -> AbstractContextManager[Any]:
        if self._installed is None:
            return nullcontext()
        strengths: dict[str, Any] = dict(self._script.nag)
        params = NagParams(**strengths)
        length = self._script.max_sequence_length
        return self._installed.guide(clip.negative_prompt, params, length)

    def _time_stages(self) -> None:
        encode, decode = self._pipeline.encode_prompt, self._pipeline.vae.decode

        @functools.wraps(encode)  # NAG reads the signature
        def timed_encode(*arguments: Any, **options: Any) -> Any:
            result = encode(*arguments, **options)
            self._watch.end("text")
            return result

        def timed_decode(*arguments: Any, **options: Any) -> Any:
            self._watch.end("denoise")
            return decode(*arguments, **options)

        self._pipeline.encode_prompt, self._pipeline.vae.decode = timed_encode, timed_decode


def _uploader(output: str) -> Callable[[Path], None]:
    """Return a function that puts a file into the output."""
    parts = urlsplit(output)
    if parts.scheme == "s3":
        import boto3

        client: Any = boto3.client("s3")
        prefix = parts.path.strip("/")

        def upload(path: Path) -> None:
            client.upload_file(str(path), parts.netloc, f"{prefix}/{path.name}")

        return upload
    folder = Path(parts.path)  # a plain path too
    folder.mkdir(parents=True, exist_ok=True)

    def copy(path: Path) -> None:
        shutil.copyfile(path, folder / path.name)

    return copy
