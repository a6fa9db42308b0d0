"""Builds and runs containers on a machine that has no Docker: by buildah, podman and runc, in folders of ours."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_TOOLS = {
    "buildah": "buildah",
    "podman": "podman",
    "runc": "runc",
    "docker-compose": "docker-compose",
    "mmdebstrap": "mmdebstrap",
    "iptables": "iptables",
    "openssl": "openssl",
}
# Programs that podman looks for beside itself.
_HELPERS = {"/usr/lib/podman/netavark": "netavark", "/usr/lib/podman/aardvark-dns": "aardvark-dns"}
_CA = Path("/etc/ssl/certs/ca-certificates.crt")
_MIRROR = "http://deb.debian.org/debian"
_BASES = Path(__file__).parent / "bases"


class CannotRun(Exception):
    """This machine cannot do it; the reason is no fault of the stack."""


def require_tools() -> None:
    """Install what is missing.

    Raises:
        CannotRun: not root, no apt, or it cannot be installed.
    """
    if os.geteuid() != 0:
        raise CannotRun("it needs root, to make networks and containers without a Docker daemon")
    missing = [package for program, package in _TOOLS.items() if shutil.which(program) is None]
    missing += [package for file, package in _HELPERS.items() if not Path(file).exists()]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise CannotRun(f"{', '.join(missing)} are not installed, and there is no apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *missing, "catatonit"]):
        done = subprocess.run(["apt-get", "-qq", *command], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotRun(f"apt-get {command[0]} failed: {done.stderr.strip()[-300:]}")


class Engine:
    """buildah and podman with private settings. Images stay in `kept` for the next run; all else goes with `close`."""

    def __init__(self, kept: Path, say: Callable[[str], None]) -> None:
        self.say = say
        self._kept = kept
        self.folder = Path(tempfile.mkdtemp(prefix="hepamap-ct-", dir="/tmp"))
        self.socket = self.folder / "podman.sock"
        self._forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text()
        self._chains_were_there = "NETAVARK" in _run(["iptables", "-S"], check=False)
        self._cgroups_before = set(_parent_cgroups())
        self.environment = self._configure()
        self._helpers: list[subprocess.Popen[bytes]] = []

    def _configure(self) -> dict[str, str]:
        for name in ("conf", "tmp", "docker"):
            (self.folder / name).mkdir()
        storage = self._kept / "storage"
        storage.mkdir(parents=True, exist_ok=True)
        # It knows the folders of the last run, and podman would insist on them.
        shutil.rmtree(storage / "libpod", ignore_errors=True)
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        conf = self.folder / "conf"
        (self.folder / "docker/config.json").write_text("{}")
        (conf / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{storage}"\nrunroot = "{self.folder}/run"\n'
        )
        (conf / "containers.conf").write_text(
            f'[containers]\ndefault_ulimits = ["nofile={files}:{files}", "nproc=20000:20000"]\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n'
            f'tmp_dir = "{self.folder}/libpod"\n'
            f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{self.folder}/networks"\n'
        )
        (conf / "registries.conf").write_text('unqualified-search-registries = ["localhost"]\nshort-name-mode = "permissive"\n')
        (conf / "pip.conf").write_text(f"[global]\ncert = {_CA}\ndisable-pip-version-check = true\ntimeout = 120\n")
        kept = {name: value for name, value in os.environ.items() if name not in ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE")}
        return {
            **kept,
            "TMPDIR": str(self.folder / "tmp"),
            "DOCKER_CONFIG": str(self.folder / "docker"),
            "COMPOSE_HTTP_TIMEOUT": "300",
            "DOCKER_HOST": f"unix://{self.socket}",
            "CONTAINERS_STORAGE_CONF": str(conf / "storage.conf"),
            "CONTAINERS_CONF": str(conf / "containers.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(conf / "registries.conf"),
        }

    def run(self, command: Sequence[str], *, check: bool = True, timeout_s: float = 300, stdin: str | None = None) -> str:
        """Run a program with these settings; what it wrote to standard output."""
        return _run(command, environment=self.environment, check=check, timeout_s=timeout_s, stdin=stdin)

    def podman(self, *arguments: str, check: bool = True, timeout_s: float = 120, stdin: str | None = None) -> str:
        """Run podman."""
        return self.run(["podman", *arguments], check=check, timeout_s=timeout_s, stdin=stdin)

    # ---- images --------------------------------------------------------------------------------------------------

    def make_bases(self) -> None:
        """Make the base images that a registry would give, from Debian packages."""
        if not self.has_image("localhost/debian:bookworm-slim"):
            self._make_debian()
            self.say("localhost/debian:bookworm-slim")
        for name in ("python:3.11-slim-bookworm", "postgres:15-bookworm", "nginx:1.22-bookworm"):
            file = _BASES / f"Dockerfile.{name.partition(':')[0]}"
            self.build(f"localhost/{name}", file, _BASES)
            self.say(f"localhost/{name}")

    def _make_debian(self) -> None:
        # In memory, since dpkg waits for the disk after each file; a quarter of a gigabyte at the most.
        memory = self.folder / "memory"
        memory.mkdir()
        _run(["mount", "-t", "tmpfs", "-o", "size=1g,mode=755", "tmpfs", str(memory)])
        tree = str(memory / "slim.tar")
        try:
            command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates", "--dpkgopt=force-unsafe-io"]
            _run([*command, "bookworm", tree, _MIRROR], environment={**self.environment, "TMPDIR": str(memory)}, timeout_s=400)
            container = self.run(["buildah", "from", "scratch"]).strip()
            self.run(["buildah", "add", "-q", container, tree, "/"])
            path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            self.run(["buildah", "config", "--env", path, "--cmd", "bash", container])
            self.run(["buildah", "commit", "-q", "--rm", container, "localhost/debian:bookworm-slim"])
        finally:
            _run(["umount", str(memory)])

    def build(self, tag: str, file: Path, context: Path, arguments: Mapping[str, str] | None = None) -> None:
        """Build an image; the machine's certificates are lent to the build, for proxies with an authority of their own."""
        command = ["buildah", "bud", "--quiet", "--isolation", "chroot", "--format", "docker", "--pull-never", "--layers"]
        command += ["-v", f"{_CA}:{_CA}:ro", "-v", f"{self.folder}/conf/pip.conf:/etc/pip.conf:ro"]
        for name, value in (arguments or {}).items():
            command += ["--build-arg", f"{name}={value}"]
        self.run([*command, "-t", tag, "-f", str(file), str(context)], timeout_s=1500)

    def has_image(self, tag: str) -> bool:
        """Whether it was built before."""
        return subprocess.run(["podman", "image", "exists", tag], env=self.environment, check=False).returncode == 0

    # ---- running -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Offer podman under Docker's interface."""
        with (self.folder / "podman.log").open("wb") as log:
            command = ["podman", "system", "service", "--time=0", f"unix://{self.socket}"]
            self._helpers.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log))
        wait_until(self.socket.exists, 20, "podman offers no socket")

    def drive_health_checks(self, project: str) -> None:
        """Stand in for the timers of systemd, by which podman would run health checks."""
        loop = (
            "while :; do for c in $(podman ps -q --filter label=com.docker.compose.project=$0); do"
            " podman healthcheck run $c; done; sleep 1; done"
        )
        quiet = subprocess.DEVNULL
        self._helpers.append(
            subprocess.Popen(
                ["bash", "-c", loop, project], env=self.environment, stdout=quiet, stderr=quiet, start_new_session=True
            )
        )

    def inspect(self, container: str, template: str) -> str:
        """One fact about a container."""
        return self.podman("inspect", container, "--format", template).strip()

    def inspect_json(self, container: str) -> dict[str, object]:
        """All facts about a container."""
        found: dict[str, object] = json.loads(self.podman("inspect", container))[0]
        return found

    def close(self) -> None:
        """Stop all, and put the machine back to where it was; images stay."""
        for helper in reversed(self._helpers):
            helper.terminate()
            helper.wait(20)
        self.podman("network", "prune", "-f", check=False)
        for mount in _mounts_below(self.folder, self._kept):
            _run(["umount", mount], check=False)
        if not self._chains_were_there:
            _remove_chains()
        Path("/proc/sys/net/ipv4/ip_forward").write_text(self._forwarding)
        for parent in _parent_cgroups():
            if parent not in self._cgroups_before:
                _run(["find", parent, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def leftovers(self) -> list[str]:
        """What `close` should have removed."""
        found = [f"mount {mount}" for mount in _mounts_below(self.folder, self._kept)]
        found += [f"process {name}" for name in _processes_of(self.folder)]
        if not self._chains_were_there and "NETAVARK" in _run(["iptables", "-S"], check=False):
            found.append("chains of netavark in iptables")
        if Path("/proc/sys/net/ipv4/ip_forward").read_text() != self._forwarding:
            found.append("ip_forward")
        return found + [f"cgroup {parent}" for parent in _parent_cgroups() if parent not in self._cgroups_before]


def wait_until(condition: Callable[[], bool], seconds: float, otherwise: str) -> float:
    """Wait for something; how long it took, seconds.

    Raises:
        AssertionError: it did not come.
    """
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"{otherwise} ({seconds:.0f} s)"
        time.sleep(0.2)
    return time.monotonic() - started


def _run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    check: bool = True,
    timeout_s: float = 60,
    stdin: str | None = None,
) -> str:
    given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False, **given)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
    return str(done.stdout)


def _mounts_below(*folders: Path) -> list[str]:
    lines = Path("/proc/mounts").read_text().splitlines()
    mounts = [line.split()[1] for line in lines]
    return [mount for mount in reversed(mounts) if any(mount.startswith(f"{folder}/") for folder in folders)]


def _processes_of(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line.strip()[:120])
    return found


def _parent_cgroups() -> list[str]:
    return [str(path) for path in Path("/sys/fs/cgroup").glob("*/libpod_parent")]


def _remove_chains() -> None:
    for table in ("filter", "nat"):
        rules = _run(["iptables", "-t", table, "-S"], check=False).splitlines()
        builtin = [rule for rule in rules if rule.startswith("-A ") and "NETAVARK" in rule and "-A NETAVARK" not in rule]
        for rule in builtin:
            _run(["bash", "-c", f"iptables -t {table} -D {rule[3:]}"], check=False)
        chains = [rule.split()[1] for rule in rules if rule.startswith("-N NETAVARK")]
        for flag in ("-F", "-X"):
            for chain in chains:
                _run(["iptables", "-t", table, flag, chain], check=False)
