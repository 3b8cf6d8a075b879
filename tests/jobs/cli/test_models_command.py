"""`nagfarm models`: its tables, the YAML of a folder, and the folder that NAGFARM_MODELS names."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_OK, EXIT_REFUSED
from jobs.description.first_yaml import first_yaml
from pipelines.catalog.files.sources import PACKAGED_CONFIGS, PACKAGED_WEIGHTS, resolve_source
from pipelines.catalog.model_yaml import load_model_config
from pipelines.errors import ModelConfigError, ModelFolderError, ModelNotFoundError
from tests.builders import tiny, tiny_ltx2, tiny_wan

SAMPLING = (
    "sampling: {num_inference_steps: 8, guidance_scale: 1.0, num_frames: 17, height: 64, "
    "width: 64, fps: 8}\n"
)


def copy_of(name: str, folder: Path) -> Path:
    """Copy packaged weights, whose configs a test may change."""
    return Path(shutil.copytree(PACKAGED_WEIGHTS / name, folder / name))


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("name", "vae_dtype"), [("shapes-wan", "float32"), ("shapes-ltx", "float16")]
)  # both are stored in float16; the test stores the first one's autoencoder in float32
def test_the_yaml_of_a_folder_loads_has_the_grid_of_its_configs_and_plans(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, vae_dtype: str
) -> None:
    models = tmp_path / "models"  # made by the command
    yaml = models / "mine.yaml"
    folder = copy_of(name, tmp_path)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    dtype = getattr(torch, vae_dtype)
    save_file({key: value.to(dtype) for key, value in load_file(weights).items()}, weights)
    assert main(["models", "--init", str(folder), "--output", str(yaml)]) == EXIT_OK
    found, packaged = (
        load_model_config(path) for path in (yaml, PACKAGED_CONFIGS / "models" / f"{name}.yaml")
    )
    assert (found.family, found.grid, found.pipeline) == (packaged.family, packaged.grid, None)
    assert (found.dtype, found.vae_dtype) == ("float16", vae_dtype)
    manifest = tmp_path / "one.yaml"
    manifest.write_text(f"model: mine\noutput: {tmp_path}/out\nclips:\n  - {{prompt: a circle}}\n")
    assert main(["plan", str(manifest), "--models", str(models)]) == EXIT_OK
    assert "1 clip" in capsys.readouterr().out


@pytest.mark.models
@pytest.mark.parametrize(
    ("build", "pipeline", "num_px"),
    [
        (tiny.wan_image_to_video_pipeline, "WanImageToVideoPipeline", 16),
        (tiny.wan_vace_pipeline, "WanVACEPipeline", 16),
        (tiny_wan.pipeline_of_the_5b_model, None, 32),
        (tiny_ltx2.pipeline, None, 32),
    ],
)
def test_the_yaml_of_each_kind_of_folder_loads(
    tmp_path: Path, build: Callable[[], Any], pipeline: str | None, num_px: int
) -> None:
    build().save_pretrained(tmp_path / "weights")
    (tmp_path / "mine.yaml").write_text(first_yaml(tmp_path / "weights", "mine"))
    found = load_model_config(tmp_path / "mine.yaml")
    assert (found.pipeline, found.grid.height, found.grid.width) == (pipeline, num_px, num_px)


def test_a_yaml_is_printed_with_a_comment_where_a_person_decides_and_never_overwrites(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(PACKAGED_WEIGHTS / "shapes-wan")
    assert main(["models", "--init", folder]) == EXIT_OK
    printed = capsys.readouterr().out
    assert printed.count("# decide") >= 5
    assert "as saved: UniPCMultistepScheduler with a shift of 3.0" in printed
    file = tmp_path / "mine.yaml"
    file.write_text("mine")
    assert main(["models", "--init", folder, "--output", str(file)]) == EXIT_REFUSED
    assert "is not overwritten" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_a_pipeline_class_that_is_not_its_familys_default_is_a_key_of_the_yaml(
    tmp_path: Path,
) -> None:
    folder = copy_of("shapes-wan", tmp_path)
    change(folder / "model_index.json", _class_name="WanImageToVideoPipeline")
    (tmp_path / "mine.yaml").write_text(first_yaml(folder, "mine"))
    assert load_model_config(tmp_path / "mine.yaml").pipeline == "WanImageToVideoPipeline"


def test_a_folder_of_an_unknown_class_names_those_that_are_driven(tmp_path: Path) -> None:
    folder = copy_of("shapes-wan", tmp_path)
    change(folder / "model_index.json", _class_name="MochiPipeline")
    with pytest.raises(ModelFolderError, match=r"'MochiPipeline'; nagfarm drives WanPipeline, "):
        first_yaml(folder, "mine")


def test_other_forms_of_a_model_are_refused_with_the_remedy(tmp_path: Path) -> None:
    checkpoint = tmp_path / "wan.safetensors"
    checkpoint.write_bytes(b"x")
    for place, message in (
        (checkpoint, "is one file, such as a checkpoint; .*from_single_file"),
        (tmp_path, "holds wan.safetensors and no model_index.json; .*save_pretrained"),
        (tmp_path / "missing", "does not exist"),
    ):
        with pytest.raises(ModelNotFoundError, match=message):
            first_yaml(place, "mine")
    checkpoint.unlink()
    with pytest.raises(ModelNotFoundError, match="holds no model_index.json; name the folder"):
        first_yaml(tmp_path, "mine")


def test_a_folder_of_pickles_names_the_remedy(tmp_path: Path) -> None:
    folder = copy_of("shapes-wan", tmp_path)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelFolderError, match="is a pickle, convert it to safetensors"):
        first_yaml(folder, "mine")


def test_a_quantized_folder_that_cannot_be_loaded_is_broken_and_says_why(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = copy_of("shapes-wan", tmp_path)
    (tmp_path / "small.yaml").write_text(first_yaml(folder, "small"))
    change(folder / "transformer" / "config.json", quantization_config={"quant_method": "torchao"})
    assert main(["models", "--models", str(tmp_path)]) == EXIT_OK
    printed = capsys.readouterr().out
    assert "small" in printed
    (state,) = [line.split()[1] for line in printed.splitlines() if line.startswith("small ")]
    assert state == "broken"
    assert "saved quantized by 'torchao', which is not loaded" in printed


def test_the_long_tables_have_the_facts_of_each_model_and_fit_into_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", "--long"]) == EXIT_OK
    clips, weights, faults = (
        part.splitlines() for part in capsys.readouterr().out.strip().split("\n\n")
    )
    assert clips[0].split()[:3] == ["model", "weights", "inputs"]
    assert [line.split()[0] for line in clips] == [line.split()[0] for line in weights]
    assert max(map(len, clips)) <= 140
    assert faults[-1].startswith("a machine that only plans")
    for table, facts in (
        (clips, ("here", "text", "no", "64x64x17, 8 fps", "nag")),
        (weights, ("48", "4n+1, 16x16", "none", "Apache-2.0", "WanPipeline",
                   str(PACKAGED_WEIGHTS / "shapes-wan"))),
    ):  # fmt: skip
        (shapes,) = [line for line in table if line.startswith("shapes-wan ")]
        for fact in facts:
            assert fact in shapes
    (video,) = [line for line in clips if line.startswith("wan2.1-vace-1.3b ")]
    assert "text, [mask], [reference_images], [video]" in video


def test_the_remedies_of_missing_weights_are_printed_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models"]) == EXIT_OK
    printed = capsys.readouterr().out
    assert "hf download Lightricks/LTX-2 --revision main" in printed
    assert printed.count("a machine that only plans can do without") == 1
    assert printed.count("nagfarm models --fetch NAME") == 1


def test_the_folder_of_the_environment_has_models_and_that_of_the_command_wins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (PACKAGED_CONFIGS / "models" / "shapes-wan.yaml").read_text()
    for folder, names in (("usual", ("one", "two")), ("other", ("two",))):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.yaml").write_text(
                text.replace("description: ", f"description: {name} of {folder}, ")
            )
    monkeypatch.setenv("NAGFARM_MODELS", str(tmp_path / "usual"))
    assert main(["models", "--models", str(tmp_path / "other")]) == EXIT_OK
    printed = capsys.readouterr().out
    assert "one of usual" in printed
    assert "two of other" in printed
    assert "two of usual" not in printed
    monkeypatch.setenv("NAGFARM_MODELS", str(tmp_path / "none"))
    assert main(["models"]) != EXIT_OK
    assert "NAGFARM_MODELS" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "family: wan\nsource: ./x\n",
            r"it lacks grid, sampling; write for example grid: \{num_fr",
        ),
        ("family: wan\n", r"it lacks source, grid, sampling; .* source: Wan-AI/"),
        (
            f"family: wan\nsource: ./x\ngrid: {{num_frames: 4, height: 16}}\n{SAMPLING}",
            r"it lacks grid\.width; write for example grid: \{",
        ),
    ],
)
def test_a_missing_key_is_named_with_an_example_and_the_command_that_writes_it(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ModelConfigError, match=rf"mine\.yaml: {message}") as caught:
        load_model_config(tmp_path / "mine.yaml")
    assert "nagfarm models --init FOLDER" in str(caught.value)


def test_a_folder_of_an_impossible_name_is_refused_and_not_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a" * 300
    yaml = tmp_path / "mine.yaml"
    for words in (["--models", name], ["--init", name]):
        assert main(["models", *words]) == EXIT_REFUSED
        assert "File name too long" in capsys.readouterr().err
    monkeypatch.setenv("NAGFARM_MODELS", "~no-such-user/models")
    assert main(["models"]) == EXIT_REFUSED
    assert "the folder of models of NAGFARM_MODELS" in capsys.readouterr().err
    with pytest.raises(ModelConfigError, match=r"is not a path: .*File name too long"):
        resolve_source(f"./{name}", yaml)
