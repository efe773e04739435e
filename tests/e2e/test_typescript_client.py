"""The TypeScript client against the system as it runs."""

import re

from tests.e2e.running import Paceline
from tests.node import built_client, run


def test_nodes_tests_of_a_running_system_pass(paceline: Paceline) -> None:
    url = f"http://127.0.0.1:{paceline.port}"
    output = run(built_client(), "node", "--test", "test/running.test.mjs", PACELINE_URL=url)
    counts = dict(re.findall(r"^\S (pass|fail|skipped) (\d+)$", output, re.MULTILINE))
    assert (counts["fail"], counts["skipped"]) == ("0", "0")
    assert int(counts["pass"]) >= 7
