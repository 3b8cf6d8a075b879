import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nag.params import NagParams, NasaParams, VsfParams
from pipelines.catalog.clip_rules import check_request
from pipelines.catalog.files.sources import model_paths, resolve_source
from pipelines.catalog.keys.lora_config import LoraConfig
from pipelines.catalog.model_yaml import load_model_config
from pipelines.clip_inputs import InputFile, InputFiles
from pipelines.diffusion_forcing import DiffusionForcing
from pipelines.errors import ModelConfigError, RequestError
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import GenerationRequest, SamplingParams, VideoShape

GOOD = """\
family: wan
source: ./weights
grid: {num_frames: 4, height: 16, width: 16}
sampling:
  {num_inference_steps: 8, guidance_scale: 1.0, num_frames: 17, height: 64, width: 64, fps: 8}
"""
REQUEST = GenerationRequest(
    "a", "", VideoShape(17, 64, 64), 8.0, SamplingParams(8, 1.0, None, 0), NagParams()
)


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_every_packaged_model_is_read_and_renders_its_own_defaults() -> None:
    paths = model_paths()
    assert {
        "shapes-wan",
        "wan2.1-t2v-1.3b",
        "wan2.1-t2v-14b",
        "wan2.2-t2v-a14b",
        "ltx-video-0.9.5",
    } <= set(paths)
    for path in paths.values():
        config = load_model_config(path)
        assert config.licence
        defaults, needed = config.sampling, config.pipeline_class.required_inputs
        inputs: dict[str, Any] = dict.fromkeys(needed, InputFile("0" * 64, "a.png"))
        check_request(
            config,
            GenerationRequest(
                "a prompt",
                "",
                VideoShape(defaults.num_frames, defaults.height, defaults.width),
                defaults.fps,
                SamplingParams(
                    defaults.num_inference_steps,
                    defaults.guidance_scale,
                    config.scheduler.flow_shift,
                    seed=0,
                    guidance_scale_2=defaults.guidance_scale_2,
                    strength=defaults.strength,
                    guidance_rescale=defaults.guidance_rescale,
                ),
                config.nag,
                config.method,
                config.vsf,
                config.nasa,
                inputs=InputFiles(**inputs),
            ),
        )


def test_the_schedule_and_the_licence_of_each_large_model_name_their_source() -> None:
    """A comment above `scheduler` names repository and file, or says that nothing was found."""
    for path in model_paths().values():
        lines = path.read_text(encoding="utf-8").splitlines()
        if any(line.startswith("source: package:") for line in lines):
            continue  # trained here
        scheduler = next(at for at, line in enumerate(lines) if line.startswith("scheduler:"))
        above = "".join(
            itertools.takewhile(lambda line: line[0] == "#", lines[scheduler - 1 :: -1])
        )
        assert re.search(r"# (Source: [\w.-]+/[\w.-]+( \(\w+\))?, \S|Not verified: \w)", above), (
            path
        )
        (licence,) = [line for line in lines if line.startswith("licence:")]
        assert re.search(r"# (Source|Not verified): \w", licence), path


def test_a_models_yaml_in_the_users_folder_wins_over_the_packaged_one(tmp_path: Path) -> None:
    (tmp_path / "shapes-wan.yaml").write_text(GOOD)
    assert model_paths(tmp_path)["shapes-wan"] == tmp_path / "shapes-wan.yaml"


def test_a_yaml_may_choose_the_method_and_its_parameters(tmp_path: Path) -> None:
    assert load_model_config(write(tmp_path, GOOD)).method == "nag"
    config = load_model_config(
        write(tmp_path, GOOD + "method: vsf\nvsf: {vsf_scale: 3}\nnasa: {nasa_scale: 0.5}\n")
    )
    assert (config.method, config.vsf, config.nasa) == (
        "vsf",
        VsfParams(vsf_scale=3.0),
        NasaParams(nasa_scale=0.5),
    )


def test_a_yaml_may_ask_for_a_group_of_devices(tmp_path: Path) -> None:
    assert load_model_config(write(tmp_path, GOOD)).parallel == ONE_DEVICE
    config = load_model_config(
        write(tmp_path, GOOD + "parallel: {ulysses: 2, ring: 2, across_hosts: true}\n")
    )
    assert config.parallel == ParallelConfig(2, 2, across_hosts=True)
    assert load_model_config(write(tmp_path, GOOD + "parallel: {}\n")).parallel == ONE_DEVICE


