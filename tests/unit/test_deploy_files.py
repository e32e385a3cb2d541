"""What is in `deploy` agrees with the service: settings, secrets, versions, and the rights that nothing needs.

`make test-deploy` tries the same for real.
"""

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from receiver.settings import Settings, load_settings, secret_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").rglob("*.yaml"))
COMPOSE = {name: yaml.safe_load((DEPLOY / name).read_text()) for name in ("compose.yaml", "compose.sqlite.yaml")}
NAMES = {f"RINGBACK_{name.upper()}" for name in Settings.model_fields} | {f"{name}_FILE" for name in secret_settings()}
VERSION = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["version"]
_WORST_EXPOSURE = 1.5


def settings_of(name: str, service: dict[str, Any]) -> set[str]:
    return {each for each in service.get("environment", {}) if each.startswith("RINGBACK_") and name != "proxy"}


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name of the file, specification of the pods) of each workload."""
    for path in MANIFESTS:
        for manifest in yaml.safe_load_all(path.read_text()):
            if manifest["kind"] in ("Deployment", "StatefulSet", "Job"):
                yield path.name, manifest["spec"]["template"]["spec"]


def test_every_setting_in_these_files_exists() -> None:
    used = {name for file in COMPOSE.values() for pair in file["services"].items() for name in settings_of(*pair)}
    for _, pod in pods():
        used |= {variable["name"] for container in pod["containers"] for variable in container["env"]}
    for path in (DEPLOY / "kubernetes" / "base" / "settings.yaml", DEPLOY / "helm" / "ringback" / "values.yaml"):
        document = yaml.safe_load(path.read_text())
        used |= (document.get("data") or document.get("settings")).keys()
    for path in (DEPLOY / "systemd").iterdir():
        used |= set(re.findall(r"^(?:Environment=)?(RINGBACK_\w+)=", path.read_text(), re.MULTILINE))
    used |= set(re.findall(r"^ +(RINGBACK_\w+)=", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE))
    assert len(used) > 8
    assert used - NAMES == set()


def test_the_secrets_that_are_made_are_those_that_are_read_and_the_service_takes_them(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "PIAPI_API_KEY": "a-key-of-the-provider"}
    for _ in range(2):  # what exists stays
        command = [str(DEPLOY / "make-secrets"), str(tmp_path / "secrets")]
        subprocess.run(command, env=environment, check=True, capture_output=True)
    made = {file.name: file for file in (tmp_path / "secrets").iterdir()}
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    for name, compose in COMPOSE.items():
        declared = {secret: Path(each["file"]).name for secret, each in compose["secrets"].items()}
        assert all(secret == file and file in made for secret, file in declared.items()), name
        for service in compose["services"].values():
            read = {Path(value).name for key, value in service.get("environment", {}).items() if key.endswith("_FILE")}
            assert read == set(service.get("secrets", [])) <= declared.keys(), name
    files = {f"RINGBACK_{name.upper().replace('-', '_')}_FILE": str(file) for name, file in made.items()}
    del files["RINGBACK_DATABASE_PASSWORD_FILE"]
    settings = load_settings(files, None)
    password = made["database-password"].read_text().strip()
    assert settings.database_url == f"postgresql://ringback:{password}@database/ringback"


def test_each_container_has_no_rights_that_it_does_not_need() -> None:
    for name, compose in COMPOSE.items():
        for service in compose["services"].values():
            assert service["read_only"] is True, name
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
            if "ringback" in service["image"]:
                assert "cap_add" not in service, name
    assert len(list(pods())) == 3
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name


def test_pods_are_not_given_the_addresses_of_services_as_settings() -> None:
    """A Service named ringback would set RINGBACK_PORT and others."""
    assert [name for name, pod in pods() if pod["enableServiceLinks"] is not False] == []


def test_a_stop_has_time_and_probes_ask_the_listener_that_a_busy_service_does_not_hold_up() -> None:
    servers = [(name, pod) for name, pod in pods() if pod["containers"][0]["args"][0] == "serve"]
    assert len(servers) == 2
    for name, pod in servers:
        container = pod["containers"][0]
        assert pod["terminationGracePeriodSeconds"] == 60, name
        probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
        assert {probe["port"] for probe in probes.values()} == {"metrics"}, name
        assert [probe["path"] for probe in probes.values()] == ["/readyz", "/livez", "/readyz"], name
    for compose in COMPOSE.values():
        for service in compose["services"].values():
            assert service.get("command") == ["migrate"] or service["stop_grace_period"] == "60s"


def test_each_file_names_this_version() -> None:
    assert f"ARG VERSION={VERSION}\n" in (DEPLOY / "Dockerfile").read_text()
    assert re.findall(r"newTag: (\S+)", "".join(path.read_text() for path in MANIFESTS)) == [VERSION, VERSION]
    chart = yaml.safe_load((DEPLOY / "helm" / "ringback" / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)
    for name in ("compose.yaml", "compose.sqlite.yaml", "compose.env"):
        assert set(re.findall(r"\bringback:([\d.]+)", (DEPLOY / name).read_text())) == {VERSION}, name


def test_the_last_stage_of_the_image_runs_nothing_and_starts_without_a_shell() -> None:
    last = (DEPLOY / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    instructions = re.findall(r"^([A-Z]+) (.*)", last, re.MULTILINE)
    assert "RUN" not in dict(instructions)
    assert dict(instructions)["USER"] == "10001:10001"
    assert all(value.startswith("[") for name, value in instructions if name in ("ENTRYPOINT", "CMD"))
    assert 'CMD ["ringback", "health"]' in dict(instructions)["HEALTHCHECK"]


def test_an_installation_compiles_the_code_which_the_service_may_not_write_beside() -> None:
    command = ["make", "-n", "--no-print-directory", "install"]
    planned = subprocess.run(command, cwd=DEPLOY.parent, capture_output=True, text=True, check=True)
    assert planned.stdout.rstrip().endswith("-m compileall -q receiver models migrations")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not there")
def test_the_units_are_correct_and_give_the_service_few_rights(tmp_path: Path) -> None:
    for path in (DEPLOY / "systemd").iterdir():
        text = path.read_text().replace("/opt/ringback/bin/ringback", "/bin/true")
        (tmp_path / path.name).write_text(text)
    units = [str(tmp_path / name) for name in ("ringback.service", "ringback.socket")]
    verified = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", units[0]]
    report = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"exposure level for ringback.service: ([\d.]+)", report)
    assert found is not None, report
    assert float(found[1]) <= _WORST_EXPOSURE
