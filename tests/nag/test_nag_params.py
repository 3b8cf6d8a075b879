import compileall
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nag import NagError, NagParameterError, NagParams, NasaParams, VsfParams, steps_from_noise

SOURCE = Path(__file__).parents[2] / "nag"
FAST = "import gc; gc.disable()\n"  # for a program that imports torch: a fifth of its time


def test_the_defaults_are_the_authors_for_wan_at_25_steps() -> None:
    assert NagParams() == NagParams(9.0, 2.5, 0.25, nag_start=0.0, nag_end=1.0, nag_norm="l1")


def test_the_defaults_of_the_rivals() -> None:
    assert VsfParams() == VsfParams(vsf_scale=1.0, vsf_bias=0.2)
    assert NasaParams() == NasaParams(nasa_scale=0.3)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(
            (NagParams, name)
            for name in ("nag_scale", "nag_tau", "nag_alpha", "nag_start", "nag_end")
        ),
        (VsfParams, "vsf_scale"),
        (VsfParams, "vsf_bias"),
        (NasaParams, "nasa_scale"),
    ],
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused_by_name(kind: Any, name: str, value: float) -> None:
    with pytest.raises(NagParameterError, match=f"{name} must be a finite number"):
        kind(**{name: value})


@pytest.mark.parametrize(
    ("kind", "name"),
    [(VsfParams, "vsf_scale"), (VsfParams, "vsf_bias"), (NasaParams, "nasa_scale")],
)
def test_a_rivals_strength_below_zero_is_refused_and_named(kind: Any, name: str) -> None:
    with pytest.raises(NagParameterError, match=rf"{name} must be at least 0 .*, got -0\.1"):
        kind(**{name: -0.1})
    assert kind(**{name: 0})


@pytest.mark.parametrize("norm", ["L1", "l3", "", None, 1])
def test_an_unknown_norm_is_refused_and_named(norm: Any) -> None:
    with pytest.raises(NagParameterError, match="nag_norm must be 'l1' or 'l2'") as refusal:
        NagParams(nag_norm=norm)
    assert repr(norm) in str(refusal.value)
    assert NagParams(nag_norm="l2").nag_norm == "l2"


