"""docs/DEPLOYMENT.md on a bare Debian: its commands as printed, green checks, then a lost disk and a restored backup.

Needs root, debootstrap and systemd-nspawn (Debian: systemd-container), and the package sources of this machine. The
machine that it makes has no network but loopback, except while it installs packages. SOAK_BIND names further paths of
this machine that its package configuration needs, separated by spaces.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

import pytest

pytestmark = pytest.mark.soak

ROOT = Path(__file__).parent.parent.parent
DEPLOYMENT = (ROOT / "docs" / "DEPLOYMENT.md").read_text(encoding="utf-8")
BARE = "systemd,systemd-sysv,dbus,libnss-systemd,libpam-systemd,ca-certificates"
# How this machine gets its packages.
SOURCES = ("/etc/apt", "/etc/pip.conf", "/etc/xdg/pip", "/etc/ssl/certs", "/etc/resolv.conf")
SANDBOX = "--url http://127.0.0.1:8600 --token-file /root/token --yes"


def commands(section: str, block: int = 0) -> list[str]:
    """Return the commands of a console block, as root and users type them."""
    text = re.search(rf"^##+ {section}\n(.*?)(?=^##+ |\Z)", DEPLOYMENT, re.MULTILINE | re.DOTALL)
    assert text is not None, section
    blocks = re.findall(r"^```console\n(.*?)^```$", text[1], re.MULTILINE | re.DOTALL)
    return [line[2:] for line in blocks[block].splitlines()]


class Debian:
    """A machine with systemd."""

    def __init__(self, leader: int) -> None:
        self._leader = leader

    def run(self, command: str, *, online: bool = False, code: int = 0) -> str:
        """Run a command in a shell on it, and return what it printed."""
        spaces = "-m -u -i -p -C -r -w" if online else "-m -u -i -p -C -r -w -n"
        fixed = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8"
        kept = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("PIP_")]
        enter = f"nsenter -t {self._leader} {spaces} -- env -i {fixed} DEBIAN_FRONTEND=noninteractive".split()
        done = subprocess.run(
            [*enter, *kept, "sh", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        print(f"# {command}\n{done.stdout}{done.stderr}")  # noqa: T201 - shown if the test fails
        assert done.returncode == code, command
        return done.stdout

    def wait_for(self, command: str) -> None:
        """Wait until a command succeeds."""
        self.run(f"for each in $(seq 60); do {command} && exit 0; sleep 1; done; exit 1")


@contextmanager
def booted(directory: Path) -> Iterator[Debian]:
    """Boot the system in a directory, and end it."""
    options = "--quiet --register=no --keep-unit --private-network --resolv-conf=off --timezone=off --link-journal=no"
    binds = [f"--bind-ro={path}" for path in os.environ.get("SOAK_BIND", "").split()]
    process = subprocess.Popen(
        ["systemd-nspawn", *options.split(), "--machine=atom-sync-soak", f"--directory={directory}", *binds, "--boot"],
        env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 60
        find = ["pgrep", "--parent", str(process.pid), "--exact", "systemd"]
        while not (found := subprocess.run(find, capture_output=True, timeout=60, check=False).stdout):
            assert time.monotonic() < end and process.poll() is None, "it does not boot"
            time.sleep(0.1)  # between two looks, bounded by `end`: another program's start tells nobody
        debian = Debian(int(found))
        debian.wait_for("systemctl is-system-running | grep -qE 'running|degraded'")
        yield debian
    finally:
        process.send_signal(signal.SIGTERM)  # which powers it off
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Make a bare Debian 12 with this checkout in /opt/atom-sync/src."""
    missing = [tool for tool in ("debootstrap", "systemd-nspawn", "nsenter") if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root and {', '.join(missing) or 'nothing else'}")
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    mirror = subprocess.run(targets, capture_output=True, text=True, timeout=60, check=True).stdout.split()[0]
    system = tmp_path / "debian"
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={BARE}", "bookworm", system, mirror],
        capture_output=True,
        timeout=1200,
        check=True,
    )
    provide(system)
    return system


