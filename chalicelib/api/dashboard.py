"""The dashboard's files, as responses: read once, named by their content, and locked down to this origin."""

import hashlib
from functools import lru_cache
from pathlib import Path

from chalice.app import Request, Response

from chalicelib.core.errors import NotFoundError

FILES = Path(__file__).parents[1] / "web"
INDEX = "index.html"
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: Ids, names, errors and results come from strangers: should one get into the page as markup, it still can't run.
POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"


def file_response(request: Request, name: str) -> Response:
    """The file of that name, or 304 when the browser has it. NotFoundError when there is none."""
    text, tag = _file(name)
    headers: dict[str, str | list[str]] = {
        "Content-Type": CONTENT_TYPES[Path(name).suffix],
        "Content-Security-Policy": POLICY,
        "Cache-Control": "no-cache",  # kept, but asked about: a deployment shows at the next load
        "ETag": tag,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    known = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
    return Response("", headers, 304) if tag in known else Response(text, headers)


@lru_cache(maxsize=64)
def _file(name: str) -> tuple[str, str]:
    """Its text and its ETag."""
    if name not in _names():  # so that no name leads out of the folder
        raise NotFoundError("No such file", f"The dashboard has no file {name[:100]!r}.")
    data = (FILES / name).read_bytes()
    return data.decode(), f'"{hashlib.sha256(data).hexdigest()[:32]}"'


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(path.name for path in FILES.iterdir() if path.suffix in CONTENT_TYPES)
