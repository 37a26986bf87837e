"""What a port speaks, found out by a handshake that sends nothing."""

import socket
import ssl
from typing import Final

SECONDS: Final = 3.0


def speaks_tls(host: str, port: int) -> bool:
    """Tell whether a TLS handshake works there, whatever the certificate; nothing is sent over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except (OSError, ValueError):
        return False
