"""Clips and worker setups for the tests of jobs."""

from pathlib import Path

from jobs.clip_id import clip_id
from jobs.records.commit import write_run
from jobs.records.keys import RUN_FILE
from jobs.settings.run_config import EncodingConfig, RunConfig
from jobs.store.store import open_store
from jobs.types import ClipSpec, ModelIdentity
from jobs.worker.setup import WorkerSetup
from nag.params import NagParams
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.catalog.model_folder import ModelWeights
from pipelines.request import GenerationRequest, SamplingParams, VideoShape
from pipelines.texts import RequestTokens, Tokens
from tests.fakes.model import FakeLoader

MODEL = ModelIdentity("fake", "package:fake", "r1", "float32", "saved")
MODEL_CONFIG = ModelConfig(
    name="fake",
    family="wan",
    source="package:fake",
    grid=ShapeGrid(4, 16, 16),
    sampling=SamplingDefaults(2, 1.0, 5, 32, 32, 8.0),
    device="cpu",
)


def spec(prompt: str, seed: int = 0) -> ClipSpec:
    request = GenerationRequest(
        prompt, "", VideoShape(5, 32, 32), 8.0, SamplingParams(2, 1.0, None, seed), NagParams()
    )
    tokens = RequestTokens.of(request, lambda text: Tokens(len(text), text))
    name = f"{prompt.split(maxsplit=1)[0]}-{seed}"
    return ClipSpec(clip_id(MODEL, request, tokens), name, MODEL, request, tokens=tokens)


def setup_for(folder: Path) -> WorkerSetup:
    config = RunConfig()
    write_run(open_store(folder.as_uri(), config.store), "run-1", RUN_FILE, {})
    return WorkerSetup(
        model=MODEL_CONFIG,
        weights=ModelWeights(folder, "r1"),
        output=folder.as_uri(),
        store=config.store,
        encoding=EncodingConfig(preset="ultrafast"),
        spool_folder=str(folder / "spool"),
        run_id="run-1",
        num_threads=1,
        loader=FakeLoader(),
    )