def provide(system: Path) -> None:
    """Put in what the machine cannot have of its own: this machine's package sources, the checkout, a token."""
    for source in filter(os.path.exists, SOURCES):
        target = system / Path(source).parent.relative_to("/")
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", source, f"{target}/"], timeout=60, check=True)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, timeout=60, check=True).stdout
    checkout = system / "opt" / "atom-sync" / "src"
    checkout.mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", checkout], input=archive, timeout=60, check=True)
    (system / "root" / "token").write_text("at_saas_sandbox\n")


def verify(debian: Debian) -> None:
    """Run the checks of the section Start-up verification."""
    debian.wait_for("curl --silent --fail http://127.0.0.1:8000/health/ready")
    for command in commands("Start-up verification"):
        debian.run(command)


def run_own_units(debian: Debian) -> None:
    """Run the commands of the section On your own machine as a user who is logged in; start every unit, remove all."""
    debian.run("useradd --create-home --uid 1000 anna; systemctl start systemd-logind; loginctl enable-linger anna")
    debian.wait_for("systemctl is-active user@1000")
    own = "HOME=/home/anna XDG_RUNTIME_DIR=/run/user/1000"
    market = "ATOM_SAAS_API_URL=http://127.0.0.1:8600 ATOM_SAAS_WS_URL=ws://127.0.0.1:8600/ws"

    def run(command: str) -> str:
        return debian.run(f"runuser -u anna -- env {own} {market} sh -c {quote(command)}")

    for command in commands("On your own machine"):
        run(f"echo at_saas_sandbox | {command}" if "/dev/stdin" in command else command)
    run("systemd-analyze --user verify ~/.config/systemd/user/atom-sync-*")
    for job in ("skills", "ratings", "purge", "backup"):
        run(f"systemctl --user start atom-sync-{job}.service")
    run("systemctl --user reload atom-sync-watch.service")
    run("atom-sync --env-file ~/.config/atom-sync/atom-sync.env status --check")
    run("systemctl --user kill --signal=KILL atom-sync-watch.service")
    debian.wait_for(f"runuser -u anna -- env {own} systemctl --user show -p NRestarts atom-sync-watch | grep 1")
    run("atom-sync schedule systemd --user --uninstall")
    assert run("systemctl --user list-units --all --no-legend 'atom-sync-*'") == ""


def test_the_printed_commands_make_a_verified_service(bare: Path) -> None:
    with booted(bare) as debian:
        for command in commands("Install"):
            debian.run(command, online=True)
        assert "ATOM-SYNC" in (bare / "usr/local/share/man/man1/atom-sync.1").read_text(encoding="utf-8").replace(
            "\\", ""
        )
        debian.run("systemd-run --unit=sandbox atom-sync sandbox --skills 1200 --port 8600")
        debian.wait_for("curl --silent http://127.0.0.1:8600/health")
        for command in commands("systemd"):
            debian.run(f"{command} {SANDBOX}" if command.endswith("config init") else command)
        verify(debian)

        debian.run(
            "sudo -u atom-sync atom-sync --system ratings add $(sudo -u atom-sync atom-sync --system skills list "
            '--limit 1 --json | sed -n \'s/.*"skill_id": "\\(.*\\)".*/\\1/p\' | head -1) 5 --comment kept'
        )
        stop, *restore = commands("Backups")
        debian.run("sudo -u atom-sync atom-sync --system db backup --keep 7")
        debian.run("cp -r /var/lib/atom-sync/backups /root/copies")
        debian.run(stop)
        debian.run("rm -r /var/lib/atom-sync/*")
        debian.run("sudo -u atom-sync atom-sync --system status --check", code=3)
        debian.run("install -d -o atom-sync -g atom-sync /var/lib/atom-sync/backups")
        debian.run("install -o atom-sync -g atom-sync /root/copies/* /var/lib/atom-sync/backups")
        copy = debian.run("ls /var/lib/atom-sync/backups/*.db").split()[0]
        for command in restore:
            debian.run(re.sub(r"/var/lib/atom-sync/backups/\S+", copy, command))
        verify(debian)
        assert "kept" in debian.run("sudo -u atom-sync atom-sync --system ratings list --json")
        run_own_units(debian)
