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
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER = "https://login.hospital.example"
AUDIENCE = "hepamap"


class SigningKey:
    """A key of the provider."""

    def __init__(self, key_id: str) -> None:
        self.id = key_id
        self.private = ec.generate_private_key(ec.SECP256R1())

    @property
    def public(self) -> dict[str, Any]:
        jwk = jwt.algorithms.ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**jwk, "kid": self.id, "use": "sig", "alg": "ES256"}

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
        return jwt.encode(content, self.private, algorithm="ES256", headers={"kid": self.id} if header is None else header)


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
