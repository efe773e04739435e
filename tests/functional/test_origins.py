"""Which web pages may call, and which Host is served: through the local gateway, as `make run` answers."""

import json
import socket
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from chalice.app import Chalice
from chalice.test import Client

from chalicelib.container import container
from chalicelib.core.errors import SettingError
from chalicelib.core.lane import Lane
from local.gateway import Gateway
from tests.tokens import SECRET

LoadApp = Callable[..., Chalice]
Answer = tuple[int, dict[str, str], bytes]
APP, EVIL = "https://app.example.com", "https://evil.example"
TOKENS = {"AUTH": "jwt", "JWT_SECRET": SECRET}


class Browser:
    """Sends requests to the local gateway. headers: `Sec_Fetch_Site` for `Sec-Fetch-Site`."""

    def __init__(self, app: Chalice) -> None:
        self._gateway = Gateway(app)

    def __call__(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        environ: dict[str, Any] = {"REQUEST_METHOD": method, "REQUEST_URI": path, "wsgi.input": BytesIO(body)}
        environ |= {f"HTTP_{name.upper()}": value for name, value in {"Host": "localhost:8000", **headers}.items()}
        if "HTTP_CONTENT_TYPE" in environ:
            environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE")
        begun: list[tuple[str, list[tuple[str, str]]]] = []
        answer = b"".join(self._gateway(environ, lambda *args: begun.append(args)))
        status, pairs = begun[0]
        names = [name.lower() for name, _ in pairs]
        assert len(names) == len(set(names)), "a header is sent twice"
        return int(status.split()[0]), dict(pairs), answer


@pytest.fixture
def load(load_app: LoadApp) -> Callable[..., Browser]:
    return lambda **env: Browser(load_app(**{"AUTH": "none", "CORS_ORIGINS": "", **env}))


@pytest.fixture
def browser(load: Callable[..., Browser]) -> Browser:
    return load()


def cors(headers: dict[str, str]) -> str | None:
    return headers.get("Access-Control-Allow-Origin")


#: What a page can send without a preflight request, and one that it can't; each would change something.
CHANGES = [
    ("POST", "/task?userId=ann", b"", {}),
    ("POST", "/task?userId=ann", b"", {"Content_Type": "text/plain"}),
    ("POST", "/task", b'{"user_id": "ann"}', {"Content_Type": "text/plain"}),
    ("POST", "/task", b'{"user_id": "ann"}', {"Content_Type": "application/json"}),
    ("POST", "/api/v1/users/ann/pause", b"", {"Content_Type": "application/x-www-form-urlencoded"}),
    ("POST", "/api/v1/users/ann/resume", b"", {"Content_Type": "multipart/form-data"}),
    ("DELETE", "/api/v1/users/ann/limits", b"", {}),
]
FOREIGN = [
    {"Origin": EVIL},
    {"Origin": EVIL, "Sec_Fetch_Site": "cross-site"},
    {"Origin": "null"},
    {"Origin": "null", "Sec_Fetch_Site": "cross-site"},
    {"Origin": ""},
    {"Origin": "http://localhost:3000", "Sec_Fetch_Site": "same-site"},
    {"Origin": "http://localhost"},
    {"Origin": "http://127.0.0.1:8000"},
    {"Origin": "http://localhost:8000.evil.example"},
    {"Origin": "http://evil.example/localhost:8000"},
    {"Origin": "http://localhost:8000@evil.example"},
    {"Origin": "http://[localhost:8000"},
    {"Origin": "chrome-extension://abcdef"},
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
]


@pytest.mark.parametrize(("method", "path", "body", "headers"), CHANGES)
@pytest.mark.parametrize("page", FOREIGN, ids=str)
def test_page_of_another_origin_changes_nothing(
    browser: Browser, method: str, path: str, body: bytes, headers: dict[str, str], page: dict[str, str]
) -> None:
    status, answered, text = browser(method, path, body, **headers, **page)
    assert (status, answered["Content-Type"], cors(answered)) == (403, "application/problem+json", None)
    assert json.loads(text)["title"] == "Request from another origin"
    assert "CORS_ORIGINS" in json.loads(text)["detail"]
    assert container().lanes.get("ann") == Lane("ann")


@pytest.mark.parametrize("page", FOREIGN, ids=str)
@pytest.mark.parametrize("path", ["/api/v1/lanes", "/api/v1/users/ann", "/health", "/kill"])
def test_page_of_another_origin_reads_nothing(browser: Browser, path: str, page: dict[str, str]) -> None:
    status, headers, _ = browser("GET", path, **page)
    assert (status, cors(headers)) == (403, None)


def test_kill_can_not_be_an_image_on_a_page(load: Callable[..., Browser]) -> None:
    assert load(ALLOW_KILL="true")("GET", "/kill", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors")[0] == 403


OWN = [
    {},
    {"Sec_Fetch_Site": "none"},
    {"Sec_Fetch_Site": "same-origin"},
    {"Origin": "http://localhost:8000"},
    {"Origin": "http://LOCALHOST:8000", "Sec_Fetch_Site": "same-origin"},
    {"Origin": "https://front.example", "Sec_Fetch_Site": "same-origin"},  # behind a proxy that changes Host
    {"Origin": "http://[::1]:8000", "Host": "[::1]:8000"},
]


@pytest.mark.parametrize("page", OWN, ids=str)
def test_own_page_and_programs_may_do_everything(browser: Browser, page: dict[str, str]) -> None:
    for method, path, body, headers in CHANGES:
        if headers.get("Content_Type", "application/json") == "application/json":
            assert browser(method, path, body, **headers, **page)[0] in (200, 202, 429)
    assert browser("GET", "/api/v1/lanes", **page)[0] == 200
    assert browser("GET", "/", **page)[0] == 200


def test_link_on_another_page_leads_to_the_dashboard(browser: Browser) -> None:
    for path in ("/", "/web/app.js", "/health-check", "/openapi.json"):
        assert browser("GET", path, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200
        assert browser("GET", path, Origin=EVIL)[0] == 403


def test_preflight_of_another_origin_is_refused(browser: Browser, load: Callable[..., Browser]) -> None:
    asked = {"Origin": EVIL, "Access_Control_Request_Method": "POST"}
    for status, headers, _ in (
        browser("OPTIONS", "/task", **asked),
        load(CORS_ORIGINS=APP)("OPTIONS", "/task", **asked),
    ):
        assert status in (403, 405)
        assert cors(headers) is None


@pytest.mark.parametrize("origins", [APP, f"http://localhost:3000 , {APP}", "HTTPS://APP.example.com,"])
def test_listed_origin_may_call(load: Callable[..., Browser], origins: str) -> None:
    browser = load(CORS_ORIGINS=origins)
    status, headers, _ = browser("OPTIONS", "/task", Origin=APP, Access_Control_Request_Method="POST")
    assert (status, cors(headers), headers["Vary"]) == (204, APP, "Origin")
    assert headers["Access-Control-Allow-Methods"] == "OPTIONS, POST"
    assert {"Idempotency-Key", "Prefer", "Content-Type"} <= {*headers["Access-Control-Allow-Headers"].split(", ")}
    status, headers, _ = browser("POST", "/task?userId=ann", Origin=APP, Sec_Fetch_Site="cross-site")
    assert (status, cors(headers), headers["Vary"]) == (202, APP, "Origin")
    assert browser("POST", "/task?userId=ann", Origin=EVIL)[0] == 403
    status, headers, _ = browser("GET", "/api/v1/lanes")
    assert (status, cors(headers), headers["Vary"]) == (200, None, "Origin")


def test_star_lets_every_origin_call(load: Callable[..., Browser]) -> None:
    browser = load(CORS_ORIGINS="*")
    for page in FOREIGN:
        status, headers, _ = browser("GET", "/api/v1/lanes", **page)
        assert (status, cors(headers)) == (200, "*")


def test_tokens_let_every_origin_call_unless_the_setting_names_some(load: Callable[..., Browser]) -> None:
    for method in ("GET", "OPTIONS"):
        status, headers, _ = load(**TOKENS)(method, "/api/v1/lanes", Origin=EVIL)
        assert (status, cors(headers)) == ({"GET": 401, "OPTIONS": 204}[method], "*")
        status, headers, _ = load(**TOKENS, CORS_ORIGINS=APP)(method, "/api/v1/lanes", Origin=EVIL)
        assert (status, cors(headers)) == ({"GET": 401, "OPTIONS": 204}[method], None)


@pytest.mark.parametrize("env", [{"CORS_ORIGINS": APP}, {**TOKENS}, {**TOKENS, "CORS_ORIGINS": APP}])
def test_every_answer_has_the_headers_of_cors(load: Callable[..., Browser], env: dict[str, str]) -> None:
    browser = load(**env)
    is_guarded = "AUTH" in env
    for status, answer in [
        (200, browser("GET", "/health-check", Origin=APP)),
        (200, browser("GET", "/", Origin=APP)),
        (404, browser("GET", "/nothing", Origin=APP)),
        (405, browser("PATCH", "/task", Origin=APP)),
        (401 if is_guarded else 415, browser("POST", "/task", b"x", Origin=APP, Content_Type="text/plain")),
        (401 if is_guarded else 413, browser("POST", "/task", b" " * 200_000, Origin=APP)),
        (401 if is_guarded else 400, browser("POST", "/task", b"{", Origin=APP)),
        (401 if is_guarded else 404, browser("GET", "/kill", Origin=APP)),
    ]:
        found, headers, _ = answer
        assert (found, cors(headers)) == (status, env.get("CORS_ORIGINS", "*"))
        exposed = {*headers["Access-Control-Expose-Headers"].split(", ")}
        assert {"Idempotency-Replayed", "Preference-Applied", "Location", "Retry-After", "RateLimit"} <= exposed


def test_every_answer_is_neither_stored_nor_guessed_at(load: Callable[..., Browser]) -> None:
    for browser in (load(), load(**TOKENS)):
        for method, path, body in [
            ("POST", "/task?userId=ann", b""),
            *(("GET", path, b"") for path in ("/health-check", "/openapi.json", "/api/v1/lanes", "/nothing", "/kill")),
            ("POST", "/task", b"{"),
            ("PATCH", "/task", b""),
            ("OPTIONS", "/task", b""),
        ]:
            _, headers, _ = browser(method, path, body)
            assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff"), path
        for path in ("/", "/web/app.js"):
            assert browser("GET", path)[1]["Cache-Control"] == "no-cache"


def test_answers_of_the_app_alone_have_the_same_headers(load_app: LoadApp) -> None:
    """As on AWS, where the local gateway does not complete them."""
    with Client(load_app(AUTH="none", CORS_ORIGINS=APP)) as chalice:
        for path in ("/health-check", "/api/v1/lanes", "/kill", "/web/nothing", "/api/v1/users/%20"):
            headers = chalice.http.get(path, headers={"Origin": APP}).headers
            assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
            assert headers["Access-Control-Allow-Origin"] == APP


def test_error_of_chalice_itself_is_a_problem(load_app: LoadApp) -> None:
    app = load_app(AUTH="none")
    app.route("/breaks")(lambda: 1 / 0)
    status, headers, body = Browser(app)("GET", "/breaks")
    assert (status, headers["Content-Type"], headers["Cache-Control"]) == (500, "application/problem+json", "no-store")
    assert json.loads(body)["detail"] == "An internal server error occurred."


@pytest.mark.parametrize(
    "value",
    [
        "app.example.com",
        "ftp://a.test",
        "https://a.test/",
        "https://a.test/x",
        "null",
        "*, https://a.test",
        "https://*.a.test",
    ],
)
def test_wrong_list_of_origins_is_a_setting_error(load_app: LoadApp, value: str) -> None:
    with pytest.raises(SettingError, match="CORS_ORIGINS"):
        load_app(AUTH="none", CORS_ORIGINS=value)


# The Host header.

HOSTNAME = socket.gethostname()


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8000", "LOCALHOST:9999", "localhost.:8000", "api.localhost:8000"),
        *("127.0.0.1", "127.0.0.1:8000", "127.0.0.2:1", "[::1]", "[::1]:8000", "0.0.0.0:8000"),
        *(HOSTNAME, f"{HOSTNAME}:8000", HOSTNAME.upper(), f"{HOSTNAME.partition('.')[0]}.local:8000", socket.getfqdn()),
    ],
)
def test_name_of_this_machine_is_served(browser: Browser, host: str) -> None:
    assert browser("GET", "/api/v1/lanes", Host=host)[0] == 200


STRANGERS = [
    *("evil.example", "evil.example:8000", "localhost.evil.example", "evillocalhost", "127.0.0.1.evil.example:8000"),
    *("127.0.0.1.nip.io", "8.8.8.8", "169.254.169.254", "[2606:4700::1111]:8000", "224.0.0.1", "2130706433", "127.1"),
    *(
        "",
        " ",
        ".",
        "..:8000",
        "localhost:",
        "localhost:x",
        "localhost:8000:1",
        "localhost/",
        "a@localhost",
        "localhost, evil.example",
    ),
    *("evil.example#localhost", "[localhost]", "[::1", "::1", "localhost\x00", "http://localhost"),
]


@pytest.mark.parametrize("host", STRANGERS)
@pytest.mark.parametrize("path", ["/", "/health-check", "/api/v1/lanes", "/nothing"])
def test_other_host_is_not_served(browser: Browser, host: str, path: str) -> None:
    status, headers, body = browser("GET", path, Host=host)
    assert (status, headers["Content-Type"], headers["Cache-Control"]) == (421, "application/problem+json", "no-store")
    assert (json.loads(body)["title"], json.loads(body)["status"]) == ("Misdirected Request", 421)


def test_page_whose_name_was_pointed_at_this_machine_submits_nothing(browser: Browser) -> None:
    """DNS rebinding: the browser takes the API for a part of that page, so `Origin` and `Host` agree."""
    page = {"Host": "evil.example:8000", "Origin": "http://evil.example:8000", "Sec_Fetch_Site": "same-origin"}
    assert browser("POST", "/task?userId=ann", **page)[0] == 421
    assert container().lanes.get("ann") == Lane("ann")


def test_host_of_an_allowed_origin_is_served(load: Callable[..., Browser]) -> None:
    browser = load(CORS_ORIGINS="https://paceline.lan, http://box:8080")
    assert [browser("GET", "/health-check", Host=host)[0] for host in ("paceline.lan", "BOX:8080")] == [200, 200]
    assert [browser("GET", "/health-check", Host=host)[0] for host in ("box", "box:8081", "x.lan")] == [421] * 3


def test_setting_HOST_is_served(load: Callable[..., Browser], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "Paceline.intern")
    assert load()("GET", "/health-check", Host="paceline.intern:8000")[0] == 200


def test_every_host_is_served_where_requests_need_a_token(load: Callable[..., Browser]) -> None:
    assert load(**TOKENS)("GET", "/health-check", Host="anything.example")[0] == 200
    assert load(CORS_ORIGINS="*")("GET", "/health-check", Host="anything.example")[0] == 200
