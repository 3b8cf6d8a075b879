"""Manifests and outputs of any size, made for the benchmark.

An output lies in a folder of the local S3 server, which is kept below build/, since making 100,000
clips takes minutes. Its MP4s and their posters are a few bytes and its records are whole.
"""

import json
import os
import random
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.growth.filer import KEPT_WITH_NAMES, FilerWriter
from benchmarks.growth.made_records import RUN_ID, made_record
from infra.local.s3_server import LocalS3
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.records.commit import JSON, MP4
from jobs.records.keys import poster_key, record_key, run_key, thumbnail_key
from jobs.records.pictures import JPEG
from jobs.store.parts import NUM_THREADS, in_parallel
from jobs.types import ClipSpec
from pipelines.shapes.world import COLOURS, SHAPES

MODEL = "shapes-wan-4step"
DIRECTIONS = ("left", "right", "up", "down")
COMPLETE = "complete-with-posters"  # a file in the folder of a server whose output is made
KINDS = ("jsonl", "csv", "yaml")


def write_manifest(folder: Path, kind: str, num_rows: int) -> Path:
    """Write a manifest. JSONL and CSV give each row its own prompt; YAML has 100 and many seeds."""
    path = folder / f"rows-{num_rows}.{kind}"
    prompts = _prompts()
    with path.open("w", encoding="utf-8") as file:
        if kind == "jsonl":
            for seed in range(num_rows):
                file.write(json.dumps({"prompt": f"{next(prompts)} {seed}", "seed": seed}) + "\n")
        elif kind == "csv":
            file.write("prompt,negative_prompt,seed\n")
            for seed in range(num_rows):
                file.write(f"{next(prompts)} {seed},red,{seed}\n")
        else:
            texts = [f"{next(prompts)} {number}" for number in range(min(100, num_rows))]
            axes = {"prompt": texts, "seed": {"range": [0, num_rows // len(texts)]}}
            file.write(json.dumps({"name": "growth", "axes": axes}, indent=1))
    return path


def _prompts() -> Iterator[str]:
    drawn, colours = random.Random(0), tuple(COLOURS)
    while True:
        shape, colour, behind = drawn.choice(SHAPES), drawn.choice(colours), drawn.choice(colours)
        yield f"a {colour} {shape} moving {drawn.choice(DIRECTIONS)} on a {behind} background"


@contextmanager
def served_output(folder: Path, num_clips: int) -> Generator[tuple[str, Path, dict[str, str]]]:
    """Serve an output whose clips are all committed.

    Yields:
        Its URI, the manifest of its clips, and the variables with which boto3 finds the server.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = write_manifest(folder, "jsonl", num_clips)
    with LocalS3("growth", folder / "server", flags=KEPT_WITH_NAMES) as server:
        uri = f"s3://growth/{num_clips}"
        if not (folder / COMPLETE).exists():
            with FilerWriter(server.filer_address, "growth", f"{num_clips}") as writer:
                _commit_all(writer, uri, manifest)
            (folder / COMPLETE).touch()
        yield uri, manifest, os.environ | server.environment()


def _commit_all(writer: FilerWriter, uri: str, manifest: Path) -> None:
    writer.put(run_key(RUN_ID, "run.json"), b"{}", JSON)

    def commit(spec: ClipSpec) -> None:
        body = spec.clip_id.encode()
        record = made_record(spec, body)
        writer.put(record.key, body, MP4)
        for key in (poster_key, thumbnail_key):
            writer.put(key(spec.clip_id, record.sha256), b"poster", JPEG)
        uploaded = replace(record, uri=f"{uri}/{record.key}")
        writer.put(record_key(spec.clip_id), uploaded.to_json(), JSON)

    specs = open_manifest(manifest, ModelCatalog(), model=MODEL).specs()
    for _ in in_parallel(commit, specs, NUM_THREADS):
        pass
