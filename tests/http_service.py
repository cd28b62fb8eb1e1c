"""A real local HTTP server with answers set by the test."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Service:
    """``answer(path, body)`` gives status, body and headers; requests are recorded."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def response_to(self, path, body, headers):
        self.asked.append((path, body, headers, time.monotonic()))
        return self.answer(path, body)


@contextmanager
def serving(answer):
    """The service and its address, while the block runs."""
    service = Service(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            size = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            found = service.response_to(
                self.path, body, {k.lower(): v for k, v in self.headers.items()}
            )
            if found is None:  # Closes the connection without a response.
                self.close_connection = True
                return
            status, text, *headers = found
            data = text if isinstance(text, bytes) else json.dumps(text).encode()
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_DELETE = do_POST

        def do_GET(self):
            if self.path == "/":  # A look whether the service is there.
                self.send_error(404)
            else:
                self.do_POST()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield service, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
