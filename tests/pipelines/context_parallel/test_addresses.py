"""The network interface on which ranks on several machines listen."""

import os

import pytest

from pipelines.context_parallel.addresses import GLOO_VARIABLE, interface_towards, listen_towards


def test_an_interface_is_found_by_the_route_to_a_host() -> None:
    assert interface_towards("127.0.0.1", 9) == "lo"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "::1"])
def test_a_host_without_a_route_has_no_interface(host: str) -> None:
    assert interface_towards(host, 9) is None


def test_gloo_gets_the_interface_unless_one_was_set_by_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(GLOO_VARIABLE, "by-hand")
    listen_towards("127.0.0.1", 9)
    assert os.environ[GLOO_VARIABLE] == "by-hand"
    monkeypatch.delenv(GLOO_VARIABLE)
    listen_towards("127.0.0.1", 9)
    assert os.environ[GLOO_VARIABLE] == "lo"