@pytest.mark.parametrize(
    ("parallel", "message"),
    [
        ("{ulysses: 0}", r"parallel\.ulysses must be at least 1, not 0"),
        ("{ring: -1}", r"parallel\.ring must be at least 1, not -1"),
        ("{ulises: 2}", "ulises"),
        ("{ulysses: two}", "'two'"),
        ("{ulysses: 2.5}", r"2\.5"),
        ("{across_hosts: true}", "give ulysses or ring above 1"),
        ("{ring: 2, across_hosts: perhaps}", "perhaps"),
        ("4", "parallel must be a mapping of ulysses, ring"),
    ],
)
def test_a_group_that_no_yaml_may_ask_for_is_refused(
    tmp_path: Path, parallel: str, message: str
) -> None:
    with pytest.raises(ModelConfigError, match=rf"mine\.yaml.*{message}"):
        load_model_config(write(tmp_path, f"{GOOD}parallel: {parallel}\n"))


FORCED = f"{GOOD}pipeline: SkyReelsV2DiffusionForcingPipeline\n"


def test_a_yaml_may_choose_the_schedule_of_diffusion_forcing(tmp_path: Path) -> None:
    assert load_model_config(write(tmp_path, FORCED)).diffusion_forcing == DiffusionForcing()
    long = load_model_config(
        write(tmp_path, f"{FORCED}diffusion_forcing: {{overlap_history: 17, ar_step: 5}}\n")
    )
    assert long.diffusion_forcing == DiffusionForcing(overlap_history=17, ar_step=5)
    shape = VideoShape(257, 64, 64)
    assert long.at_once(shape) == replace(shape, num_frames=97)
    assert load_model_config(write(tmp_path, GOOD)).at_once(shape) == shape


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{GOOD}diffusion_forcing: {{ar_step: 5}}\n", "WanPipeline has no diffusion forcing"),
        (f"{FORCED}diffusion_forcing: {{overlap_history: 97}}\n", "must be between 1 and 96"),
        (f"{FORCED}diffusion_forcing: {{overlap: 17}}\n", "overlap"),
        (
            f"{FORCED}scheduler: {{name: FlowMatchEulerDiscreteScheduler}}\n",
            "only scheduler.name: UniPCMultistepScheduler without a list",
        ),
        (f"{FORCED}first_block_cache: 0.1\n", "does not know the blocks of SkyReelsV2Diffusion"),
    ],
)
def test_a_schedule_that_no_yaml_may_ask_for_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ModelConfigError, match=message):
        load_model_config(write(tmp_path, text))


def test_a_relative_folder_is_relative_to_the_yaml(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert resolve_source(load_model_config(path).source, path) == tmp_path.resolve() / "weights"


def test_a_hub_id_stays_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("./weights", "owner/name"))
    assert resolve_source(load_model_config(path).source, path) == "owner/name"


@pytest.mark.parametrize("source", ["package:../../etc", "package:a/b", "package:..", "package:"])
def test_a_packaged_model_cannot_leave_the_package(tmp_path: Path, source: str) -> None:
    path = write(tmp_path, GOOD.replace("./weights", f"'{source}'"))
    with pytest.raises(ModelConfigError, match="package:NAME"):
        load_model_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("wan", "hunyuan"), "family"),
        (GOOD + "colour: red\n", "colour"),
        (GOOD + "dtype: float64\n", "dtype"),
        (GOOD + "nag: {nag_scale: 0.5}\n", "nag_scale must be at least 1"),
        (GOOD + "nag: {nag_norm: l3}\n", "nag_norm"),
        (GOOD + "method: nga\n", "method"),
        (GOOD + "name: other\n", "name must be its file's name, mine, not other"),
        (GOOD.replace("fps: 8", "fps: .nan"), "fps must be a number above 0"),
        (
            GOOD.replace("guidance_scale: 1.0", "guidance_scale: .nan"),
            "guidance_scale must be a finite number",
        ),
        (
            GOOD.replace("num_inference_steps: 8", "num_inference_steps: 0"),
            "num_inference_steps must be at least 1",
        ),
        ("loras: " + 3000 * "[" + 3000 * "]", "nested more than 16 deep"),
        (
            GOOD + "method: cfg+nag\n",
            "sampling.guidance_scale must be above 1 for the method cfg.nag, not 1.0",
        ),
        (GOOD + "vsf: {vsf_scale: -1}\n", "vsf_scale must be at least 0"),
        (GOOD + "nasa: {nasa_tau: 1}\n", "nasa_tau"),
        (GOOD + "max_sequence_length: 0\n", "max_sequence_length must be between"),
        (GOOD.replace("num_frames: 4", "num_frames: 0"), "grid"),
        (GOOD.replace("source: ./weights\n", ""), "source"),
        ("- a list\n", "mine.yaml"),
        (GOOD + "description: ${oc.env:HOME}\n", "interpolations are refused"),
        (
            GOOD.replace("family: wan", "family: ltx") + "scheduler: {flow_shift: 3.0}\n",
            "leave scheduler.flow_shift out",
        ),
        ("family: [", "mine.yaml"),
        ("!!python/object/apply:os.system ['true']\n", "mine.yaml"),
        ("", "family"),
    ],
)
def test_a_wrong_yaml_is_one_named_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ModelConfigError, match=message):
        load_model_config(write(tmp_path, text))


