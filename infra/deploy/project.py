"""The folder that Chalice works in: a copy of the app with a configuration and policies made for one deployment.

So the work tree stays as it is, and neither account nor queue URL is ever written into it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from infra.deploy.stages import ROOT, SECRETS, read_config

#: Packages by their requirements: with one at hand, Chalice only puts the app's own files into it.
_CACHE = ROOT / ".chalice" / "deployments"

#: Chalice puts its own runtime into the package; the rest of the distribution is for the command line.
_NOT_PACKAGED = re.compile(r"chalice\b", re.IGNORECASE)

#: PerUserLock the `${...}` of a policy's resource into what stands in the deployed policy.
Substitution = Callable[[str], Any]


@contextmanager
def project_folder(
    stage: str, environment: Mapping[str, Any], substitution: Substitution, state: Mapping[str, Any] | None = None
) -> Iterator[Path]:
    """A folder that holds the app as it is to be deployed; gone afterwards.

    environment: for all functions, over what the configuration says; secrets only for those that need them.
    state: what Chalice is to believe is deployed.
    """
    with TemporaryDirectory(prefix="paceline-deploy-") as name:
        folder = Path(name)
        _copy_app(folder)
        chalice = folder / ".chalice"
        chalice.mkdir()
        if _CACHE.exists():
            shutil.copytree(_CACHE, chalice / "deployments", ignore=shutil.ignore_patterns("*.new"))
        for policy in (ROOT / ".chalice").glob("policy-*.json"):
            _write_json(chalice / policy.name, substituted(json.loads(policy.read_text()), substitution))
        _write_json(chalice / "config.json", _configuration(stage, environment))
        if state is not None:
            (chalice / "deployed").mkdir()
            _write_json(chalice / "deployed" / f"{stage}.json", state)
        yield folder
        _keep_packages(chalice / "deployments")


def substituted(policy: dict[str, Any], substitution: Substitution) -> dict[str, Any]:
    """The policy with the names in its resources resolved."""
    return {
        **policy,
        "Statement": [
            {**statement, "Resource": substitution(statement["Resource"])} for statement in policy["Statement"]
        ],
    }


def with_names(names: Mapping[str, str]) -> Substitution:
    """Puts these in for `${name}`. KeyError for a name that is not among them."""
    return lambda resource: re.sub(r"\$\{([^}]+)\}", lambda match: names[match[1]], resource)


def _copy_app(folder: Path) -> None:
    shutil.copy(ROOT / "app.py", folder)
    shutil.copytree(ROOT / "chalicelib", folder / "chalicelib", ignore=shutil.ignore_patterns("__pycache__"))
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    (folder / "requirements.txt").write_text(
        "".join(f"{line}\n" for line in lines if not _NOT_PACKAGED.match(line.strip()))
    )


def _keep_packages(made: Path) -> None:
    """Copied to and fro, since Chalice writes into the files: two deployments at a time would share one."""
    _CACHE.mkdir(exist_ok=True)
    for package in made.glob("*.zip"):
        if not (_CACHE / package.name).exists():
            shutil.copy(package, _CACHE / f"{package.name}.new")
            (_CACHE / f"{package.name}.new").replace(_CACHE / package.name)


def _configuration(stage: str, environment: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with this environment; without retention, since the log groups are the stack's."""
    config = read_config()
    chosen = dict(config["stages"][stage])
    chosen.pop("log_retention_in_days")
    for_all = {name: value for name, value in environment.items() if name not in SECRETS}
    chosen["environment_variables"] = {**chosen["environment_variables"], **for_all}
    chosen["lambda_functions"] = {
        name: {**function, "environment_variables": _secrets_of(name, environment)}
        for name, function in chosen["lambda_functions"].items()
    }
    return {**config, "stages": {stage: chosen}}


def _secrets_of(function: str, environment: Mapping[str, Any]) -> dict[str, Any]:
    return {name: environment[name] for name, owners in SECRETS.items() if name in environment and function in owners}


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2))
