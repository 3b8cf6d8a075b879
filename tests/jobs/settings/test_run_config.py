"""Profiles and `key=value` overrides of the run configuration, good and malformed."""

from pathlib import Path

import pytest

from jobs.errors import ConfigError
from jobs.settings.run_config import load_config


def test_an_override_wins_over_a_profile(tmp_path: Path) -> None:
    profile = tmp_path / "night.yaml"
    profile.write_text("workers: {count: 3, num_cpus: 2}\n")
    config = load_config(profile, ["workers.count=5"])
    assert (config.workers.count, config.workers.num_cpus) == (5, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "it must hold keys and their values, not one value"),
        ("[workers]", "it must hold keys and their values, not a list"),
        ("workers: [", "did not find expected node content"),
        ("workers: {count: 2, count: 3}", "duplicate key"),
        (
            "workers: {count: !!bool maybe}",
            r"a tag \(!!\) names a type that its value does not have",
        ),
        (
            "stall: {first_s: !!timestamp soon}",
            r"a tag \(!!\) names a type that its value does not have",
        ),
        (
            "workers: {count: !!python/object/apply:os.getcwd []}",
            "could not determine a constructor",
        ),
        (
            "workers: {count: " + "9" * 5000 + "}",
            r"a number must be below 2\*\*64 in size, not one of 5,000 digits",
        ),
        ("workers: {count: -" + "9_" * 5000 + "9:30}", r"a number must be below 2\*\*64 in size"),
        ("workers:\n  spool_folder: ${oc.env:HOME}", "interpolations are refused"),
        ("workers:\n  count: ???", r"workers\.count is '\?\?\?'"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested more than 16 deep"),
    ],
)
def test_a_profile_that_cannot_be_read_is_one_named_error(
    tmp_path: Path, text: str, message: str
) -> None:
    profile = tmp_path / "night.yaml"
    profile.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(profile)
    assert str(profile) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("workers.count", "is not key=value"),
        ("stall.first_s=!!bool x", r"a tag \(!!\) names a type"),
        ("stall.first_s=!!timestamp x", r"a tag \(!!\) names a type"),
        ("workers.count=two", "could not be converted to Integer"),
        ("workers.cuont=2", "Key 'cuont' not in 'WorkerConfig'"),
        ("stall.first_s=" + "1" * 400, "must be below"),
        ("extra_columns=shot", r"must be a list, such as extra_columns=\[shot\]"),
        ("workers.spool_folder=${oc.env:HOME}", "interpolations are refused"),
    ],
)
def test_an_override_that_cannot_be_read_is_one_named_error(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])