def test_loras_are_read_in_their_order(tmp_path: Path) -> None:
    text = (
        "loras: [{name: style, source: ./style}, "
        "{name: b-2, source: Org/Speed, weight: -2, revision: main}]\n"
    )
    config = load_model_config(write(tmp_path, f"{GOOD}{text}fuse_loras: true\n"))
    assert config.loras == (
        LoraConfig("style", "./style"),
        LoraConfig("b-2", "Org/Speed", -2.0, revision="main"),
    )
    assert config.fuse_loras
    assert (
        resolve_source(config.loras[0].source, tmp_path / "mine.yaml")
        == tmp_path.resolve() / "style"
    )
    assert load_model_config(write(tmp_path, GOOD)).loras == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loras: [{name: a}]", "source"),
        ("loras: [{name: a, source: ./a, strength: 1}]", "strength"),
        ("loras: [./a]", "each with a name and a source, not \\['./a'\\]"),
        ("loras: {name: a, source: ./a}", "loras must be a list"),
        ("loras: null", "loras must be a list"),
        (
            "loras: [{name: a.b, source: ./a}]",
            "letters, digits, _ and -, and is not none; got 'a.b'",
        ),
        ("loras: [{name: a, source: ./a}, {name: a, source: ./b}]", "two LoRAs are called a"),
        ("loras: [{name: a, source: ./a, weight: 0}]", "finite and not 0, not 0.0"),
        ("loras: [{name: a, source: ./a, weight: .inf}]", "finite and not 0, not inf"),
        (
            "loras: [{name: a, source: ./a, weight_name: ../b.safetensors}]",
            "must be a .safetensors file of its folder",
        ),
        (
            "loras: [{name: a, source: ./a, weight_name: /b.safetensors}]",
            "must be a .safetensors file of its folder",
        ),
        (
            "loras: [{name: a, source: ./a, weight_name: a//b.safetensors}]",
            "such as fast.safetensors or high/fast.safetensors, not a//b.safetensors",
        ),
        (
            "loras: [{name: a, source: ./a.safetensors, weight_name: b.safetensors}]",
            "the source of the LoRA a is a file: leave weight_name out",
        ),
        (
            "loras: [{name: a, source: ./a, weight_name: b.bin}]",
            "must be a .safetensors file of its folder",
        ),
        ("loras: [{name: a, source: ./a, component: vae}]", "component"),
        ("loras: [{name: a, source: 'package:../a'}]", "package:NAME"),
        (
            "loras: [{name: a, source: ./a, revision: v1}]",
            "revision: v1 is for a source on the hub; .* of ./a is made of its files: leave it out",
        ),
        (
            "loras: [{name: a, source: 'https://huggingface.co/Org/A/resolve/v1/b/c.safetensors'}]",
            "not the address https.*; write source: Org/A, revision: v1, weight_name: b/c.safete",
        ),
        ("loras: [{name: a, source: 'https://civitai.com/a'}]", "not the address https://civit"),
        ("loras: [{name: a, source: '${oc.env:HOME}'}]", "interpolations are refused"),
        ("fuse_loras: true", "needs loras"),
    ],
)
def test_a_wrong_lora_is_one_named_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ModelConfigError, match=message):
        load_model_config(write(tmp_path, f"{GOOD}{text}\n"))


@pytest.mark.parametrize("key", ["grid", "scheduler", "nag", "parallel", "second_stage"])
def test_a_plain_value_in_the_place_of_a_mapping_is_refused(tmp_path: Path, key: str) -> None:
    text = re.sub(rf"(?m)^{key}:.*\n", "", GOOD)
    with pytest.raises(ModelConfigError, match=rf"{key} must be a mapping of \w+.*, not \['x'\]"):
        load_model_config(write(tmp_path, f"{text}{key}: [x]\n"))


