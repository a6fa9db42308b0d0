"""An identity provider: a real key pair, its public half served over HTTP, and tokens signed with the other half."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

ISSUER = "https://login.hospital.example"
AUDIENCE = "hepamap"


class SigningKey:
    """A key of the provider."""

    def __init__(self, key_id: str) -> None:
        self.id = key_id
        self.private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = ec.generate_private_key(ec.SECP256R1())
        self.algorithm = "ES256"

    @property
    def public(self) -> dict[str, Any]:
        public = self.private.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        return {**jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True), "kid": self.id, "use": "sig", "alg": "ES256"}

    def sign(self, *, header: dict[str, Any] | None = None, without: str = "", **claims: Any) -> str:
        now = datetime.now(UTC)
        usual = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "dr-who",
            "iat": now,
            "exp": now + timedelta(minutes=5),
            "scope": "openid hepamap.read",
        }
        content = {name: value for name, value in {**usual, **claims}.items() if name != without}
        return jwt.encode(content, self.private, algorithm=self.algorithm, headers={"kid": self.id} if header is None else header)


class RsaKey(SigningKey):
    """One of RSA: which algorithm it is for is up to its tokens, unless it is published with one."""

    def __init__(self, key_id: str, algorithm: str = "RS256", published: str | None = None) -> None:
        self.id = key_id
        self.private = rsa.generate_private_key(65537, 2048)
        self.algorithm = algorithm
        self._published = published

    @property
    def public(self) -> dict[str, Any]:
        public = self.private.public_key()
        assert isinstance(public, rsa.RSAPublicKey)
        jwk = {**jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True), "kid": self.id, "use": "sig"}
        return jwk if self._published is None else {**jwk, "alg": self._published}


class Provider:
    """Serves the public keys; counts how often it is asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys: list[SigningKey] = []
        self.asked = 0
        self.down = False
        self.answers = threading.Event()
        """Cleared: who asks waits until it is set."""
        self.answers.set()


@contextmanager
def running_provider() -> Iterator[Provider]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            provider.asked += 1
            provider.answers.wait(10)
            body = json.dumps({"keys": [key.public for key in provider.keys]}).encode()
            self.send_response(503 if provider.down else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider = Provider(f"http://127.0.0.1:{server.server_port}/jwks")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
