"""Certificates that sign themselves, made when they are needed."""

import subprocess
from pathlib import Path

import pytest


def certificate(folder: Path, name: str) -> Path:
    """Make a certificate that signs itself, for an address or a name; the key lies in the same file."""
    file = folder / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    kind = "IP" if name[0].isdigit() else "DNS"
    alternative = ["-addext", f"subjectAltName={kind}:{name}"]
    made = [*command, *alternative, "-keyout", str(folder / "key"), "-out", str(folder / "certificate")]
    try:
        subprocess.run(made, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl here to make a certificate with")
    file.write_text((folder / "key").read_text() + (folder / "certificate").read_text())
    return file