def test_keys_of_acceleration_are_read_and_off_by_default(tmp_path: Path) -> None:
    text = "first_block_cache: 0.08\ncompile: true\nvae_tiling: true\n"
    text += "vae_memory_format: channels_last_3d\nvae_compile: true\n"
    config, plain = (
        load_model_config(write(tmp_path, GOOD + more))
        for more in (text, "first_block_cache: null\n")
    )
    assert (config.first_block_cache, config.compile, config.vae_tiling) == (0.08, True, True)
    assert (config.vae_memory_format, config.vae_compile) == ("channels_last_3d", True)
    assert (plain.first_block_cache, plain.compile, plain.vae_tiling) == (None, False, False)
    assert (plain.vae_memory_format, plain.vae_compile) == ("contiguous_format", False)


@pytest.mark.parametrize("value", ["channels_last", "true", "[]", "null", "1"])
def test_a_memory_format_that_torch_lacks_for_videos_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ModelConfigError, match=r"mine\.yaml: .*vae_memory_format"):
        load_model_config(write(tmp_path, f"{GOOD}vae_memory_format: {value}\n"))


@pytest.mark.parametrize("threshold", ["0", "-0.1", "1", "8", ".inf", ".nan"])
def test_a_cache_threshold_outside_0_to_1_is_refused(tmp_path: Path, threshold: str) -> None:
    with pytest.raises(ModelConfigError, match="first_block_cache must be between 0 and 1"):
        load_model_config(write(tmp_path, f"{GOOD}first_block_cache: {threshold}\n"))


def test_a_yaml_states_licence_and_download_for_people(tmp_path: Path) -> None:
    text = "licence: Apache-2.0\ndownload_gb: 28.9\n"
    told, silent = (load_model_config(write(tmp_path, GOOD + more)) for more in (text, ""))
    assert (told.licence, told.download_gb) == ("Apache-2.0", 28.9)
    assert (silent.licence, silent.download_gb) == ("", None)


@pytest.mark.parametrize("size", ["0", "-1", ".inf", ".nan"])
def test_a_download_size_that_no_download_has_is_refused(tmp_path: Path, size: str) -> None:
    with pytest.raises(ModelConfigError, match=r"mine\.yaml: download_gb must be a number above 0"):
        load_model_config(write(tmp_path, f"{GOOD}download_gb: {size}\n"))


@pytest.mark.parametrize("digits", ["1" * 310, "-" + "1" * 310, "0x" + "f" * 5000])
@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("first_block_cache: {}", "first_block_cache"),
        ("compile: {}", "compile"),
        ("vae_tiling: {}", "vae_tiling"),
        ("vae_memory_format: {}", "vae_memory_format"),
        ("vae_compile: {}", "vae_compile"),
        ("parallel: {{ulysses: {}}}", "parallel.ulysses"),
        ("parallel: {}", "parallel"),
        ("nag: {{nag_scale: {}}}", "nag.nag_scale"),
        ("loras: [{{name: a, source: ./a, weight: {}}}]", "loras.0.weight"),
    ],
)
def test_a_whole_number_that_no_key_takes_is_refused_with_its_key(
    tmp_path: Path, text: str, key: str, digits: str
) -> None:
    """OmegaConf raises OverflowError for a float, and Python refuses to print the longest."""
    with pytest.raises(
        ModelConfigError,
        match=rf"mine\.yaml: {key} must be below 2\*\*64 in size, not .* of \d+ bits",
    ):
        load_model_config(write(tmp_path, f"{GOOD}{text.format(digits)}\n"))


@pytest.mark.parametrize(
    "key",
    [
        "first_block_cache", "compile", "vae_tiling", "vae_memory_format", "vae_compile",
        "parallel", "dtype",
    ],
)  # fmt: skip
def test_a_value_of_question_marks_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(
        ModelConfigError, match=rf"mine\.yaml: {key} is '\?\?\?', .* leave it out for its default"
    ):
        load_model_config(write(tmp_path, f"{GOOD}{key}: ???\n"))


@pytest.mark.parametrize(
    "tagged", ["!!bool maybe", "!!timestamp soon", "!!int two", "!!float half"]
)
def test_a_tag_that_its_value_does_not_fit_is_a_named_error(tmp_path: Path, tagged: str) -> None:
    """PyYAML raises KeyError and AttributeError for two of these."""
    with pytest.raises(ModelConfigError, match=r"mine\.yaml: .*"):
        load_model_config(write(tmp_path, f"{GOOD}compile: {tagged}\n"))


