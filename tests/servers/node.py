"""Node as a child process of the tests, with a server of `ws` from npm."""

import os
import subprocess
from pathlib import Path
from typing import Final, Self

from tests.servers.process import free_port, program

WS: Final = "ws@8.23.0"
SERVER: Final = """
const { WebSocketServer } = require('ws');
const server = new WebSocketServer({ host: '127.0.0.1', port: +process.argv[2], perMessageDeflate: true });
server.on('listening', () => console.log('listening'));
server.on('connection', (ws) => {
  ws.on('message', (data, binary) => {
    let order = {};
    try { order = JSON.parse(data); } catch { }
    const reply = JSON.stringify({ jsonrpc: '2.0', id: order.id, result: order.params });
    if (order.method === 'echo') ws.send(reply);
    else if (order.method === 'later') setTimeout(() => ws.send(reply), order.params);
    else if (order.method === 'tell') {
      for (let n = 0; n < order.params; n++) ws.send(JSON.stringify({ method: 'told', params: n }));
      ws.send(reply);
    } else if (order.method === 'fragments') {
      ws.send('one ', { fin: false }); ws.send('two ', { fin: false }); ws.send('three');
    } else if (order.method === 'close') ws.close(...order.params);
    else if (order.method === 'terminate') ws.terminate();
    else if (order.method !== 'nothing') ws.send(data, { binary });
  });
});
process.stdin.resume();
process.stdin.on('end', () => process.exit());
"""


def modules() -> Path:
    """Return where `ws` is: in the user's cache, where npm puts it once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nimblepool" / WS
    if not (cache / "node_modules" / "ws").exists():
        cache.mkdir(parents=True, exist_ok=True)
        command = [program("npm"), "install", "--no-audit", "--no-fund", "--prefix", str(cache), WS]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    return cache / "node_modules"


class Node:
    """A process of Node's with an echo server on a port of its own; it can be killed and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[str] | None = None

    @property
    def uri(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        process = subprocess.Popen(
            [program("node"), "-e", SERVER, "server", str(self.port)],
            env={**os.environ, "NODE_PATH": str(modules())},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._process = process
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()
