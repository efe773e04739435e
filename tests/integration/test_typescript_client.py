"""The TypeScript client: built, tested by Node, packed, compiled strictly by others, and its documentation run."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from chalicelib.api.openapi import VERSION
from tests.node import CLIENT, PACKAGES, built_client, compiled, packed, project, run
from tests.processes import serving
from tests.programs import write_programs
from tests.served import served

PAGE = "docs/how-to/typescript-client.md"


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with served(tmp_path / "served", monkeypatch, LIMITS="3/second") as url:
        yield url


def test_nodes_test_runner_passes_all_of_the_clients_tests(url: str) -> None:
    output = run(built_client(), "npm", "test", PACELINE_URL=url)
    counts = dict(re.findall(r"^\S (pass|fail|skipped) (\d+)$", output, re.MULTILINE))
    assert (counts["fail"], counts["skipped"]) == ("0", "0")
    assert int(counts["pass"]) > 50


def test_the_package_holds_both_builds_with_types_and_needs_nothing() -> None:
    archive, files = packed()
    assert archive.name == f"paceline-client-{VERSION}.tgz"
    assert {Path(file).parts[0] for file in files} == {"README.md", "dist", "package.json"}
    for build in ("esm", "cjs"):
        assert {f"dist/{build}/index.js", f"dist/{build}/index.d.ts", f"dist/{build}/api.d.ts"} <= set(files)
    manifest = json.loads((CLIENT / "package.json").read_text())
    assert manifest["version"] == VERSION
    assert not {"dependencies", "peerDependencies", "optionalDependencies"} & manifest.keys()


def test_versions_are_exact_and_no_file_names_a_registry() -> None:
    wanted = json.loads((CLIENT / "package.json").read_text())["devDependencies"]
    tests = json.loads(PACKAGES.read_text())["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in {**wanted, **tests}.values())
    assert {name: tests[name] for name in wanted} == wanted
    assert "package-lock=false" in (CLIENT / ".npmrc").read_text()


USE = """
import { Paceline, type SubmittedTask, type TaskOrder } from "paceline-client";

const paceline = new Paceline("http://127.0.0.1:8000");
const order: TaskOrder = { payload: 1, run_at: Date.now() };
export async function use(): Promise<SubmittedTask> {
  const task = await paceline.task("ann", "id");
  const state: "queued" | "running" | "succeeded" | "failed" | "cancelled" = task.state;
  // @ts-expect-error There is no such state.
  const wrong: typeof state = "lost";
  // @ts-expect-error There is no such field.
  await paceline.submit("ann", { colour: wrong });
  // @ts-expect-error There is no such route.
  await paceline.request("get", "/api/v1/nowhere");
  // @ts-expect-error The route has no such method.
  await paceline.request("put", "/api/v1/lanes");
  // @ts-expect-error The body needs `limits`.
  await paceline.request("put", "/api/v1/users/{user}/limits", { path: { user: "ann" }, body: {} });
  return paceline.submit("ann", order, { idempotencyKey: "a" });
}
"""


@pytest.mark.parametrize(("name", "module"), [("use.mts", "nodenext"), ("use.cts", "nodenext")])
def test_strict_programs_of_both_module_systems_compile(tmp_path: Path, name: str, module: str) -> None:
    folder = project(tmp_path / "theirs")
    (folder / name).write_text(USE)
    compiled(folder, name, module=module)


def test_a_strict_program_for_browsers_compiles_without_types_of_node(tmp_path: Path) -> None:
    folder = project(tmp_path / "theirs")
    (folder / "use.ts").write_text(USE)
    options = {"strict": True, "target": "es2022", "lib": ["es2022", "dom"], "types": []}
    modules = {"module": "esnext", "moduleResolution": "bundler", "noEmit": True}
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": options | modules, "files": ["use.ts"]}))
    run(folder, "node", "node_modules/typescript/bin/tsc")


def test_the_programs_of_the_documentation_compile_strictly_and_run(url: str, tmp_path: Path) -> None:
    folder = project(tmp_path / "theirs")
    names = write_programs(PAGE, folder)
    assert names == ["first.ts", "busiest.ts", "shop.ts"]
    compiled(folder, *names)
    lines = run(folder, "node", "first.js", PACELINE_URL=url).splitlines()
    assert lines[0].endswith(" 0 false")
    assert lines[1:5] == ["succeeded null", "3 3", "cancelled", "true"]
    assert run(folder, "node", "busiest.js", PACELINE_URL=url) == "[ 'ann' ]\n"


def test_the_readme_of_the_package_runs(url: str, tmp_path: Path) -> None:
    folder = project(tmp_path / "theirs")
    [program] = re.findall(r"```ts\n(.*?)```", (CLIENT / "README.md").read_text(), re.DOTALL)
    (folder / "first.ts").write_text(program.replace("http://127.0.0.1:8000", url))
    compiled(folder, "first.ts")
    assert run(folder, "node", "first.js").splitlines() == ["0 false", "succeeded"]


def test_the_express_recipe_submits_once_and_answers_for_errors(url: str, tmp_path: Path) -> None:
    folder = project(tmp_path / "theirs")
    write_programs(PAGE, folder)
    compiled(folder, "shop.ts")
    with serving(folder, "node", "shop.js", PACELINE_URL=url) as shop:
        first, again = (httpx.post(f"{shop}/orders/7/ship") for _ in range(2))
        assert (first.status_code, first.json()) == (202, again.json())
        task_id = first.json()["task_id"]
        assert httpx.get(f"{shop}/tasks/{task_id}").json()["seq"] == 1
        assert httpx.get(f"{shop}/tasks/unknown").status_code == 404
    with serving(folder, "node", "shop.js", PACELINE_URL="http://127.0.0.1:1024") as shop:
        assert httpx.post(f"{shop}/orders/7/ship").status_code == 503
