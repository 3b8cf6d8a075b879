"""Weights are downloaded once on a machine, whole or not at all, and never when they are here."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.catalog.fetching import fetch_weights
from pipelines.catalog.files.sources import PACKAGED_WEIGHTS, model_paths
from pipelines.catalog.keys.lora_config import LoraConfig
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_yaml import load_model_config
from pipelines.errors import HubUnreachableError, ModelNotFoundError, NotFetchedError, PipelineError
from tests.fakes.hub import COMMIT, FakeHub

YAML = model_paths()["shapes-wan"]
SOURCE = PACKAGED_WEIGHTS / "shapes-wan"
PARTS = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")
FILES = [
    SOURCE / "model_index.json",
    *(path for part in PARTS for path in SOURCE.glob(f"{part}/*")),
]
PIPELINE = {path.relative_to(SOURCE).as_posix(): path.read_bytes() for path in FILES}
STYLE = (PACKAGED_WEIGHTS / "shapes-wan-4step" / "pytorch_lora_weights.safetensors").read_bytes()
MODEL = replace(load_model_config(YAML), source="Org/Model", revision="main")
STYLED = replace(MODEL, loras=[LoraConfig("style", "Org/Styles", weight_name="one.safetensors")])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub with a model, whose repository holds more than the model needs, and with styles."""
    files = {
        "Org/Model": {**PIPELINE, "whole.safetensors": b"the same in one file", "README.md": b"#"},
        "Org/Styles": {"one.safetensors": STYLE, "two.safetensors": b"another"},
    }
    with FakeHub(files) as server:
        address = "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": f"{server.url}{address}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_XET": True,
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", server.url)
        yield server


def fetch(config: ModelConfig = MODEL) -> str:
    said: list[str] = []
    weights = fetch_weights(config, YAML, said.append)
    assert weights.revision == COMMIT
    return "\n".join(said)


def test_a_model_and_its_loras_alone_are_downloaded(hub: FakeHub) -> None:
    said = fetch(STYLED)
    assert hub.sent == dict.fromkeys([*PIPELINE, "one.safetensors"], 1)
    assert "LoRA style: downloading Org/Styles" in said


def test_weights_that_are_here_are_not_asked_for(hub: FakeHub) -> None:
    fetch(STYLED)
    hub.num_requests = 0
    assert fetch(STYLED) == ""
    assert hub.num_requests == 0


def test_of_two_that_ask_one_downloads_and_the_other_waits(hub: FakeHub) -> None:
    waits = threading.Event()

    def say(text: str) -> None:
        if "waiting for it" in text:
            waits.set()

    hub.gate.clear()
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(fetch_weights, MODEL, YAML, say) for _ in range(2)]
        assert hub.reached.wait(60)
        assert waits.wait(60)
        hub.gate.set()
        assert {one.result().revision for one in both} == {COMMIT}
    assert hub.sent == dict.fromkeys(PIPELINE, 1)


def test_an_interrupted_download_is_not_taken_for_the_weights_and_goes_on(hub: FakeHub) -> None:
    hub.failing = "tokenizer/tokenizer.json"
    assert hub.failing in PIPELINE
    with pytest.raises(HubUnreachableError, match="Org/Model cannot be downloaded.*HF_ENDPOINT"):
        fetch()
    hub.failing = None
    done = set(hub.sent) - {"tokenizer/tokenizer.json"}
    hub.sent.clear()
    fetch()
    assert not done & set(hub.sent)
    assert hub.sent["tokenizer/tokenizer.json"] == 1


def test_a_hub_that_is_away_is_a_named_error_that_may_pass(hub: FakeHub) -> None:
    hub._server.server_close()
    with pytest.raises(HubUnreachableError, match="cannot be downloaded"):
        fetch()


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (replace(MODEL, source="Org/Nothing"), NotFetchedError, "is not on the hub.*HF_TOKEN"),
        (replace(MODEL, source="./nothing", revision=None), ModelNotFoundError, "does not exist"),
        (replace(MODEL, source="nothing"), PipelineError, "neither a hub id"),
        (replace(MODEL, source="a/b/c"), PipelineError, "neither a hub id"),
    ],
)
def test_what_no_hub_has_is_refused(
    hub: FakeHub, config: ModelConfig, error: type[PipelineError], message: str
) -> None:
    with pytest.raises(error, match=message):
        fetch(config)


def test_a_cache_that_cannot_be_written_is_named(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the place of the folder")
    with pytest.raises(NotFetchedError, match="cannot be written.*HF_HUB_CACHE"):
        fetch()


def test_a_strangers_link_in_place_of_the_lock_is_not_followed(
    hub: FakeHub, tmp_path: Path
) -> None:
    locks = tmp_path / "cache" / ".locks"
    locks.mkdir(parents=True)
    (locks / "nagfarm").symlink_to(tmp_path / "victim")
    with pytest.raises(NotFetchedError, match="cannot be written.*symbolic links"):
        fetch()
    assert not (tmp_path / "victim").exists()
    assert not hub.sent