@pytest.mark.parametrize(
    ("params", "is_active"),
    [
        (VsfParams(), True),
        (VsfParams(vsf_bias=0.0), True),
        (VsfParams(0.0, 3.0), False),
        (NasaParams(), True),
        (NasaParams(0.0), False),
    ],
)
def test_a_rival_is_active_at_every_step_or_at_none(
    params: VsfParams | NasaParams, is_active: bool
) -> None:
    assert params.is_active == is_active
    assert [params.is_active_at(step, 4) for step in range(4)] == [is_active] * 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nag_scale": 0.99}, "nag_scale must be at least 1"),
        ({"nag_tau": 0.0}, "nag_tau must be above 0"),
        ({"nag_tau": -2.5}, "nag_tau must be above 0"),
        ({"nag_alpha": -0.01}, "nag_alpha must be between 0 and 1"),
        ({"nag_alpha": 1.01}, "nag_alpha must be between 0 and 1"),
        ({"nag_start": -0.1}, "nag_start and nag_end"),
        ({"nag_end": 1.1}, "nag_start and nag_end"),
        ({"nag_start": 0.5, "nag_end": 0.5}, "nag_start and nag_end"),
        ({"nag_start": 0.6, "nag_end": 0.5}, "nag_start and nag_end"),
    ],
)
def test_a_value_outside_its_range_is_refused_and_named(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(NagParameterError, match=message) as refusal:
        NagParams(**values)
    assert all(str(value) in str(refusal.value) for value in values.values())


def test_a_bad_parameter_is_also_a_value_error() -> None:
    assert issubclass(NagParameterError, ValueError)
    assert issubclass(NagParameterError, NagError)


@pytest.mark.parametrize("params", [NagParams(nag_scale=1), NagParams(nag_alpha=0)])
def test_scale_one_or_alpha_zero_guides_no_step(params: NagParams) -> None:
    assert not params.is_active
    assert not any(params.is_active_at(step, 4) for step in range(4))


@pytest.mark.parametrize(
    ("start", "end", "num_steps", "guided"),
    [
        (0.0, 1.0, 4, [0, 1, 2, 3]),
        (0.0, 0.5, 4, [0, 1]),
        (0.5, 1.0, 4, [2, 3]),
        (0.25, 0.75, 4, [1, 2]),
        (0.0, 0.3, 10, [0, 1, 2]),
        (0.0, 0.01, 4, [0]),
        (0.1, 0.2, 4, []),  # no step starts there
        (0.0, 0.5, 1, [0]),
    ],
)
def test_a_step_is_guided_when_it_starts_inside_the_range(
    start: float, end: float, num_steps: int, guided: list[int]
) -> None:
    params = NagParams(nag_start=start, nag_end=end)
    assert [step for step in range(num_steps) if params.is_active_at(step, num_steps)] == guided


@given(st.floats(0.01, 0.99), st.integers(1, 60))
def test_two_ranges_that_meet_guide_every_step_exactly_once(cut: float, num_steps: int) -> None:
    early, late = NagParams(nag_end=cut), NagParams(nag_start=cut)
    for step in range(num_steps):
        assert early.is_active_at(step, num_steps) != late.is_active_at(step, num_steps)


def test_parameters_load_without_torch() -> None:
    code = (
        "import sys, nag, nag.params; nag.NagParams(); nag.VsfParams(); nag.NasaParams()\n"
        "nag.NagTextError; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_public_name_keeps_its_meaning_after_the_modules_are_imported() -> None:
    code = FAST + (
        "import types, nag; nag.install; from nag import install, guide, NegativeText\n"
        "import nag.attention.text_attention, nag.attention.methods\n"
        "import nag.attention.text_concat, nag.attention.negative_prompt_hook, nag.pipeline\n"
        "import nag.formulas.normalized_attention_guidance\n"
        "import nag.formulas.negative_away_steer_attention\n"
        "import nag.formulas.value_sign_flip\n"
        "assert callable(install) and callable(nag.install)\n"
        "assert callable(guide) and callable(nag.guide)\n"
        "assert all(hasattr(nag, name) for name in nag.__all__)\n"
        "public = [getattr(nag, name) for name in nag.__all__]\n"
        "assert not any(isinstance(value, types.ModuleType) for value in public)\n"
        "assert type(nag.install) is type(nag.guide) is type(lambda: 0)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def import_copy(folder: Path) -> subprocess.CompletedProcess[str]:
    """Import `nag` from a copy of it, and print the place of the copy and of a public function."""
    code = FAST + "import nag; print(nag.__file__, nag.value_sign_flip.__module__)"
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(
        command, cwd=folder.parent, env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_public_names_are_found_in_a_zip_file(tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "nag"), "zip", SOURCE.parent, SOURCE.name)
    found = import_copy(Path(archive))
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == [
        str(tmp_path / "nag.zip" / "nag" / "__init__.py"), "nag.formulas.value_sign_flip",
    ]  # fmt: skip


def test_the_public_names_are_found_among_compiled_modules_without_source(tmp_path: Path) -> None:
    copy = shutil.copytree(SOURCE, tmp_path / "nag", ignore=shutil.ignore_patterns("__pycache__"))
    assert compileall.compile_dir(copy, quiet=1, legacy=True)
    for path in copy.rglob("*.py"):
        path.unlink()
    found = import_copy(tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == [str(copy / "__init__.pyc"), "nag.formulas.value_sign_flip"]


def test_the_import_fails_without_the_list_of_public_names(tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "nag", ignore=shutil.ignore_patterns("*.pyi"))
    found = import_copy(tmp_path)
    assert found.returncode == 1
    assert re.search(r"FileNotFoundError: .*__init__\.pyi", found.stderr)


def test_an_unknown_name_is_an_attribute_error() -> None:
    import nag

    with pytest.raises(AttributeError, match="no attribute 'instal'"):
        _ = nag.instal  # pyright: ignore[reportAttributeAccessIssue]


def test_dir_lists_every_public_name_before_it_is_used() -> None:
    code = (
        "import sys, nag; assert {'install', 'guide', 'NagParams'} <= set(nag.__all__)\n"
        "assert set(nag.__all__) <= set(dir(nag)); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("flow_shift", [1.0, 3.0, 5.0, 8.0])
@pytest.mark.parametrize("noise_fraction", [0.1, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("num_steps", [4, 7, 25])
def test_the_end_by_noise_guides_the_steps_that_the_authors_code_guides(
    flow_shift: float, noise_fraction: float, num_steps: int
) -> None:
    shares = [1 - step / num_steps for step in range(num_steps)]
    noise = [flow_shift * share / (1 + (flow_shift - 1) * share) for share in shares]
    limit = 1 - noise_fraction
    if any(abs(level - limit) < 1e-6 for level in noise):
        return  # the two codes differ at equality
    params = NagParams(nag_end=steps_from_noise(noise_fraction, flow_shift))
    guided = [params.is_active_at(step, num_steps) for step in range(num_steps)]
    assert guided == [level >= limit for level in noise]


def test_the_end_by_noise_at_the_authors_setting() -> None:
    def num_guided(nag_end: float) -> int:
        return sum(NagParams(nag_end=nag_end).is_active_at(step, 25) for step in range(25))

    assert num_guided(steps_from_noise(0.25, 5.0)) == 16
    assert num_guided(0.25) == 7
    assert steps_from_noise(1.0, 5.0) == 1
    assert steps_from_noise(0.3, 1.0) == pytest.approx(0.3)
    for arguments in ((0.0, 5.0), (1.1, 5.0), (0.5, 0.0), (0.5, float("inf"))):
        with pytest.raises(NagParameterError):
            steps_from_noise(*arguments)
