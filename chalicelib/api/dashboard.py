"""Serves the dashboard's files: cached by ETag, and restricted to this origin by a content security policy."""

import hashlib
from functools import lru_cache
from pathlib import Path

from chalice.app import Request, Response

from chalicelib.api.headers import matches
from chalicelib.core.errors import NotFoundError

FILES = Path(__file__).parents[1] / "web"
INDEX = "index.html"
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: Blocks scripts from injected markup: ids, names, errors and results come from untrusted clients.
POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"


def page_response(request: Request) -> Response:
    """Returns the page; a redirect if the URL is that of an API Gateway stage without the slash at the end.

    The page's links are relative, since a stage's path may precede them: without the slash they lead nowhere.
    """
    path = str(request.context.get("path") or "/")
    if path.endswith("/"):
        return file_response(request, INDEX)
    return Response("", {"Location": f"{path.rpartition('/')[2]}/"}, 307)


def file_response(request: Request, name: str) -> Response:
    """Returns the file, or 304 if the browser has it cached. Raises NotFoundError for an unknown name."""
    text, tag = _file(name)
    headers: dict[str, str | list[str]] = {
        "Content-Type": CONTENT_TYPES[Path(name).suffix],
        "Content-Security-Policy": POLICY,
        "Cache-Control": "no-cache",  # revalidate, so that a new deployment shows at the next load
        "ETag": tag,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return Response("", headers, 304) if matches(request, tag) else Response(text, headers)


@lru_cache(maxsize=64)
def _file(name: str) -> tuple[str, str]:
    """Returns the file's text and ETag."""
    if name not in _names():  # prevents path traversal
        raise NotFoundError("File not found", f"The dashboard has no file {name[:100]!r}.")
    data = (FILES / name).read_bytes()
    return data.decode(), f'"{hashlib.sha256(data).hexdigest()[:32]}"'


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(path.name for path in FILES.iterdir() if path.suffix in CONTENT_TYPES)
