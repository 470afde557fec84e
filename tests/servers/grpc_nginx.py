"""nginx in front of a gRPC server, with few requests to a connection."""

from typing import Final

from tests.servers.nginx import SHUTDOWN_TIMEOUT, NginxProcess

REQUESTS: Final = 20
CONFIGURATION: Final = """
    server {{
        listen 127.0.0.1:{plain} http2;
        keepalive_requests {requests};
        client_max_body_size 0;
        location / {{ grpc_pass grpc://127.0.0.1:{upstream}; }}
    }}
}}
"""


class GrpcNginx(NginxProcess):
    """It says GOAWAY after so many requests on a connection, and at a reload."""

    def __init__(self, upstream: int) -> None:
        super().__init__(CONFIGURATION, upstream=upstream, requests=REQUESTS, shutdown_timeout=SHUTDOWN_TIMEOUT)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self._ports['plain']}"
