"""Builds the folder that Chalice packages: a copy of the app with one stage's configuration and policies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from chalicelib.tasks.outside import SDK
from infra.deploy.dependencies import OWN, TRACING, write_requirements
from infra.deploy.stages import ROOT, read_config, settings_of

#: Cached dependency packages by requirements hash; with a hit, Chalice only adds the app's own files.
_CACHE = ROOT / ".chalice" / "deployments"

#: Chalice packages what is in this folder beside app.py.
_VENDOR = "vendor"
#: The folder of the own tasks in the package.
_TASKS = Path("own")
_NOT_COPIED = shutil.ignore_patterns("__pycache__", ".*", "node_modules")


@contextmanager
def project_folder(
    stage: str, environment: Mapping[str, Any], architecture: str, tasks: Path | None = None
) -> Iterator[Path]:
    """Yields a temporary folder with the app as it is to be deployed.

    environment: variables over the configuration's own, each for the functions that need it. tasks: own tasks outside
    this project.
    """
    with TemporaryDirectory(prefix="paceline-deploy-") as name:
        folder = Path(name)
        _copy_app(folder)
        is_traced = bool(environment.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
        write_requirements(folder, tasks, [OWN, TRACING] if is_traced else [OWN])
        if tasks:
            copied = _copy_tasks(tasks, folder)
            environment = {**environment, "TASKS_DIR": str(copied)}
        chalice = folder / ".chalice"
        chalice.mkdir()
        if _CACHE.exists():
            shutil.copytree(_CACHE, chalice / "deployments", ignore=shutil.ignore_patterns("*.new"))
        for policy in (ROOT / ".chalice").glob("policy-*.json"):
            _write_json(chalice / policy.name, with_intrinsics(json.loads(policy.read_text())))
        _write_json(chalice / "config.json", _configuration(stage, environment) | {"lambda_architecture": architecture})
        yield folder
        _keep_packages(chalice / "deployments")


def with_intrinsics(policy: dict[str, Any]) -> dict[str, Any]:
    """Returns the policy with a CloudFormation intrinsic for each resource that contains `${...}` variables."""
    statements = [{**statement, "Resource": _intrinsic(statement["Resource"])} for statement in policy["Statement"]]
    return {**policy, "Statement": statements}


def _intrinsic(resource: str) -> Any:
    return {"Fn::Sub": resource} if "${" in resource else resource


def _copy_app(folder: Path) -> None:
    shutil.copy(ROOT / "app.py", folder)
    shutil.copytree(ROOT / "chalicelib", folder / "chalicelib", ignore=shutil.ignore_patterns("__pycache__"))
    sdk = folder / _VENDOR / SDK.name / "paceline"
    sdk.mkdir(parents=True)
    shutil.copy(SDK / "paceline" / "__init__.py", sdk)


def _copy_tasks(tasks: Path, folder: Path) -> Path:
    """Copies the own tasks, without hidden files; returns their path relative to the package."""
    target = _TASKS / tasks.name
    (folder / _VENDOR / _TASKS).mkdir()
    if tasks.is_dir():
        shutil.copytree(tasks, folder / _VENDOR / target, ignore=_NOT_COPIED)
    else:
        shutil.copy(tasks, folder / _VENDOR / target)
    return target


def _keep_packages(made: Path) -> None:
    """Copies new packages into the cache, by rename, since Chalice may write into them during another deployment."""
    _CACHE.mkdir(exist_ok=True)
    for package in made.glob("*.zip"):
        if not (_CACHE / package.name).exists():
            shutil.copy(package, _CACHE / f"{package.name}.new")
            (_CACHE / f"{package.name}.new").replace(_CACHE / package.name)


def _configuration(stage: str, environment: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the stage's configuration with this environment, without log retention, which the stack sets."""
    config = read_config()
    chosen = dict(config["stages"][stage])
    chosen.pop("log_retention_in_days")
    chosen["environment_variables"] = {**chosen["environment_variables"], "STAGE": stage}
    chosen["lambda_functions"] = {
        name: {**function, "environment_variables": settings_of(name, {**environment, "STAGE": stage})}
        for name, function in chosen["lambda_functions"].items()
    }
    return {**config, "stages": {stage: chosen}}


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2))