@pytest.mark.parametrize("text", ["5", "[family]", "true"])
def test_a_yaml_without_keys_is_a_named_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ModelConfigError, match=r"mine\.yaml: it must hold keys and their values"):
        load_model_config(write(tmp_path, text))


@pytest.mark.parametrize("key", ["decode_timestep", "decode_noise_scale"])
@pytest.mark.parametrize("value", ["-0.1", "1.5", ".nan"])
def test_a_decoding_parameter_outside_0_to_1_is_refused(
    tmp_path: Path, key: str, value: str
) -> None:
    with pytest.raises(ModelConfigError, match=f"{key} must be between 0 and 1, not"):
        load_model_config(write(tmp_path, f"{GOOD}{key}: {value}\n"))


def test_a_list_of_blocks_with_a_word_is_refused_by_its_key(tmp_path: Path) -> None:
    text = f"{GOOD}ltx2_guidance: {{spatio_temporal_guidance_blocks: [a]}}\n"
    with pytest.raises(ModelConfigError, match=r"\.spatio_temporal_guidance_blocks must be a list"):
        load_model_config(write(tmp_path, text))


@pytest.mark.parametrize(
    ("keys", "pipeline"),
    [
        ("boundary_ratio: 0.5\npipeline: WanVideoToVideoPipeline", "WanVideoToVideoPipeline"),
        ("conditioning_scale: 2", "WanPipeline"),
        ("image_cond_noise_scale: 0.1", "WanPipeline"),
        ("decode_timestep: 0.05", "WanPipeline"),
        ("gguf_2: a.gguf\npipeline: WanVideoToVideoPipeline", "WanVideoToVideoPipeline"),
    ],
)
def test_a_key_that_the_pipeline_leaves_unread_is_refused(
    tmp_path: Path, keys: str, pipeline: str
) -> None:
    key = keys.partition(":")[0]
    with pytest.raises(ModelConfigError, match=f"{key} does nothing with {pipeline}: leave it out"):
        load_model_config(write(tmp_path, f"{GOOD}{keys}\n"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("guidance_scale_2", ".nan", "must be at least 1, not nan"),
        ("guidance_scale_2", "0.5", "must be at least 1, not 0.5"),
        ("strength", "2", "must be above 0 and at most 1, not 2"),
        ("strength", "0.5", "does nothing with WanPipeline: leave it out"),
    ],
)
def test_a_default_that_no_clip_could_have_is_refused(
    tmp_path: Path, key: str, value: str, message: str
) -> None:
    text = GOOD.replace("fps: 8", f"fps: 8, {key}: {value}")
    with pytest.raises(ModelConfigError, match=rf"sampling\.{key} {message}"):
        load_model_config(write(tmp_path, text))


def test_a_missing_yaml_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(ModelConfigError, match="cannot read the model config"):
        load_model_config(tmp_path / "nothing.yaml")


def test_bytes_that_are_not_text_are_a_named_error(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ModelConfigError):
        load_model_config(path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            VideoShape(16, 64, 64),
            "num_frames must be a multiple of 4 plus 1 for mine: 13 or 17, not 16",
        ),
        (VideoShape(17, 70, 64), "height must be a multiple of 16 for mine: 64 or 80, not 70"),
        (VideoShape(17, 64, 10), "width must be a multiple of 16 for mine: 16, not 10"),
    ],
)
def test_a_shape_off_the_grid_is_refused_with_the_nearest_ones(
    tmp_path: Path, shape: VideoShape, message: str
) -> None:
    config = load_model_config(write(tmp_path, GOOD))
    with pytest.raises(RequestError, match=message):
        check_request(config, replace(REQUEST, shape=shape))


def test_a_flow_shift_is_refused_where_the_schedule_shifts_itself(tmp_path: Path) -> None:
    config = load_model_config(write(tmp_path, GOOD.replace("family: wan", "family: ltx")))
    with pytest.raises(RequestError, match="leave flow_shift out"):
        check_request(config, replace(REQUEST, sampling=SamplingParams(8, 1.0, 3.0, 0)))


@pytest.mark.parametrize("source", ["~nobody-of-this-name/weights", "./we\0ights"])
def test_a_source_that_is_not_a_path_is_one_named_error(tmp_path: Path, source: str) -> None:
    config = replace(load_model_config(write(tmp_path, GOOD)), source=source)
    with pytest.raises(ModelConfigError, match="is not a path"):
        resolve_source(config.source, tmp_path / "mine.yaml")
