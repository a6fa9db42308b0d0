"""Everything an operator can set, read from the environment (`HEPAMAP_…`) by the edge alone and passed down as values."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from hepamap.errors import PasswordUnreadableError, SettingsInvalidError
from hepamap.model_pack import DEFAULT_MODEL

_PREFIX = "HEPAMAP_"
ScopeName = Literal["read", "analyse", "admin"]


def _default_models_dir() -> Path:
    """The packs of the checkout that this package is run from, else the user's own folder."""
    checkout = Path(__file__).resolve().parents[2] / "models"
    return checkout if checkout.is_dir() else Path.home() / ".local" / "share" / "hepamap" / "models"


def _default_scopes() -> dict[str, ScopeName]:
    return {"hepamap.read": "read", "hepamap.analyse": "analyse", "hepamap.admin": "admin"}


def _resolved(path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except (RuntimeError, OSError) as error:
        # The home of nobody, or links in a circle.
        raise ValueError(f"{path} leads nowhere") from error


def settings_failure(error: ValidationError | SettingsError) -> SettingsInvalidError | None:
    """What to tell the operator where the settings cannot be read, without their values; None: it is about something else."""
    if isinstance(error, SettingsError):
        named = re.search(r'field "(\w+)"', str(error))
        name, why = named[1] if named else "", "it is no JSON"
    elif error.title == Settings.__name__:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name, why = str(first["loc"][0]) if first["loc"] else "", str(first["msg"])
    else:
        return None
    return SettingsInvalidError(
        f"The setting {_PREFIX}{name.upper()} cannot be used: {why}.",
        cure="Correct it where it is set, in the environment or by an option; or leave it away for its default.",
    )


class Settings(BaseSettings):
    """The settings of one server, one worker or one run; frozen, so that a value never changes under a job."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, frozen=True, extra="ignore", validate_default=True, use_attribute_docstrings=True
    )

    data_dir: Path = Path.home() / ".local" / "share" / "hepamap"
    """Folder for the job database, results and uploads; must lie on a local disk (SQLite does not like network shares)."""
    models_dir: Path = Field(default_factory=_default_models_dir)
    """Folder of the model packs: `<name>/<version>/model.json`."""
    default_model: str = DEFAULT_MODEL
    """Pack that is used where a request names none."""
    precision: Literal["auto", "float32", "mixed"] = "auto"
    """Arithmetic of the networks: `mixed` computes in 16 bits; `auto` is mixed on a GPU and float32 on a CPU."""
    slide_roots: Annotated[tuple[Path, ...], NoDecode] = ()
    """Folders from which slides may be analysed by path, separated as in PATH, or as a JSON list; none: uploads only."""

    path_mappings: dict[str, Path] = Field(default_factory=dict)
    r"""What clients call the slide folders, as a JSON object of prefix and folder of this server, such as
    {"S:\\slides": "/data/slides", "smb://nas/slides": "/data/slides"}; the longest prefix that fits counts."""

    host: str = "127.0.0.1"
    """Address that the server listens on. An address that other machines reach needs `access = keys`."""
    port: int = Field(default=8000, ge=0, le=65535)
    """TCP port that the server listens on."""

    access: Literal["off", "keys"] = "off"
    """`keys`: every call needs an API key or a token. `off`: none does; the server then listens on this machine only."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Names by which clients call the server, separated by commas; `*.x.org` means all below x.org, `*` all. None given: the
    names of this machine for itself while access is off, so that no web page gets in under a name of its own; else all."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins of web pages that may use the server from a browser, such as https://viewer.hospital.org, separated by commas."""
    requests_per_minute: int = Field(default=1200, ge=0)
    """What one key, or one address without a valid one, may ask in a minute while access is `keys`; 0: no limit."""
    metrics_public: bool = False
    """Whether /metrics needs no credentials while access is `keys`; otherwise it needs the scope `admin`."""
    audit: bool = False
    """Whether the audit trail is kept while access is `off`; with `keys` it always is."""
    oidc_issuer: str = ""
    """Identity provider whose tokens are taken beside API keys, as in the tokens' `iss`; empty: none."""
    oidc_audience: str = ""
    """What must be in the tokens' `aud`."""
    oidc_jwks: str = ""
    """The provider's public keys: URL, or path of a file."""
    oidc_scope_claim: str = "scope"
    """Claim of a token that says what its bearer may do: words in a text, or a list; `a.b` also means member b of claim a."""
    oidc_scopes: dict[str, ScopeName] = Field(default_factory=_default_scopes)
    """What the words in that claim mean, as a JSON object."""
    max_upload_bytes: int = Field(default=20 * 1024**3, gt=0)
    """Largest slide that may be uploaded, bytes."""
    max_request_bytes: int = Field(default=16 * 1024**2, gt=0)
    """Largest JSON request, bytes; a region traced by hand has some hundred kilobytes."""
    min_free_bytes: int = Field(default=1024**3, ge=0)
    """Space that must stay free in data_dir, bytes; below it the server is not ready and takes no uploads."""
    upload_quota_bytes: int = Field(default=0, ge=0)
    """The most that all uploaded slides together may have, bytes; 0: as much as the disk has room for."""
    upload_expires_h: float = Field(default=24.0, gt=0, le=24)
    """How long a resumable upload is kept after its last byte unless an analysis uses it, hours; a day at most."""
    upload_silence_s: float = Field(default=60.0, gt=0)
    """How long the server waits for the next bytes of a request, or for a client to take those of an answer, before it takes
    the client for gone, seconds; the head of a request must have come whole in that time."""
    slide_open_s: float = Field(default=60.0, gt=0)
    """How long a slide may take to be opened and looked at when somebody asks about it, seconds."""
    wait_max_s: float = Field(default=60.0, ge=0)
    """The longest that a request may wait for its analysis (`Prefer: wait`), seconds; proxies give up after about as long."""
    events_heartbeat_s: float = Field(default=15.0, gt=0)
    """Silence after which a stream of events says that it is still there, seconds."""

    ready_reuse_s: float = Field(default=1.0, ge=0, le=60)
    """How long an answer of /health/ready is given again before the server looks anew, seconds."""

    callback_allow: Annotated[tuple[str, ...], NoDecode] = ()
    """What the server may call back, separated by commas: hosts (`lis.hospital.org`, `*.hospital.org`), which must have public
    addresses, and networks (`10.1.0.0/16`) for private ones; none given: it calls nobody."""
    callback_secrets: str = ""
    """Folder of the secrets that callbacks are signed with, one file each, named as the secret; that of name `default` signs
    where a request names none. Empty: `callback-secrets` in data_dir."""
    callback_timeout_s: float = Field(default=10.0, gt=0, le=60)
    """How long a receiver may take to answer a callback, seconds; then it is tried again later."""

    database_url: str = ""
    """PostgreSQL database of the jobs, postgresql://user:password@host/name, for workers on several machines, which then share
    data_dir, models_dir and the slides; empty: an SQLite file in data_dir, for one machine."""
    database_password_file: str = ""
    """File that holds the password for database_url, so that it need not be in the environment; empty: the URL says it."""
    keep_results_days: float = Field(default=0, ge=0, le=36500)
    """How long a finished analysis and its result are kept, days; 0: until somebody deletes it."""
    keep_uploads_days: float = Field(default=30, ge=0, le=36500)
    """How long an uploaded slide is kept after its last analysis has finished, days; 0: as long as the analysis."""

    embedded_worker: bool = True
    """Whether the server starts and supervises one worker process of its own."""
    worker_poll_s: float = Field(default=0.25, gt=0)
    """How often an idle worker looks for a job, seconds."""
    worker_beat_s: float = Field(default=0.5, gt=0)
    """How often a worker stores progress and asks whether to stop, seconds."""
    worker_stale_s: float = Field(default=60.0, gt=0)
    """Silence after which a worker counts as gone and its job is given to another, seconds."""
    worker_attempts_max: int = Field(default=3, ge=1)
    """How often in a row a job is started without a new piece of its map being stored, before a vanishing or stuck worker counts
    as the job's own fault."""
    worker_stuck_s: float = Field(default=900.0, gt=0)
    """How long a running job may give no sign of getting on, seconds; then its worker is taken for stuck and ended. Loading a
    model and tracing the contours of a large slide must fit in."""
    worker_cancel_s: float = Field(default=60.0, gt=0)
    """How long a running job may take to stop where it was cancelled or its worker is to end, seconds; then its worker is taken
    for stuck, too."""
    worker_restart_delay_s: float = Field(default=1.0, ge=0)
    """Pause before the first restart of a worker that died, seconds; doubles with every further death."""
    worker_restart_delay_max_s: float = Field(default=30.0, gt=0)
    """Longest pause between two restarts, seconds."""
    worker_stop_s: float = Field(default=15.0, gt=0)
    """Time a worker has to put its job back when it is asked to stop, seconds; then it is killed."""

    @field_validator("slide_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        text = value.strip()
        parts = json.loads(text) if text.startswith("[") else text.split(os.pathsep)
        return tuple(part for part in parts if part)

    @field_validator("allowed_hosts", "cors_origins", "callback_allow", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        text = value.strip()
        parts = json.loads(text) if text.startswith("[") else text.split(",")
        return tuple(part.strip() for part in parts if part.strip())

    @field_validator("slide_roots")
    @classmethod
    def _resolve_roots(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(_resolved(root) for root in value)

    @field_validator("path_mappings")
    @classmethod
    def _resolve_mappings(cls, value: dict[str, Path]) -> dict[str, Path]:
        return {prefix: _resolved(folder) for prefix, folder in value.items()}

    @field_validator("data_dir", "models_dir")
    @classmethod
    def _make_absolute(cls, value: Path) -> Path:
        # The worker process must find the same folder, whatever it is started from.
        return _resolved(value)

    @property
    def callback_secrets_dir(self) -> Path:
        """One file per secret."""
        return Path(self.callback_secrets).expanduser() if self.callback_secrets else self.data_dir / "callback-secrets"

    @property
    def database_path(self) -> Path:
        """The SQLite file of the jobs."""
        return self.data_dir / "jobs.sqlite3"

    @property
    def database(self) -> Path | str:
        """Where the jobs are: the SQLite file, or the URL of PostgreSQL with its password.

        Raises:
            PasswordUnreadableError: the file of the password cannot be read.
        """
        if not self.database_url:
            return self.database_path
        return self.database_url if not self.database_password_file else self._url_with_password()

    def _url_with_password(self) -> str:
        try:
            password = Path(self.database_password_file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            raise PasswordUnreadableError(
                f"The file of the database's password, {self.database_password_file}, cannot be read.",
                cure="Correct HEPAMAP_DATABASE_PASSWORD_FILE, or give the file to the account that hepamap runs under.",
            ) from error
        parts = urlsplit(self.database_url)
        user, _, host = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:{quote(password, safe='')}@{host}"))

    @property
    def results_dir(self) -> Path:
        """One folder per analysis."""
        return self.data_dir / "results"

    @property
    def scratch_dir(self) -> Path:
        """What computations that are not finished need to go on where they were; see `Computation.pieces`."""
        return self.data_dir / "scratch"

    @property
    def uploads_dir(self) -> Path:
        """One folder per uploaded slide."""
        return self.data_dir / "uploads"

    @property
    def worker_lock_path(self) -> Path:
        """Held by the one worker that works on this data_dir."""
        return self.data_dir / "worker.lock"

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, for a process that is to have the same ones."""
        values: dict[str, Any] = self.model_dump(mode="json")
        return {_PREFIX + name.upper(): value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
