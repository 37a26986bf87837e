"""The store that is measured against: SeaweedFS, with nginx in front, over HTTP, HTTPS and a slow link.

nginx stands in front of all of them, so that HTTP and HTTPS differ in nothing but TLS, and writes down how
many bytes each answer had.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import boto3

from beside import keys_of, s3_client
from servesync.demo.seaweed import Seaweed, free_ports
from slow_link import slow_link

BUCKET: Final = "bench"
PREFIX: Final = "prod"
SLOW_BYTES_PER_SECOND: Final = 80e6
SLOW_DELAY_SECONDS: Final = 0.015
NOT_OURS: Final = ("AWS_", "RCLONE_", "SERVESYNC_", "PYTHONDONTWRITEBYTECODE")
"""Variables of whoever starts the measurement that are kept from what is measured."""

SETTLE_SECONDS: Final = 0.3
"""Within this time nginx has written down the requests that have ended."""

NGINX: Final = """
{user}daemon off;
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  log_format sent '$bytes_sent $request_method $status $scheme $uri';
  access_log {folder}/access.log sent;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 0;
  keepalive_requests 1000000;
  upstream store {{ server 127.0.0.1:{store}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{plain};
    listen 127.0.0.1:{tls} ssl;
    ssl_certificate {folder}/certificate.pem;
    ssl_certificate_key {folder}/key.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    location / {{
      proxy_pass http://store;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_request_buffering off;
      proxy_max_temp_file_size 0;
      proxy_buffer_size 64k;
      proxy_buffers 16 64k;
      proxy_busy_buffers_size 128k;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""


class RigDidNotStart(RuntimeError):
    """A server of the rig is missing, or did not start; the text says which, and why."""


@dataclass(frozen=True)
class Link:
    """A way to the store. `name`: http, https or slow."""

    name: str
    title: str
    url: str


class Rig:
    """The servers, and what they have sent."""

    def __init__(self, folder: Path, store: Seaweed, links: dict[str, Link]) -> None:
        self._log = folder / "access.log"
        self._read_to = 0
        self._sent = 0
        self._store = store
        self.links = links
        self.authority = folder / "certificate.pem"
        self.client = s3_client(store)

    @property
    def direct_url(self) -> str:
        """The store without nginx: for preparing, never for measuring."""
        return self._store.endpoint_url

    def sent_bytes(self) -> int:
        """Return how many bytes nginx has sent in answers that have ended by now."""
        with self._log.open("rb") as file:
            file.seek(self._read_to)
            lines = file.read()
        whole = lines.rfind(b"\n") + 1
        self._read_to += whole
        self._sent += sum(int(line.split()[0]) for line in lines[:whole].splitlines())
        return self._sent

    def settled_bytes(self) -> int:
        """Return the same, once what has just ended is written down."""
        time.sleep(SETTLE_SECONDS)
        return self.sent_bytes()

    def environment(self, link: Link) -> dict[str, str]:
        """Return the environment by which all programs find the store, its keys and its authority."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OURS)}
        keys = keys_of(self._store)
        authority = str(self.authority)
        return ours | {
            **keys,
            "NO_PROXY": "127.0.0.1",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_CA_BUNDLE": authority,
            "SSL_CERT_FILE": authority,
            "CURL_CA_BUNDLE": authority,
            "RCLONE_CONFIG": os.devnull,
            "RCLONE_CA_CERT": authority,
            "RCLONE_CONFIG_STORE_TYPE": "s3",
            "RCLONE_CONFIG_STORE_PROVIDER": "Other",
            "RCLONE_CONFIG_STORE_ENDPOINT": link.url,
            "RCLONE_CONFIG_STORE_REGION": "us-east-1",
            "RCLONE_CONFIG_STORE_ACCESS_KEY_ID": keys["AWS_ACCESS_KEY_ID"],
            "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY": keys["AWS_SECRET_ACCESS_KEY"],
            "ENDPOINT": link.url,
            "BUCKET": BUCKET,
        }

    def presigned(self, link: Link, key: str) -> str:
        """Return a URL by which a program that knows nothing of S3 reads an object."""
        client = boto3.client(
            "s3",
            endpoint_url=link.url,
            region_name="us-east-1",
            aws_access_key_id=self._store.access_key,
            aws_secret_access_key=self._store.secret_key,
        )
        return client.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": key}, ExpiresIn=7200)


@contextmanager
def rig_in(folder: Path) -> Iterator[Rig]:
    """Run the servers while entered; their data lies in `folder`.

    Raises:
        RigDidNotStart: nginx or openssl are missing, or nginx did not start.
        ServerDidNotStart: SeaweedFS did not start.
    """
    front = folder / "nginx"
    front.mkdir(parents=True)
    _certify(front)
    with Seaweed(folder / "seaweed") as store:
        plain, tls = free_ports(2)
        ports = {"store": store.port, "plain": plain, "tls": tls}
        user = "user root;\n" if os.geteuid() == 0 else ""
        (front / "nginx.conf").write_text(NGINX.format(folder=front, user=user, **ports))
        with _nginx(front), slow_link(plain, SLOW_BYTES_PER_SECOND, SLOW_DELAY_SECONDS) as slow:
            rate, delay = f"{SLOW_BYTES_PER_SECOND / 1e6:.0f} MB/s", f"{SLOW_DELAY_SECONDS * 1000:.0f} ms"
            links = (
                Link("http", "HTTP", f"http://127.0.0.1:{plain}"),
                Link("https", "HTTPS", f"https://127.0.0.1:{tls}"),
                Link("slow", f"a link with {rate} for each connection and {delay} of delay", slow),
            )
            rig = Rig(front, store, {link.name: link for link in links})
            rig.client.create_bucket(Bucket=BUCKET)
            yield rig


def _certify(folder: Path) -> None:
    """Make a certificate that signs itself, for 127.0.0.1."""
    if shutil.which("openssl") is None:
        raise RigDidNotStart("no program `openssl`")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bench"]
    made = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(
        [*command, "-addext", "subjectAltName=IP:127.0.0.1", *made], check=True, capture_output=True
    )


@contextmanager
def _nginx(folder: Path) -> Iterator[None]:
    """Run nginx; its master ends with this process, and its workers with it."""
    if shutil.which("nginx") is None:
        raise RigDidNotStart("no program `nginx`: bench/setup brings it, or Debian's package nginx")
    log = folder / "error.log"
    (folder / "access.log").touch()
    command = ["setpriv", "--pdeathsig", "TERM", "nginx", "-p", str(folder), "-e", str(log)]
    with subprocess.Popen([*command, "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            while not (folder / "nginx.pid").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RigDidNotStart(f"nginx did not start:\n{log.read_text()[-1000:]}")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait()
