"""A trained model as it is saved, and the time that a training may take."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from diffusers import LTXPipeline
from safetensors.torch import load_file

from pipelines.shapes.training.running.arguments import add_running_arguments
from pipelines.shapes.training.saved_folder import save_folder
from tests.builders import tiny


@pytest.mark.models
def test_a_model_is_saved_in_half_precision_without_paths_and_loads_in_full(tmp_path: Path) -> None:
    pipeline = tiny.ltx_pipeline()
    pipeline.vae.register_to_config(_name_or_path="/of/this/machine")
    save_folder(pipeline, tmp_path)
    dtypes = {
        path.parent.name: {value.dtype for value in load_file(path).values()}
        for path in tmp_path.glob("*/*.safetensors")
    }
    assert dtypes == {
        "transformer": {torch.float16},
        "vae": {torch.float16},
        "text_encoder": {torch.float32},
    }
    assert all(
        "_name_or_path" not in json.loads(one.read_text()) for one in tmp_path.rglob("*.json")
    )
    loaded = LTXPipeline.from_pretrained(tmp_path)
    parts = (loaded.transformer, loaded.vae, loaded.text_encoder)
    assert [part.dtype for part in parts] == [torch.float32] * 3


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "soon"])
def test_a_training_needs_time(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_running_arguments(parser)
    assert parser.parse_args(["--minutes", "0.5"]).minutes == 0.5
    with pytest.raises(SystemExit):
        parser.parse_args(["--minutes", minutes])
    assert minutes in capsys.readouterr().err
