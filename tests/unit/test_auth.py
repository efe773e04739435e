import hmac
import json
import subprocess
import sys
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.auth.caller import ANYONE, Caller, NoAuthentication, bearer_token
from chalicelib.auth.jwt_verifier import token_authentication
from chalicelib.core.errors import ForbiddenError, SettingError, UnauthenticatedError, UnavailableError
from chalicelib.settings import JwtSettings, Settings
from operations.token import token_from
from tests.factories import VirtualClock, make_settings
from tests.tokens import (
    NOW_SECONDS,
    SECRET,
    claims,
    ec_key,
    forged,
    jwk,
    jwks,
    make_token,
    pem,
    rsa_key,
)
from tests.unit.command_line import call

ROOT = Path(__file__).resolve().parents[2]
HS = {"alg": "HS256", "typ": "JWT"}
ANN = Caller("ann", is_admin=False)


def jwt_settings(**env: str) -> JwtSettings:
    """With the secret unless the environment has a key of another kind."""
    has_key = any(name.startswith(("JWT_PUBLIC", "JWT_JWKS", "JWT_SECRET")) for name in env)
    settings = make_settings(AUTH="jwt", **({} if has_key else {"JWT_SECRET": SECRET}), **env).jwt
    assert settings
    return settings


def no_fetch(url: str) -> str:
    raise AssertionError(f"{url} was fetched")


def identify(authorization: Sequence[str], **env: str) -> Caller:
    return token_authentication(jwt_settings(**env), no_fetch, VirtualClock().now_ms).identify(authorization)


def bearer(token: str, **env: str) -> Caller:
    return identify([f"Bearer {token}"], **env)


def refusal(token: str, **env: str) -> str:
    with pytest.raises(UnauthenticatedError) as refused:
        bearer(token, **env)
    return refused.value.title


@pytest.mark.parametrize(
    "env_and_token",
    [
        lambda: ({"JWT_SECRET": SECRET}, make_token()),
        lambda: ({"JWT_SECRET": SECRET}, make_token(kid="whatever")),
        lambda: ({"JWT_PUBLIC_KEY": pem(rsa_key())}, make_token(rsa_key(), "RS256")),
        lambda: ({"JWT_PUBLIC_KEY": pem(ec_key()).replace("\n", "\\n")}, make_token(ec_key(), "ES256")),
        lambda: ({"JWT_JWKS": jwks(jwk(rsa_key()))}, make_token(rsa_key(), "RS256")),
        lambda: ({"JWT_JWKS": jwks(jwk(rsa_key(), kid="a"))}, make_token(rsa_key(), "RS256")),
        lambda: (
            {"JWT_JWKS": jwks(jwk(rsa_key("old"), kid="a"), jwk(rsa_key(), kid="b"))},
            make_token(rsa_key(), "RS256", kid="b"),
        ),
        lambda: (
            {"JWT_JWKS": jwks(jwk(ec_key(), kid="a", use="sig", alg="ES256"), jwk(rsa_key(), kid="a"))},
            make_token(ec_key(), "ES256", kid="a"),
        ),
        lambda: (
            {"JWT_JWKS": jwks({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}, {"kty": "new"}, jwk(ec_key(), kid="a"))},
            make_token(ec_key(), "ES256", kid="a"),
        ),
        lambda: ({"JWT_AUDIENCE": "paceline"}, make_token(aud="paceline")),
        lambda: ({"JWT_AUDIENCE": "paceline"}, make_token(aud=["others", "paceline"])),
        lambda: ({"JWT_ISSUER": "https://issuer"}, make_token(iss="https://issuer")),
        lambda: ({}, make_token(iss="anyone")),
        lambda: ({}, make_token(nbf=NOW_SECONDS, iat=NOW_SECONDS)),
        lambda: ({}, make_token(nbf=NOW_SECONDS + 9, iat=NOW_SECONDS + 9, exp=NOW_SECONDS - 9)),
        lambda: ({}, make_token(exp=NOW_SECONDS + 0.5)),
    ],
)
def test_good_token_tells_the_user(env_and_token: Callable[[], tuple[dict[str, str], str]]) -> None:
    env, token = env_and_token()
    assert bearer(token, **env) == ANN


