"""Deploys a stage, destroys it, packages it; prints one line per step. `./paceline` has the commands."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.settings import cors_origins_of
from infra.deploy.deployed import (
    Account,
    chalice_state,
    find_account,
    leftovers,
    rest_api_ids,
    state_json,
    sweep,
    wait_for_triggers,
)
from infra.deploy.errors import DeployError, explained
from infra.deploy.front_door import set_up_front_door
from infra.deploy.package import package
from infra.deploy.project import project_folder, with_names
from infra.deploy.run_chalice import run_chalice
from infra.deploy.stages import GUARDED_STAGES, ROOT, Stage, function_settings, read_stage
from infra.environment import aws_environment, environment
from infra.stack import TEMPLATE, StackError, delete_stack, deploy_stack, output_variables, stack_name

#: Seconds to wait for the first answer of a new API with a cold function.
_ANSWER_SECONDS = 60


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
    stage = read_stage(stage_name)
    package(stage, function_settings(environment(), stage.name), out)
    _say(f"{out / 'sam.json'} and {out / 'deployment.zip'} are ready")


def _say(line: str) -> None:
    print(line, flush=True)


def _deploy(stage: Stage, env: Mapping[str, str]) -> None:
    settings = function_settings(env, stage.name)
    account = _account(env)
    _say(f"Deploying stage {stage.name} to {account}")
    with _step("the stack", account):
        outputs = deploy_stack(
            account.client("cloudformation"),
            stack_name(stage.name),
            TEMPLATE.read_text(),
            {"Stage": stage.name, "LogRetentionDays": str(stage.log_retention_days), "LateMs": str(stage.late_ms)}
            | ({"AlarmTopicArn": env["ALARM_TOPIC_ARN"]} if env.get("ALARM_TOPIC_ARN") else {}),
            progress=_say,
        )
    settings |= output_variables(outputs)
    with _step("the functions", account):
        state = chalice_state(account, stage)
        with project_folder(stage.name, settings, with_names(account.names(stage.name)), state) as folder:
            deployed = run_chalice("deploy", stage.name, folder, stage.maximum_concurrency)
        wait_for_triggers(account, deployed)
    _remember(stage, deployed)
    rest_api = next(resource for resource in deployed["resources"] if resource["resource_type"] == "rest_api")
    with _step("the API's throttling and error answers", account):
        set_up_front_door(account, stage, rest_api["rest_api_id"], cors_origins_of(settings))
    url = _url(account, stage, rest_api)
    _wait_for_answer(url)
    _say(f"Deployed stage {stage.name}: {url}")


def _destroy(stage: Stage, env: Mapping[str, str]) -> None:
    if stage.name in GUARDED_STAGES and env.get("DESTROY") != stage.name:
        raise DeployError(f"this deletes all tasks of stage {stage.name}", f"confirm with DESTROY={stage.name}")
    account = _account(env)
    _say(f"Destroying stage {stage.name} in {account}")
    with _step("the functions", account):
        _delete_functions(account, stage)
    _remember(stage, None)
    with _step("the stack", account):
        delete_stack(account.client("cloudformation"), stack_name(stage.name))
        _say(f"deleted stack {stack_name(stage.name)}")
        for name in sweep(account, stage):
            _say(f"deleted {name}, which the stack left behind")
        left = leftovers(account, stage)
    if left:
        raise DeployError(f"not deleted: {', '.join(left)}")
    _say(f"Destroyed stage {stage.name}; nothing is left")


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


def _delete_functions(account: Account, stage: Stage) -> None:
    # Chalice's state names one API and one trigger; an interrupted deployment may have left a second one.
    for extra in rest_api_ids(account, stage)[1:]:
        account.client("apigateway").delete_rest_api(restApiId=extra)
    state = chalice_state(account, stage)
    if state["resources"]:
        with project_folder(stage.name, {}, with_names(account.names(stage.name)), state) as folder:
            run_chalice("delete", stage.name, folder)


def _remember(stage: Stage, deployed: dict[str, object] | None) -> None:
    """Writes the state file that `chalice url` and `chalice logs` read; our own code does not read it."""
    path = ROOT / ".chalice" / "deployed" / f"{stage.name}.json"
    if deployed is None:
        path.unlink(missing_ok=True)
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text(state_json(deployed))


def _url(account: Account, stage: Stage, rest_api: Mapping[str, str]) -> str:
    """Returns the API's URL; LocalStack has one host name for all APIs."""
    if account.endpoint_url:
        endpoint = account.endpoint_url.rstrip("/")
        return f"{endpoint}/restapis/{rest_api['rest_api_id']}/{stage.api_gateway_stage}/_user_request_"
    return rest_api["rest_api_url"].rstrip("/")


def _wait_for_answer(url: str) -> None:
    deadline = time.monotonic() + _ANSWER_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=30):  # noqa: S310 - our own URL
                return
        except (urllib.error.URLError, OSError) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == 401:
                return  # the API answers: with AUTH=jwt, /health needs the admin scope
            if time.monotonic() > deadline:
                raise DeployError(f"{url}/health does not answer: {error}", "see the API function's log") from error
        time.sleep(1)
