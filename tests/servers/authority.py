"""An authority for certificates, made with the program `openssl`: what it signs is as real as what the world has."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = ("DNS:localhost", "IP:127.0.0.1", "IP:::1")
EXPIRED, MONTH = -1, 30
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as PEM files."""

    cert: Path
    key: Path


class Authority:
    """Keeps its files in `directory`, which it makes. `ca`: what whoever trusts it has to know."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self.ca, self._key = directory / "ca.pem", directory / "ca.key"
        constraints = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
        subject = ("-subj", f"/CN=authority {directory.name}", "-days", str(MONTH))
        openssl("req", "-x509", *KEY, "-nodes", "-keyout", self._key, "-out", self.ca, *subject, *constraints)

    def issue(
        self, name: str, *, names: tuple[str, ...] = HERE, days: int = MONTH, passphrase: str | None = None
    ) -> Pair:
        """A certificate for these names, good for servers and clients. `name`: its subject and that of its files.

        `days`: from now on; EXPIRED is over. Issued again under the same name it takes the place of the earlier one.
        """
        found = Pair(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        request = self.directory / f"{name}.csr"
        hidden = ("-nodes",) if passphrase is None else ("-passout", f"pass:{passphrase}")
        alternatives = ("-addext", f"subjectAltName={','.join(names)}") if names else ()
        openssl(
            "req", "-new", *KEY, *hidden, "-keyout", found.key, "-out", request, "-subj", f"/CN={name}", *alternatives
        )
        signer = ("-CA", self.ca, "-CAkey", self._key, "-CAcreateserial", "-days", str(days))
        openssl("x509", "-req", "-in", request, *signer, "-copy_extensions", "copy", "-out", found.cert)
        return found


class Authorities:
    """Two of them, of which somebody trusts the first. All pairs but those of `theirs` are signed by `ours`."""

    def __init__(self, directory: Path) -> None:
        self.ours, self.theirs = Authority(directory / "ours"), Authority(directory / "theirs")
        self.both_cas = directory / "both.pem"
        self.both_cas.write_bytes(self.ours.ca.read_bytes() + self.theirs.ca.read_bytes())
        self.good = self.ours.issue("good")
        self.expired = self.ours.issue("expired", days=EXPIRED)
        self.of_another_name = self.ours.issue("another", names=("DNS:other.example",))
        self.nameless = self.ours.issue("localhost", names=())
        self.foreign = self.theirs.issue("foreign")


def openssl(*words: str | Path) -> str:
    """What it prints. Raises CalledProcessError, or FileNotFoundError when there is none here."""
    program = shutil.which("openssl")
    if program is None:
        raise FileNotFoundError("openssl is missing (Debian: apt-get install openssl)")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout
