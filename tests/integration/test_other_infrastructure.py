"""The page for those who deploy with CDK, Terraform or SAM: its templates, and the function that submits."""

import importlib.util
import json
import re
import time
from pathlib import Path
from typing import Any

import boto3
import hcl2
import jwt
import pytest
from cfnlint.api import ManualArgs, lint_file
from moto import mock_aws

from infra.deploy.function_url import URL
from infra.deploy.package import package
from infra.deploy.stages import read_stage
from paceline_client import Paceline
from tests.node import BUILD, install, packages, run
from tests.programs import ROOT, write_programs
from tests.served import served
from tests.tokens import SECRET

PAGE = "docs/how-to/other-infrastructure.md"
CDK = Path(__file__).parent / "generated" / "cdk" / "package.json"


def faults(template: Path, *ignored: str) -> list[str]:
    config = ManualArgs(regions=["us-east-1", "eu-west-1"], ignore_checks=list(ignored))
    return [str(match) for match in lint_file(template, config=config)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_programs(PAGE, tmp_path / "theirs")
    return tmp_path / "theirs"


@pytest.mark.parametrize("name", ["template.yaml", "domain.yaml", "vpc.yaml"])
def test_cfn_lint_finds_nothing(name: str, folder: Path) -> None:
    assert faults(folder / name) == []


def test_the_page_names_all_outputs_of_the_stack_and_no_others(tmp_path: Path) -> None:
    template = json.loads(package(read_stage("dev"), {}, tmp_path, with_requirements=False).read_text())
    table = (ROOT / PAGE).read_text().partition("| output |")[2].partition("\n\n")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == {*template["Outputs"], URL}


def test_terraform_reads_an_output_that_is_there(folder: Path) -> None:
    text = (folder / "main.tf").read_text()
    blocks = hcl2.loads(text)
    kinds = [next(iter(block)).strip('"') for block in blocks["resource"]]
    assert sorted(kinds) == [
        "aws_iam_role",
        "aws_iam_role_policy",
        "aws_iam_role_policy_attachment",
        "aws_lambda_function",
    ]
    assert re.findall(r"outputs\[\"(\w+)\"\]", text) == ["EndpointURL"]


def test_the_cdk_app_makes_a_template_without_faults(folder: Path) -> None:
    packages()  # skips where Node is missing
    modules = BUILD / "cdk"
    install(modules, CDK.read_text(), "npm", "install", "--no-audit", "--no-fund", "--no-package-lock")
    (folder / "node_modules").symlink_to(modules / "node_modules")
    (folder / "package.json").write_text(json.dumps({"type": "commonjs"}))
    options = ("--strict", "--target", "es2022", "--module", "commonjs", "--types", "node", "--skipLibCheck")
    run(folder, "node", "node_modules/typescript/bin/tsc", *options, "app.ts")
    run(folder, "node", "app.js")
    made = folder / "cdk.out" / "Shop.template.json"
    # CDK itself writes a DependsOn that CloudFormation would add anyway.
    assert faults(made, "W3005") == []
    resources = json.loads(made.read_text())["Resources"].values()
    [policy] = [one["Properties"] for one in resources if one["Type"] == "AWS::IAM::Policy"]
    [statement] = policy["PolicyDocument"]["Statement"]
    assert set(statement["Action"]) == {"secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"}


def test_the_function_submits_with_a_token_of_the_user(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = load(folder / "submitter" / "handler.py")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("TOKEN_SECRET", "tokens")
    event = {"id": "event-1", "user": "ann", "order": {"n": 1}}
    with mock_aws(), served(tmp_path / "served", monkeypatch, AUTH="jwt", JWT_SECRET=SECRET) as url:
        boto3.client("secretsmanager").create_secret(Name="tokens", SecretString=SECRET)
        monkeypatch.setenv("PACELINE_URL", url)
        first, again = handler.handler(event, None), handler.handler(event, None)
        assert first == again
        token = jwt.encode({"sub": "ann", "exp": int(time.time()) + 60}, SECRET, algorithm="HS256")
        with Paceline(url, token) as paceline:
            assert paceline.lane("ann").admitted == 1
            assert paceline.wait(("ann", first["task_id"]), timeout=20).state == "succeeded"


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("submitter_handler", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
