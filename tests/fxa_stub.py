"""Firefox Accounts on this machine: auth server, OAuth server and profile server, as they are documented.

Written from https://mozilla.github.io/ecosystem-platform/ (onepw, OAuth with PKCE), not from PyFxA, which drives it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlencode, urlsplit

EMAIL, PASSWORD = "alexis@example.com", "f1ref0x-p4ssw0rd"
CLIENT_ID = "5882386c6d801776"
SCOPES = ("profile", "https://identity.mozilla.com/apps/kinto")
NAMESPACE = "identity.mozilla.com/picl/v1/"


class Accounts(ThreadingHTTPServer):
    """One account, its sessions, codes and tokens; remembers what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.asked: list[str] = []
        self.sessions: set[str] = set()
        self.codes: dict[str, dict[str, Any]] = {}
        self.tokens: list[str] = []
        self.good_tokens: set[str] = set()
        self.refusal: tuple[int, dict[str, Any]] | None = None
        """What every request is answered with, where it is set."""
        self.raw: bytes | None = None
        """What every request is answered with, word by word, where it is set."""
        self.delay = 0.0
        """Seconds before a login is answered."""

    def revoke_all(self) -> None:
        """No token is good any more."""
        self.good_tokens.clear()

    @property
    def logins(self) -> int:
        """Return the number of logins, successful or not."""
        return self.asked.count("POST /v1/account/login")


@contextmanager
def firefox_accounts() -> Iterator[Accounts]:
    """Run the servers, on one port, until the block ends."""
    server = Accounts()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Refused(Exception):  # noqa: N818  an answer
    """What the servers say instead: a status, an error number, and words."""


class _Handler(BaseHTTPRequestHandler):
    server: Accounts

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(json.loads(body or b"{}"))

    def _answer(self, body: dict[str, Any]) -> None:
        path = urlsplit(self.path).path
        self.server.asked.append(f"{self.command} {path}")
        if self.server.raw is not None:
            self._say(200, self.server.raw)
            return
        if self.server.refusal is not None:
            status, content = self.server.refusal
        else:
            try:
                status, content = 200, _ANSWERS[f"{self.command} {path}"](self, body)
            except Refused as refused:
                status, errno, message = refused.args
                content = {"code": status, "errno": errno, "error": "Bad Request", "message": message}
        self._say(status, json.dumps(content).encode())

    def _say(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _bearer(self) -> str:
        return str(self.headers["Authorization"] or "").removeprefix("Bearer ")

    def log_in(self, body: dict[str, Any]) -> Any:
        """``POST /account/login``: who proves to know the password gets a session."""
        time.sleep(self.server.delay)
        if body["email"] != EMAIL:
            raise Refused(400, 102, "Unknown account")
        if body["authPW"] != _auth_pw(EMAIL, PASSWORD):
            raise Refused(400, 103, "Incorrect password")
        token = secrets.token_hex(32)
        self.server.sessions.add(_derived(bytes.fromhex(token), "sessionToken", 96)[:32].hex())
        return {"uid": "0" * 32, "sessionToken": token, "verified": True, "authAt": 1_600_000_000}

    def authorize(self, body: dict[str, Any]) -> Any:
        """``POST /oauth/authorization``: a session gets a code for a client."""
        if not self._bearer().startswith("fxs_") or self._bearer()[4:] not in self.server.sessions:
            raise Refused(401, 110, "Invalid authentication token in request signature")
        if body["client_id"] != CLIENT_ID:
            raise Refused(400, 162, "Unknown client_id")
        if not set(body["scope"].split()) <= set(SCOPES):
            raise Refused(400, 169, "Requested scopes are not allowed")
        assert body["code_challenge_method"] == "S256"
        code = secrets.token_hex(32)
        self.server.codes[code] = body
        query = urlencode({"code": code, "state": body["state"]})
        return {"code": code, "state": body["state"], "redirect": f"https://example.com/?{query}"}

    def trade(self, body: dict[str, Any]) -> Any:
        """``POST /token``: a code gets a token, once, of who knows the verifier."""
        asked = self.server.codes.pop(body["code"])
        digest = hashlib.sha256(body["code_verifier"].encode()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"]
        assert body["client_id"] == asked["client_id"]
        token = secrets.token_hex(32)
        self.server.tokens.append(token)
        self.server.good_tokens.add(token)
        return {"access_token": token, "token_type": "bearer", "scope": asked["scope"], "expires_in": 86_400}

    def destroy(self, body: dict[str, Any]) -> Any:
        """``POST /destroy``: the token is good no more."""
        self.server.good_tokens.discard(body["token"])
        return {}

    def say_who(self, body: dict[str, Any]) -> Any:
        """Answer with the profile of the token's user; Kinto asks for it."""
        if self._bearer() not in self.server.good_tokens:
            raise Refused(401, 110, "Invalid token")
        return {"sub": "0" * 32, "email": EMAIL}

    def describe(self, body: dict[str, Any]) -> Any:
        """Answer with the discovery document of OpenID Connect."""
        names = {"authorization": "authorization", "token": "v1/token", "userinfo": "v1/profile"}
        url = self.server.url
        return {
            "issuer": url,
            "jwks_uri": f"{url}/jwks",
            **{f"{name}_endpoint": f"{url}/{path}" for name, path in names.items()},
        }

    def log_message(self, *args: Any) -> None: ...


_ANSWERS = {
    "POST /v1/account/login": _Handler.log_in,
    "POST /v1/oauth/authorization": _Handler.authorize,
    "POST /v1/token": _Handler.trade,
    "POST /v1/destroy": _Handler.destroy,
    "GET /v1/profile": _Handler.say_who,
    "GET /.well-known/openid-configuration": _Handler.describe,
}


def _auth_pw(email: str, password: str) -> str:
    salt = f"{NAMESPACE}quickStretch:{email}".encode()
    return _derived(hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1000), "authPW", 32).hex()


def _derived(secret: bytes, name: str, length: int) -> bytes:
    """HKDF with SHA-256 and without a salt: https://www.rfc-editor.org/rfc/rfc5869"""
    key = hmac.digest(bytes(32), secret, "sha256")
    found, block, number = b"", b"", 0
    while len(found) < length:
        number += 1
        block = hmac.digest(key, block + f"{NAMESPACE}{name}".encode() + bytes([number]), "sha256")
        found += block
    return found[:length]


def kinto_settings(accounts: Accounts) -> dict[str, Any]:
    """Return the settings of a Kinto whose users are those of Firefox Accounts; it verifies each token anew."""
    return {
        "includes": "kinto.plugins.default_bucket kinto.plugins.openid",
        "multiauth.policies": "fxa",
        "multiauth.policy.fxa.use": "kinto.plugins.openid.OpenIDConnectPolicy",
        "multiauth.policy.fxa.issuer": accounts.url,
        "multiauth.policy.fxa.client_id": CLIENT_ID,
        "multiauth.policy.fxa.client_secret": "unused",
        "multiauth.policy.fxa.userid_field": "sub",
        "multiauth.policy.fxa.verification_ttl_seconds": 0,
    }