@pytest.mark.parametrize("user_id", ["a" * 128, "a/b+c@d.e", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"])
def test_every_user_id_can_be_a_subject(user_id: str) -> None:
    assert bearer(make_token(sub=user_id)).user_id == user_id


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer   ", "  Bearer "])
def test_scheme_has_no_case(scheme: str) -> None:
    assert identify([scheme + make_token()]) == ANN


REFUSED: dict[str, tuple[str, Callable[[], str]]] = {
    "no algorithm": ("algorithm", lambda: forged({"alg": "none"}, claims())),
    "no algorithm, spelt otherwise": ("algorithm", lambda: forged({"alg": "nOnE"}, claims())),
    "no algorithm, signed": ("algorithm", lambda: forged({"alg": "none"}, claims(), SECRET)),
    "algorithm left out": ("algorithm", lambda: forged({"typ": "JWT"}, claims(), SECRET)),
    "algorithm is null": ("algorithm", lambda: forged({"alg": None}, claims(), SECRET)),
    "algorithm is a list": ("algorithm", lambda: forged({"alg": ["HS256"]}, claims(), SECRET)),
    "longer HMAC": ("algorithm", lambda: make_token(SECRET * 2, "HS512")),
    "RSA where there is a secret": ("algorithm", lambda: make_token(rsa_key(), "RS256")),
    "another secret": ("signature", lambda: make_token(SECRET[::-1])),
    "signature left out": ("signature", lambda: forged(HS, claims())),
    "signature of another token": (
        "signature",
        lambda: ".".join([*forged(HS, claims(sub="eve"), SECRET).split(".")[:2], make_token().split(".")[2]]),
    ),
    "signature cut short": ("signature", lambda: make_token()[:-3]),
    "extension": ("extension", lambda: forged({**HS, "crit": ["b64"], "b64": True}, claims(), SECRET)),
    "unknown extension": ("malformed", lambda: forged({**HS, "crit": ["x"], "x": 1}, claims(), SECRET)),
    "empty list of extensions": ("malformed", lambda: forged({**HS, "crit": []}, claims(), SECRET)),
    "key id is a number": ("malformed", lambda: forged({**HS, "kid": 1}, claims(), SECRET)),
    "key id is an object": ("malformed", lambda: forged({**HS, "kid": {}}, claims(), SECRET)),
    "expired": ("has expired", lambda: make_token(exp=NOW_SECONDS - 11)),
    "expired at the start of time": ("has expired", lambda: make_token(exp=0)),
    "expired before it": ("has expired", lambda: make_token(exp=-(2**53))),
    "never expires": ("no `exp`", lambda: make_token(exp=None)),
    "expiry is null": ("no `exp`", lambda: forged(HS, {**claims(), "exp": None}, SECRET)),
    "expiry is infinite": ("`exp` is not a valid time", lambda: forged(HS, claims(exp=float("inf")), SECRET)),
    "expiry is not a number": ("`exp` is not a valid time", lambda: forged(HS, claims(exp=float("nan")), SECRET)),
    "expiry is text": ("`exp` is not a valid time", lambda: forged(HS, claims(exp=str(NOW_SECONDS + 600)), SECRET)),
    "expiry is true": ("`exp` is not a valid time", lambda: forged(HS, claims(exp=True), SECRET)),
    "expiry is a list": ("`exp` is not a valid time", lambda: forged(HS, claims(exp=[NOW_SECONDS + 600]), SECRET)),
    "not before a while": ("not yet valid", lambda: make_token(nbf=NOW_SECONDS + 11)),
    "not before null": ("`nbf` is not a valid time", lambda: forged(HS, {**claims(), "nbf": None}, SECRET)),
    "issued in the future": ("not yet valid", lambda: make_token(iat=NOW_SECONDS + 11)),
    "no subject": ("no `sub`", lambda: make_token(sub=None)),
    "subject is a number": ("subject", lambda: forged(HS, claims(sub=7), SECRET)),
    "subject is a list": ("subject", lambda: forged(HS, claims(sub=["ann"]), SECRET)),
    "subject is empty": ("subject", lambda: make_token(sub="")),
    "subject with a space": ("subject", lambda: make_token(sub="ann bob")),
    "subject with a line": ("subject", lambda: make_token(sub="ann\n")),
    "subject beyond ASCII": ("subject", lambda: make_token(sub="ännchen")),
    "subject too long": ("subject", lambda: make_token(sub="a" * 129)),
    "audience when none is ours": ("audience", lambda: make_token(aud="others")),
    "list of audiences when none is ours": ("audience", lambda: make_token(aud=["others"])),
    "claims are a list": ("malformed", lambda: forged(HS, [claims()], SECRET)),
    "claims are no JSON": ("malformed", lambda: forged(HS, b"{", SECRET)),
    "claims are no UTF-8": ("malformed", lambda: forged(HS, b'{"sub":"\xff"}', SECRET)),
    "claims nested deep": ("malformed", lambda: forged(HS, b"[" * 5_000, SECRET)),
    "claims with an endless number": ("malformed", lambda: forged(HS, b'{"exp":' + b"9" * 5_000 + b"}", SECRET)),
    "header nested deep": ("malformed", lambda: forged(b"[" * 5_000, claims(), SECRET)),
    "header is a list": ("malformed", lambda: forged([HS], claims(), SECRET)),
    "detached payload": ("malformed", lambda: forged({**HS, "b64": False, "crit": ["b64"]}, claims(), SECRET)),
    "one part": ("malformed", lambda: "garbage"),
    "two parts": ("malformed", lambda: "a.b"),
    "four parts": ("malformed", lambda: make_token() + ".AAAA"),
    "dots": ("malformed", lambda: ".."),
    "other characters": ("malformed", lambda: make_token() + "é"),
    "a null": ("malformed", lambda: make_token() + "\0"),
    "two tokens": ("malformed", lambda: f"{make_token()} {make_token()}"),
    "nothing": ("malformed", lambda: ""),
    "huge": ("too long", lambda: make_token(more="x" * 10_000)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_hostile_token_is_refused(case: str) -> None:
    title, make = REFUSED[case]
    assert title in refusal(make())


@pytest.mark.parametrize("key", [rsa_key, ec_key])
def test_public_key_is_no_secret(key: Callable[[], Any]) -> None:
    text = pem(key())
    for secret in (text, text.strip(), text.replace("\n", "\\n")):
        assert "algorithm" in refusal(forged(HS, claims(sub="eve", scope="admin"), secret), JWT_PUBLIC_KEY=text)
        assert "algorithm" in refusal(forged(HS, claims(), secret), JWT_JWKS=jwks(jwk(key(), kid="a")))


def test_key_of_one_type_admits_no_other_algorithm_of_that_type() -> None:
    assert "algorithm" in refusal(make_token(rsa_key(), "PS256"), JWT_PUBLIC_KEY=pem(rsa_key()))
    assert "algorithm" in refusal(make_token(rsa_key(), "RS512"), JWT_PUBLIC_KEY=pem(rsa_key()))


def test_key_in_the_token_itself_is_not_used() -> None:
    header = {
        "alg": "RS256",
        "jwk": jwk(rsa_key("eve")),
        "jku": "https://eve.example/jwks",
        "x5u": "https://eve.example",
    }
    token = make_token(rsa_key("eve"), "RS256")
    forgery = ".".join([forged(header, claims()).split(".")[0], *token.split(".")[1:]])
    assert "signature" in refusal(forgery, JWT_PUBLIC_KEY=pem(rsa_key()))
    assert "signature" in refusal(forgery, JWT_JWKS=jwks(jwk(rsa_key())))


@pytest.mark.parametrize("kid", ["c", "", "A", "../a", "a' OR '1'='1"])
def test_unknown_key_is_refused(kid: str) -> None:
    keys = jwks(jwk(rsa_key(), kid="a"), jwk(ec_key(), kid="b"))
    assert "unknown key" in refusal(make_token(rsa_key(), "RS256", kid=kid), JWT_JWKS=keys)


def test_key_that_was_named_has_to_have_signed() -> None:
    keys = jwks(jwk(rsa_key(), kid="a"), jwk(rsa_key("other"), kid="b"), jwk(ec_key(), kid="c"))
    assert "signature" in refusal(make_token(rsa_key(), "RS256", kid="b"), JWT_JWKS=keys)
    assert "algorithm" in refusal(make_token(rsa_key(), "RS256", kid="c"), JWT_JWKS=keys)
    assert "which key" in refusal(make_token(rsa_key(), "RS256"), JWT_JWKS=keys)


@pytest.mark.parametrize(
    "audience", [None, "", [], "PACELINE", "paceline ", "pace", ["others"], {"paceline": 1}, [["paceline"]]]
)
def test_audience_is_required_and_exact(audience: Any) -> None:
    token = forged(HS, claims(aud=audience), SECRET)
    assert refusal(token, JWT_AUDIENCE="paceline") in ("The token has no `aud`", "The token is for another audience")


@pytest.mark.parametrize("issuer", [None, "", "https://issuer/", "https", ["https://issuer"], 1])
def test_issuer_is_required_and_exact(issuer: Any) -> None:
    token = forged(HS, claims(iss=issuer), SECRET)
    assert refusal(token, JWT_ISSUER="https://issuer") in ("The token has no `iss`", "The token is from another issuer")


@pytest.mark.parametrize(
    ("scopes", "is_admin"),
    [
        ({}, False),
        ({"scope": "admin"}, True),
        ({"scope": "tasks admin more"}, True),
        ({"scp": ["tasks", "admin"]}, True),
        ({"scp": "tasks admin"}, True),
        ({"scope": "tasks", "scp": ["admin"]}, True),
        ({"scope": "notadmin"}, False),
        ({"scope": "admin2 superadmin admin:read"}, False),
        ({"scope": "Admin ADMIN"}, False),
        ({"scope": "admin,tasks"}, False),
        ({"scope": "tasks\nadmin"}, False),
        ({"scope": "tasks\u00a0admin"}, False),
        ({"scope": ["admin"]}, False),
        ({"scope": {"admin": True}}, False),
        ({"scope": True}, False),
        ({"scp": ["tasks admin"]}, False),
        ({"scp": [["admin"]]}, False),
        ({"scp": {"admin": 1}}, False),
        ({"scopes": "admin", "roles": ["admin"], "admin": True}, False),
        ({"sub": "admin"}, False),
    ],
)
def test_only_the_scope_makes_an_admin(scopes: dict[str, Any], is_admin: bool) -> None:
    assert bearer(forged(HS, claims(**scopes), SECRET)).is_admin is is_admin


@pytest.mark.parametrize(
    ("authorization", "title"),
    [
        ([], "A token is required"),
        ([""], "Not a bearer token"),
        (["Bearer"], "malformed"),
        (["Bearer "], "malformed"),
        (["Basic YW5uOnNlY3JldA=="], "Not a bearer token"),
        (["Bearertoken"], "Not a bearer token"),
        (["Bearer\ttoken"], "Not a bearer token"),
        (["Token a.b.c"], "Not a bearer token"),
        (["Bearer a.b.c, Bearer d.e.f"], "malformed"),
        (["Bearer a.b.c", "Bearer a.b.c"], "Two Authorization headers"),
    ],
)
def test_header_that_is_not_one_bearer_token_is_refused(authorization: list[str], title: str) -> None:
    with pytest.raises(UnauthenticatedError) as refused:
        bearer_token(authorization)
    assert title in refused.value.title


@given(st.text(max_size=60) | st.lists(st.text(max_size=20), min_size=3, max_size=3).map(".".join))
def test_no_text_gets_through_or_breaks_it(text: str) -> None:
    with pytest.raises(UnauthenticatedError):
        bearer(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda json: st.lists(json) | st.dictionaries(st.text(), json),
    )
)
def test_no_claim_or_header_of_a_signed_token_breaks_it(value: Any) -> None:
    for name in ("exp", "nbf", "iat", "sub", "aud", "iss", "scope", "scp", "jti"):
        try:
            bearer(forged(HS, {**claims(), name: value}, SECRET), JWT_AUDIENCE="a", JWT_ISSUER="b")
        except UnauthenticatedError:
            continue
    for name in ("alg", "kid", "crit", "b64", "typ", "cty"):
        try:
            bearer(forged({**HS, name: value}, claims(), SECRET))
        except UnauthenticatedError:
            continue


#: Texts of JSON numbers, some of which only Python's parser takes, and of other values that are no time.
DIGITS = "9" * 400
NO_TIMES = [DIGITS, f"-{DIGITS}", f"{DIGITS}.0", f"1{'0' * 308}", str(2**53 + 1), "1e16", "-1e300", "1e400", "-1e400"]
NO_TIMES += ["NaN", "Infinity", "-Infinity", "true", "false", "null", '"1795324829"', '""', "[1]", "{}"]


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("text", NO_TIMES, ids=lambda text: text[:12])
def test_claim_that_is_no_time_is_refused_by_its_name(claim: str, text: str) -> None:
    named = {name: json.dumps(value) for name, value in claims().items()} | {claim: text}
    body = "{" + ",".join(f'"{name}":{value}' for name, value in named.items()) + "}"
    title = (
        "The token has no `exp`" if (claim, text) == ("exp", "null") else f"The token's `{claim}` is not a valid time"
    )
    assert refusal(forged(HS, body.encode(), SECRET)) == title


@given(
    st.sampled_from(["exp", "nbf", "iat"]),
    st.integers(-(10**4000), 10**4000).map(str)
    | st.from_regex(r"-?(0|[1-9][0-9]{0,400})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,5})?", fullmatch=True),
)
def test_no_number_in_a_time_breaks_it(claim: str, number: str) -> None:
    body = f'{{"sub":"ann","exp":{NOW_SECONDS + 600},"{claim}":{number}}}'
    with suppress(UnauthenticatedError):
        assert bearer(forged(HS, body.encode(), SECRET)) == ANN


def spelt_otherwise(token: str, part: int, change: Callable[[str], str]) -> str:
    parts = token.split(".")
    parts[part] = change(parts[part])
    return ".".join(parts)


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("change", ["{}=", "{}==", "={}", "{}~", "~{}", "{}+/", "{}%3D"])
def test_part_that_is_not_plain_base64url_is_refused(part: int, change: str) -> None:
    assert "malformed" in refusal(spelt_otherwise(make_token(), part, change.format))


def test_signed_text_with_padding_is_refused() -> None:
    """The signature covers the padding, so it is right."""
    for extra in range(3):
        body = json.dumps(claims(jti="x" * extra)).encode()
        header, text = (urlsafe_b64encode(raw).decode() for raw in (json.dumps(HS).encode(), body))
        if "=" in header + text:
            signed = f"{header}.{text}"
            mac = urlsafe_b64encode(hmac.digest(SECRET.encode(), signed.encode(), "sha256")).rstrip(b"=").decode()
            assert "malformed" in refusal(f"{signed}.{mac}")


def test_token_has_one_spelling() -> None:
    """The last character of an HS256 signature has two unused bits, so 4 characters give the same bytes."""
    token = make_token()
    others = [token[:-1] + last for last in URL_ALPHABET if last != token[-1]]
    same = [other for other in others if _signature(other) == _signature(token)]
    assert len(same) == 3
    for other in same:
        assert "malformed" in refusal(other)


URL_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def _signature(token: str) -> bytes:
    return urlsafe_b64decode(token.rsplit(".", 1)[1] + "=")


def test_errors_hold_neither_token_nor_what_would_be_right() -> None:
    env = {"JWT_AUDIENCE": "the-audience", "JWT_ISSUER": "the-issuer", "JWT_SECRET": SECRET}
    tokens = [make() for _, make in REFUSED.values()] + [make_token(aud="others", iss="others")]
    for token in tokens:
        with pytest.raises(UnauthenticatedError) as refused:
            bearer(token, **env)
        said = f"{refused.value} {refused.value.title} {refused.value.detail} {refused.value.__cause__}"
        assert refused.value.__suppress_context__ or refused.value.__context__ is None
        for secret in ("the-audience", "the-issuer", SECRET, *(part for part in token.split(".") if len(part) > 8)):
            assert secret not in said


def test_user_may_act_for_itself_only() -> None:
    ANN.require_may_act_for("ann")
    for other in ("bob", "Ann", "ann ", ""):
        with pytest.raises(ForbiddenError):
            ANN.require_may_act_for(other)
    with pytest.raises(ForbiddenError):
        ANN.require_admin()


@pytest.mark.parametrize("caller", [ANYONE, Caller("root", is_admin=True)])
def test_admin_may_act_for_everyone(caller: Caller) -> None:
    caller.require_may_act_for("bob")
    caller.require_admin()


def test_without_authentication_everyone_is_anyone() -> None:
    assert NoAuthentication().identify(["Bearer whatever"]) is ANYONE


class Issuer:
    """Where a JWK set is fetched from. None: it does not answer."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.text: str | None = jwks(*keys)
        self.fetches = 0

    def fetch(self, url: str) -> str:
        assert url == "https://issuer.example/keys"
        self.fetches += 1
        if self.text is None:
            raise UnavailableError("down")
        return self.text


class Remote:
    """AUTH=jwt with JWT_JWKS_URL."""

    def __init__(self, issuer: Issuer) -> None:
        self.clock = VirtualClock()
        settings = jwt_settings(JWT_JWKS_URL="https://issuer.example/keys")
        self._authentication = token_authentication(settings, issuer.fetch, self.clock.now_ms)

    def accepts(self, kid: str | None, signer: str) -> bool:
        exp = self.clock.now_ms() // 1000 + 600
        try:
            self._authentication.identify([f"Bearer {make_token(rsa_key(signer), 'RS256', kid, exp=exp)}"])
        except UnauthenticatedError:
            return False
        return True


def test_keys_are_fetched_when_first_needed_and_kept() -> None:
    issuer = Issuer(jwk(rsa_key("a"), kid="a"))
    remote = Remote(issuer)
    assert issuer.fetches == 0
    assert [remote.accepts("a", "a") for _ in range(3)] == [True, True, True]
    assert issuer.fetches == 1


def test_new_key_is_found_and_old_one_goes() -> None:
    issuer = Issuer(jwk(rsa_key("a"), kid="a"))
    remote = Remote(issuer)
    assert remote.accepts("a", "a")
    issuer.text = jwks(jwk(rsa_key("b"), kid="b"))
    remote.clock.advance(60_000)
    assert remote.accepts("b", "b")
    assert not remote.accepts("a", "a")


def test_withdrawn_key_goes_within_an_hour() -> None:
    issuer = Issuer(jwk(rsa_key("a"), kid="a"), jwk(rsa_key("b"), kid="b"))
    remote = Remote(issuer)
    assert remote.accepts("a", "a")
    issuer.text = jwks(jwk(rsa_key("b"), kid="b"))
    remote.clock.advance(3_600_000)
    assert not remote.accepts("a", "a")


def test_unknown_keys_cause_one_fetch_a_minute() -> None:
    issuer = Issuer(jwk(rsa_key("a"), kid="a"))
    remote = Remote(issuer)
    for number in range(600):
        assert not remote.accepts(f"unknown-{number}", "a")
        remote.clock.advance(100)
    assert issuer.fetches == 1
    assert not remote.accepts("unknown", "a")
    assert issuer.fetches == 2


def test_issuer_that_is_down_makes_it_unavailable_until_it_is_back() -> None:
    issuer = Issuer()
    issuer.text = None
    remote = Remote(issuer)
    for _ in range(10):
        with pytest.raises(UnavailableError):
            remote.accepts("a", "a")
    assert issuer.fetches == 1
    issuer.text = jwks(jwk(rsa_key("a"), kid="a"))
    remote.clock.advance(5_000)
    assert remote.accepts("a", "a")


def test_keys_outlive_an_issuer_that_is_down_for_a_day() -> None:
    issuer = Issuer(jwk(rsa_key("a"), kid="a"))
    remote = Remote(issuer)
    assert remote.accepts("a", "a")
    issuer.text = None
    remote.clock.advance(23 * 3_600_000)
    assert remote.accepts("a", "a")
    with pytest.raises(UnavailableError):  # it may be a new one
        remote.accepts("b", "b")
    remote.clock.advance(3_600_000)
    with pytest.raises(UnavailableError):
        remote.accepts("a", "a")


@pytest.mark.parametrize("text", ["", "<html>", "[]", '{"keys": []}', '{"keys": [7]}', '{"keys": null}', "[" * 100_000])
def test_issuer_that_gives_no_keys_is_as_one_that_is_down(text: str) -> None:
    issuer = Issuer()
    issuer.text = text
    with pytest.raises(UnavailableError):
        Remote(issuer).accepts("a", "a")


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"AUTH": "yes"}, "AUTH: 'yes' is not allowed; allowed: none, jwt"),
        ({"AUTH": "jwt"}, "AUTH: jwt needs exactly one of"),
        ({"AUTH": "jwt", "JWT_SECRET": SECRET, "JWT_JWKS": "{}"}, "set: JWT_SECRET, JWT_JWKS"),
        ({"AUTH": "jwt", "JWT_SECRET": "s3cr3t"}, "JWT_SECRET: it has 6 bytes; allowed: at least 32"),
        ({"AUTH": "jwt", "JWT_JWKS_URL": "http://issuer.example/keys"}, "JWT_JWKS_URL: 'http://issuer.example/keys'"),
        ({"AUTH": "jwt", "JWT_JWKS_URL": "http://127.0.0.1.example/keys"}, "JWT_JWKS_URL"),
        ({"AUTH": "jwt", "JWT_JWKS_URL": "http://127.0.0.1@issuer.example/keys"}, "JWT_JWKS_URL"),
        ({"AUTH": "jwt", "JWT_JWKS_URL": "file:///etc/passwd"}, "JWT_JWKS_URL"),
        ({"AUTH": "jwt", "JWT_JWKS_URL": "https://["}, "JWT_JWKS_URL"),
    ],
)
def test_wrong_setting_is_named(env: dict[str, str], message: str) -> None:
    with pytest.raises(SettingError) as refused:
        Settings.from_env(env)
    assert message in str(refused.value)
    assert "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["https://issuer.example/keys", "http://127.0.0.1:8080/k", "http://localhost/k", "http://[::1]/k"]
)
def test_keys_come_over_https_or_from_this_machine(url: str) -> None:
    assert jwt_settings(JWT_JWKS_URL=url).jwks_url == url


@pytest.mark.parametrize(
    ("variable", "make"),
    [
        ("JWT_PUBLIC_KEY", lambda: "garbage"),
        ("JWT_PUBLIC_KEY", lambda: pem(rsa_key("weak", 1024))),
        ("JWT_PUBLIC_KEY", lambda: pem(ec_key("other", ec.SECP384R1))),
        ("JWT_JWKS", lambda: "garbage"),
        ("JWT_JWKS", lambda: "{}"),
        ("JWT_JWKS", jwks),
        ("JWT_JWKS", lambda: jwks({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"})),
        ("JWT_JWKS", lambda: jwks(jwk(rsa_key("weak", 1024)))),
        ("JWT_JWKS", lambda: jwks(jwk(rsa_key(), alg="RS512"))),
        ("JWT_JWKS", lambda: jwks(jwk(rsa_key(), use="enc"))),
        ("JWT_JWKS", lambda: jwks(jwk(rsa_key(), key_ops=["encrypt"]))),
        ("JWT_JWKS", lambda: jwks(jwk(rsa_key(), kid=7))),
        ("JWT_JWKS", lambda: jwks({**jwk(ec_key()), "x": "AAAA"})),
    ],
)
def test_unusable_key_is_a_wrong_setting(variable: str, make: Callable[[], str]) -> None:
    with pytest.raises(SettingError, match=f"^{variable}: "):
        bearer(make_token(), **{variable: make()})


def test_secret_is_not_in_what_settings_show() -> None:
    assert SECRET not in repr(make_settings(AUTH="jwt", JWT_SECRET=SECRET))


def test_without_authentication_the_libraries_are_not_loaded() -> None:
    program = (
        "import sys, chalicelib.auth.caller, chalicelib.container; print({'jwt', 'cryptography'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"


def test_signed_token_is_good() -> None:
    env = {"AUTH": "jwt", "JWT_SECRET": SECRET, "JWT_AUDIENCE": "paceline", "JWT_ISSUER": "me"}
    clock = VirtualClock()
    token = token_from(env, "ann", clock.now_ms() / 1000, 5, is_admin=True)
    body = json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))
    authentication = token_authentication(
        jwt_settings(**{k: v for k, v in env.items() if k != "AUTH"}), no_fetch, clock.now_ms
    )
    assert authentication.identify([f"Bearer {token}"]) == Caller("ann", is_admin=True)
    assert body["exp"] - body["iat"] == 300


@pytest.mark.parametrize(
    "env", [{}, {"AUTH": "jwt", "JWT_JWKS_URL": "https://issuer.example"}, {"AUTH": "jwt", "JWT_SECRET": "short"}]
)
def test_no_token_without_a_secret(
    env: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("AUTH", "JWT_SECRET", "JWT_JWKS_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert call("token", "ann") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("JWT_SECRET: ")
