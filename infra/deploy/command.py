"""Deploys a stage, destroys it, packages it; prints one line per step. `./paceline` has the commands."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.core.errors import OwnTasksError
from chalicelib.tasks.outside import find
from infra.deploy.account import Account, find_account
from infra.deploy.address import address, wait_for_answer
from infra.deploy.artifacts import Artifacts
from infra.deploy.errors import DeployError, explained
from infra.deploy.failed import clear_failed, end_protection
from infra.deploy.leftovers import delete_leftovers
from infra.deploy.package import package
from infra.deploy.readiness import check_readiness
from infra.deploy.secrets import SecretStore, references, stored_by_deploy
from infra.deploy.stages import Stage, function_settings, read_stage, validate
from infra.deploy.timeouts import deadlines, own_tasks, require_shared_limits, worker_timeout
from infra.environment import aws_environment, environment
from infra.stack import DEPLOYED, StackError, delete_stack, deploy_stack, stack_name, stack_resources, stack_state
from infra.tasks_folder import TasksFolder

#: SAM creates roles, and CloudFormation runs it on the template.
_CAPABILITIES = ("CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND")
#: Oldest Python of the functions: AWS refuses new functions with older ones, and SnapStart needs it.
_OLDEST_PYTHON = (3, 12)


def deploy(stage_name: str) -> None:
    """Bring the stage to what the template and the app say; run again, it changes what has changed.

    Prints each step. DeployError when one fails, and for a stage or a setting that can't be deployed.
    """
    env = aws_environment(environment())
    _deploy(read_stage(stage_name), env)


def destroy(stage_name: str) -> None:
    """Delete everything of the stage, queued tasks and stored data included, and check that nothing is left.

    Prints each step. DeployError when one fails, and for a guarded stage that DESTROY does not name.
    """
    env = aws_environment(environment())
    _destroy(read_stage(stage_name), env)


def write_package(stage_name: str, out: Path) -> None:
    """Write the stage as one SAM template and one archive to `out`, and print where. DeployError when that fails."""
    _require_python()
    env = environment()
    tasks = _tasks(env)
    stage, settings = _checked(read_stage(stage_name), env)
    package(stage, references(settings, stage.full_name), out, tasks=tasks)
    _say(f"{out / 'sam.json'} and {out / 'deployment.zip'} are ready")
    for name in stored_by_deploy(settings):
        _say(f"They refer to the member {name} of the secret {stage.full_name} in Secrets Manager: create it first")


def _checked(stage: Stage, env: Mapping[str, str]) -> tuple[Stage, dict[str, str]]:
    """Returns the stage with the time-out that its tasks need, and its functions' settings. DeployError if invalid."""
    settings, registered = function_settings(env, stage), own_tasks(env.get("TASKS_DIR") or "")
    require_shared_limits(settings, registered)
    return replace(stage, worker_timeout=worker_timeout(stage, deadlines(settings, registered))), settings


def _tasks(env: Mapping[str, str]) -> Path | None:
    """Returns the path of TASKS_DIR, and installs what its tasks import, since deploying loads them."""
    if not env.get("TASKS_DIR"):
        return None
    try:
        path = find(env["TASKS_DIR"])
        TasksFolder(path, _say).install()
    except OwnTasksError as error:
        raise DeployError(str(error), "mend it, then deploy again") from error
    return path


def _say(line: str) -> None:
    print(line, flush=True)


def _deploy(stage: Stage, env: Mapping[str, str]) -> None:
    tasks = _tasks(env)
    stage, settings = _checked(stage, env)
    account = _account(env)
    if not account.endpoint_url:
        _require_python()
    _say(f"Deploying stage {stage.name} to {account}")
    with _step("the stack", account), TemporaryDirectory(prefix="paceline-package-") as folder:
        _refuse_former_deployment(account, stage)
        secrets = SecretStore(account, stage.full_name)
        validate({**settings, **secrets.values(settings)}, stage)
        check_readiness(account, stage, settings, env, _say)
        clear_failed(account, stage, stack_state(account.client("cloudformation"), stack_name(stage.name)))
        is_local = bool(account.endpoint_url)
        template = package(stage, secrets.store(settings), Path(folder), is_local=is_local, tasks=tasks)
        artifacts = Artifacts(account, stage)
        outputs = deploy_stack(
            account.client("cloudformation"),
            stack_name(stage.name),
            {"TemplateURL": artifacts.upload(template, template.with_name("deployment.zip"))},
            {"AlarmTopicArn": env["ALARM_TOPIC_ARN"]} if env.get("ALARM_TOPIC_ARN") else {},
            capabilities=_CAPABILITIES,
            progress=_say,
        )
        artifacts.delete_earlier()
    url = address(account, stage, outputs)
    wait_for_answer(url, account.endpoint_url)
    _say(f"Deployed stage {stage.name}: {url}")


def _destroy(stage: Stage, env: Mapping[str, str]) -> None:
    if stage.is_guarded and env.get("DESTROY") != stage.name:
        raise DeployError(f"this deletes all tasks of stage {stage.name}", f"confirm with DESTROY={stage.name}")
    account = _account(env)
    _say(f"Destroying stage {stage.name} in {account}")
    with _step("the stack", account):
        if stage.is_guarded:
            end_protection(account, stage)
        delete_stack(account.client("cloudformation"), stack_name(stage.name))
        _say(f"deleted stack {stack_name(stage.name)}")
        for name in delete_leftovers(account, stage):
            _say(f"deleted {name}, which the stack left behind")
        if SecretStore(account, stage.full_name).delete():
            _say(f"deleted the secret {stage.full_name}")
        Artifacts(account, stage).delete()
    _say(f"Destroyed stage {stage.name}; nothing is left")


def _require_python() -> None:
    if sys.version_info < _OLDEST_PYTHON:
        found, oldest = (".".join(map(str, version[:2])) for version in (sys.version_info, _OLDEST_PYTHON))
        raise DeployError(
            f"the functions would run on Python {found}, AWS needs {oldest} or later",
            f"delete .venv, and name another interpreter: make deploy PYTHON=python{oldest}",
        )


def _refuse_former_deployment(account: Account, stage: Stage) -> None:
    """DeployError if an earlier version deployed the functions outside of the stack, which then can't create them."""
    if DEPLOYED in stack_resources(account.client("cloudformation"), stack_name(stage.name)):
        return
    names = [found["FunctionName"] for found in _functions(account)]
    if stage.full_name in names:
        raise DeployError(
            f"an earlier version deployed the functions of stage {stage.name} outside of the stack",
            "docs/production/deploy.md tells how to replace them: 'A stage that an earlier version deployed'",
        )


def _functions(account: Account) -> list[dict[str, str]]:
    pages = account.client("lambda").get_paginator("list_functions").paginate()
    return [function for page in pages for function in page["Functions"]]


def _account(env: Mapping[str, str]) -> Account:
    endpoint_url = env.get("AWS_ENDPOINT_URL")
    try:
        return find_account(endpoint_url)
    except (BotoCoreError, ClientError) as error:
        raise explained(f"getting the caller identity from {endpoint_url or 'AWS'}", error, endpoint_url) from error


@contextmanager
def _step(what: str, account: Account) -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError, StackError) as error:
        raise explained(what, error, account.endpoint_url) from error
