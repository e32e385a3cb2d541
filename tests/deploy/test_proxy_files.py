"""Each file in `deploy/proxies` is accepted by its proxy's own program, as it is and with each of its options."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are not in the lock file

from tests.deploy.proxies import FILES, PROXIES, checked, new_place, rendered
from tests.fakes.certificate import self_signed

_OPTIONS = {
    name: sorted(set(re.findall(r"^#     #([a-z-]+)", (FILES / proxy.file).read_text(), re.MULTILINE)))
    for name, proxy in PROXIES.items()
}
_NEEDS_NEWER = {("caddy", "repeat")}
"""Options that Debian's version of a program does not know."""
_CASES = [(name, option) for name, options in _OPTIONS.items() for option in ("", *options)]
_DYNAMIC = "traefik-ringback.yaml"


@pytest.mark.parametrize(("name", "option"), [case for case in _CASES if case not in _NEEDS_NEWER])
def test_a_file_is_accepted_by_its_proxy(name: str, option: str, tmp_path: Path) -> None:
    proxy, place = PROXIES[name], new_place(tmp_path, self_signed(tmp_path, "localhost"))
    ran = checked(proxy, rendered(proxy, place, [option] if option else []), place)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert name == "caddy" or "warn" not in (ran.stdout + ran.stderr).lower()  # it has none for a certificate of ours


@pytest.mark.parametrize("options", [[], ["replicas"], ["prefix-stripped"]], ids=str)
def test_the_files_for_traefik_refer_to_what_they_define(options: list[str]) -> None:
    text = (FILES / _DYNAMIC).read_text()
    for option in options:
        assert f"#{option} " in text
        text = text.replace(f"#{option} ", "")
    static, dynamic = yaml.safe_load((FILES / "traefik.yaml").read_text()), yaml.safe_load(text)
    http: dict[str, Any] = dynamic["http"]
    for router in http["routers"].values():
        assert set(router["entryPoints"]) <= static["entryPoints"].keys()
        assert set(router["middlewares"]) <= http["middlewares"].keys()
        assert router["service"] in http["services"]
    balancer = http["services"]["ringback"]["loadBalancer"]
    assert balancer["serversTransport"] in http["serversTransports"]
    assert len(balancer["servers"]) == (2 if options == ["replicas"] else 1)
