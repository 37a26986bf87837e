"""A process that looks like a model server from outside: name, user, flags, port, and what it answers.

`python model_server_stub.py PORT UID ANSWERS [flags]`: ANSWERS is a JSON object, for each model the versions
with state, error code and message; it is not read again. Prints one line when it listens.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Answers(BaseHTTPRequestHandler):
    """Answers GET /v1/models/NAME."""

    known: dict[str, Any]

    def do_GET(self) -> None:
        """Answer a question for a model's status."""
        model = self.path.rpartition("/")[2]
        found = self.known.get(model)
        body: dict[str, Any] = {"error": f"Could not find any versions of model {model}"}
        if found is not None:
            body = {
                "model_version_status": [
                    {
                        "version": version,
                        "state": said[0],
                        "status": {"error_code": said[1], "error_message": said[2]},
                    }
                    for version, said in found.items()
                ]
            }
        data = json.dumps(body).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        """Answer every request to a version."""
        self.rfile.read(int(self.headers["Content-Length"]))
        data = b'{"outputs": [0.0]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main(port: str, uid: str, answers: str) -> None:
    if os.getuid() == 0 and int(uid) != 0:
        os.setgroups([])
        os.setgid(int(uid))
        os.setuid(int(uid))
    server = ThreadingHTTPServer(
        ("127.0.0.1", int(port)), type("Bound", (Answers,), {"known": json.loads(answers)})
    )
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    server.serve_forever(0.02)


if __name__ == "__main__":
    main(*sys.argv[1:4])
