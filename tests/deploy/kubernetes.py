"""The manifests and the chart: every field is one that Kubernetes has, and both say the same."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from tests.deploy.podman import ROOT

OVERLAYS = ROOT / "deploy" / "kubernetes" / "overlays"
CHART = ROOT / "deploy" / "helm" / "ringback"
_STRICT = Path(__file__).parent / "strict"
_HELM = "helm.sh/helm/v3/cmd/helm@v3.18.4"
_REFUSED = ("database=mysql", "settings.RINGBACK_API_KEY=secret", "replicas=0", "image.tags=typing-error")
_OPTIONAL = ("autoscaler.yaml",)
Manifest = dict[str, Any]


def check() -> None:
    """Check all of it. It needs kubectl and Go; helm is built with Go where it is missing. Raises `AssertionError`."""
    with TemporaryDirectory(prefix="ringback-deploy-") as folder:
        helm, strict = _helm(Path(folder)), _strict(Path(folder))
        print(f"kubernetes: {_run([helm, 'lint', '--strict', str(CHART)]).splitlines()[-1]}")
        for database in ("sqlite", "postgresql"):
            overlay = _run(["kubectl", "kustomize", str(OVERLAYS / database)])
            optional = [(OVERLAYS / "postgresql" / name).read_text() for name in _OPTIONAL]
            given = "\n---\n".join([overlay, *optional])
            print(f"kubernetes: overlay {database}: {_run([strict], given)}")
            chart = _run([helm, *_template(database)])
            print(f"kubernetes: chart {database}: {_run([strict], chart)}")
            _compare(_by_kind(overlay), _by_kind(chart))
        for values in _REFUSED:
            command = [helm, *_template("postgresql"), "--set", values]
            refused = subprocess.run(command, capture_output=True, text=True, check=False)
            assert refused.returncode != 0, values
            assert "values don't meet" in refused.stderr, refused.stderr
        print(f"kubernetes: the chart's schema refuses {len(_REFUSED)} wrong values")


def _template(database: str) -> list[str]:
    return [
        *("template", "ringback", str(CHART), "--namespace=ringback", "--kube-version=1.32.0"),
        *("--set", f"database={database}", "--set-string", "image.repository=registry.example.com/ringback"),
    ]


def _compare(overlay: Mapping[str, Manifest], chart: Mapping[str, Manifest]) -> None:
    """Compare what does not differ by nature: names, labels and the image's pull policy do."""
    assert overlay.keys() - {"Namespace"} == chart.keys(), (overlay.keys(), chart.keys())
    for kind in ("Deployment", "StatefulSet"):
        if kind in overlay:
            assert _pod(overlay[kind]) == _pod(chart[kind])
    for kind in ("NetworkPolicy", "PodDisruptionBudget"):
        if kind in overlay:
            assert _without(overlay[kind]["spec"], "podSelector", "selector") == _without(
                chart[kind]["spec"], "podSelector", "selector"
            )
    assert overlay["ConfigMap"]["data"] == chart["ConfigMap"]["data"]


def _pod(manifest: Manifest) -> Manifest:
    pod: Manifest = manifest["spec"]["template"]["spec"]
    for constraint in pod.get("topologySpreadConstraints", []):
        del constraint["labelSelector"]
    for container in pod["containers"]:
        container.pop("imagePullPolicy", None)
    return pod


def _without(values: Manifest, *names: str) -> Manifest:
    return {name: value for name, value in values.items() if name not in names}


def _by_kind(text: str) -> dict[str, Manifest]:
    """Return the manifests of a text by their kind; the last where there are several."""
    return {each["kind"]: each for each in yaml.safe_load_all(text) if each}


def _helm(folder: Path) -> str:
    """Return the path of helm."""
    if (found := shutil.which("helm")) is not None:
        return found
    _run(["go", "install", _HELM], environment={"GOBIN": str(folder)})
    return str(folder / "helm")


def _strict(folder: Path) -> str:
    """Build the program that reads manifests with the types of Kubernetes."""
    _run(["go", "build", "-C", str(_STRICT), "-o", str(folder / "strict"), "."])
    return str(folder / "strict")


def _run(command: Sequence[str], given: str | None = None, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command, input=given, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout.strip()
