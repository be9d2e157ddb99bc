"""Machines of our own on this one, for tests: Linux namespaces with a network between them.

Each has its own address, host name, processes, home and /tmp/ray, and answers on port 22; all of them see one folder as
/mnt/shared. They end with the process that made them, whatever was started on them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("sshd", "ssh", "ssh-keygen", "rsync", "ip", "nsenter", "setpriv", "unshare")
_UNSHARE = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
_USER = "10.77.0.1"

# Runs in the namespaces of the user's machine: $1 is the folder of all machines, the others are their addresses.
_NETWORK = """
folder=$1; shift
hostname user
mount -t tmpfs none /run; mkdir -p /run/sshd /run/netns
mkdir -p /tmp/ray; mount -t tmpfs none /tmp/ray
ip link set lo up
ip link add bridge type bridge
ip address add {user}/24 dev bridge
ip link set bridge up
for address; do
    ip netns add "$address"
    ip link add "port${{address##*.}}" master bridge up type veth peer name eth0 netns "$address"
    ip -n "$address" link set lo up
    ip -n "$address" address add "$address/24" dev eth0
    ip -n "$address" link set eth0 up
    ip -n "$address" route add default via {user}
    ip netns exec "$address" unshare --mount --uts --pid --fork --kill-child --mount-proc \\
        sh -ec "$MACHINE" sh "$folder" "$address" &
done
touch "$folder/ready"
wait
"""

_MACHINE = """
hostname "machine${2##*.}"
mount --bind "$1/$2/passwd" /etc/passwd
mount --bind "$1/$2/hosts" /etc/hosts
mount -t tmpfs none /mnt; mkdir /mnt/shared; mount --bind "$1/shared" /mnt/shared
mount -t tmpfs none /tmp/ray
exec "$(command -v sshd)" -D -f "$1/sshd_config" -E "$1/$2/sshd.log"
"""


def permitted() -> bool:
    """Whether this machine lets us have machines: root, with namespaces and mounts, which many containers refuse."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux") or shutil.which("unshare") is None:
        return False
    return subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode == 0


@dataclass(frozen=True)
class Machines:
    """Machines that run.

    Attributes:
        folder: whose ``shared`` all of them see as /mnt/shared, whose ``home`` is the user's, and which has a folder
            for each address with the ``home`` of that machine.
        key: the private key that opens them.
        pid: of the user's machine.
    """

    folder: Path
    key: Path
    pid: int

    def command(self, *command: str, cwd: Path) -> list[str]:
        """The command line that runs a command on the user's machine, in a folder, with the running environment."""
        environment = [f"HOME={self.folder / 'home'}", f"PATH={Path(sys.executable).parent}:{os.environ['PATH']}"]
        return ["nsenter", "--all", "--target", str(self.pid), "env", "-C", str(cwd), *environment, *command]

    def ssh(self, address: str, command: str) -> list[str]:
        """The command line that runs a command of the shell on a machine, to be typed on the user's."""
        trust = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        return ["ssh", "-i", str(self.key), *trust, f"root@{address}", command]


@contextmanager
def machines(folder: Path, addresses: Sequence[str]) -> Iterator[Machines]:
    """Start machines with these addresses of 10.77.0.0/24; ``venv`` in the home of each is the running environment."""
    key = folder / "key"
    for name in (key, folder / "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(name)], check=True)
    (folder / "sshd_config").write_text(
        f"HostKey {folder}/host_key\nAuthorizedKeysFile {folder}/key.pub\nPermitRootLogin prohibit-password\n"
        "PasswordAuthentication no\nStrictModes no\nUsePAM no\nPidFile none\n"
    )
    for name in ("home", "shared"):
        (folder / name).mkdir()
    for address in addresses:
        home = folder / address / "home"
        home.mkdir(parents=True)
        (home / "venv").symlink_to(sys.prefix)
        (home.parent / "passwd").write_text(_passwd(home))
        (home.parent / "hosts").write_text(f"127.0.0.1 localhost\n{address} machine{address.rpartition('.')[2]}\n")
    orphaned = ["setpriv", "--pdeathsig", "KILL"]  # also where this process is killed
    command = [*orphaned, *_UNSHARE, "sh", "-ec", _NETWORK.format(user=_USER), "sh", str(folder), *addresses]
    with (folder / "machines.log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | {"MACHINE": _MACHINE}, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not (folder / "ready").exists():
            assert process.poll() is None, (folder / "machines.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
        yield Machines(folder, key, int(child))
    finally:
        process.kill()
        process.wait()


def _passwd(home: Path) -> str:
    """The users of this machine, where root lives in `home`: ssh takes ``~`` from here, not from $HOME."""
    lines = Path("/etc/passwd").read_text(encoding="utf-8").splitlines()
    others = [line for line in lines if not line.startswith("root:")]
    return "\n".join([f"root:x:0:0:root:{home}:/bin/bash", *others, ""])
