"""The dashboard at the address that `make deploy` prints, with the slash at its end."""

from __future__ import annotations

import os
import re
from urllib.parse import urljoin, urlsplit

import pytest

from tests.deployed.deployment import Deployment


def files_of(page: str) -> list[str]:
    return re.findall(r'(?:src|href)="(?!#)([^"]+)"', page)


def test_the_dashboard_loads_its_files_by_relative_links(deployment: Deployment) -> None:
    page = deployment.request("GET", "/", headers={"Accept": "text/html"})
    assert page.status == 200
    files = files_of(page.text)
    assert "web/app.js" in files
    for file in files:
        url = urljoin(f"{deployment.url}/", file)
        assert deployment.request("GET", url.removeprefix(deployment.url)).status == 200, file


@pytest.mark.xfail(
    bool(os.environ.get("AWS_ENDPOINT_URL")),
    reason="AWS names the path of the request to the app; LocalStack names another one than it serves",
    strict=True,
)
def test_the_address_without_its_slash_leads_to_the_dashboard(deployment: Deployment) -> None:
    if not urlsplit(deployment.url).path:
        pytest.skip("the address has no path: browsers send a slash")
    assert "web/app.js" in deployment.request("GET", "").text
