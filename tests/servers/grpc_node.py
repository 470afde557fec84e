"""Node as a child process of the tests, with a server of `@grpc/grpc-js` from npm for tests/grpc/peer.proto."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final, Self

from tests.grpc.stubs import HERE
from tests.servers.process import free_port, program

PACKAGES: Final = ("@grpc/grpc-js@1.14.7", "@grpc/proto-loader@0.8.1")
SERVER: Final = """
const grpc = require('@grpc/grpc-js');
const [address, proto, options] = process.argv.slice(2);
const definition = require('@grpc/proto-loader').loadSync(proto, { keepCase: true, longs: Number, defaults: true });
const figures = { running: 0, begun: 0 };
const wait = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
const reply = (order, number, count) => (
  { number, count, payload: order.size ? Buffer.alloc(order.size) : order.payload });
const failure = (order, trailing) => ({ code: order.code, details: order.details, metadata: trailing });

function begin(call) {
  figures.running++; figures.begun++;
  const trailing = new grpc.Metadata(), initial = new grpc.Metadata();
  for (const [key, value] of Object.entries(call.metadata.getMap())) {
    if (key.startsWith('initial-')) initial.set(key, value);
    if (key.startsWith('trailing-')) trailing.set(key, value);
  }
  call.sendMetadata(initial);
  let ended = false;
  const end = () => { if (!ended) { ended = true; figures.running--; } };
  call.on('cancelled', end);
  return [trailing, end];
}

async function write(call, message) {
  if (!call.write(message)) await new Promise((done) => { call.once('drain', done); call.once('cancelled', done); });
}

async function writeAll(call, order, count) {
  for (let n = 0; n !== (order.replies || (count && !order.code ? 1 : 0)) && !call.cancelled; n++) {
    await write(call, reply(order, order.replies ? n : order.number, count || 1));
    if (order.pause) await wait(order.pause);
  }
}

const methods = {
  async Single(call, answer) {
    const [trailing, end] = begin(call), order = call.request;
    if (order.hold) return;
    await wait(order.sleep);
    end();
    if (order.code) answer(failure(order, trailing)); else answer(null, reply(order, order.number, 1), trailing);
  },
  async Down(call) {
    const [trailing, end] = begin(call), order = call.request;
    if (order.hold) return;
    await writeAll(call, order, 0);
    end();
    if (order.code) call.emit('error', failure(order, trailing)); else call.end(trailing);
  },
  async Up(call, answer) {
    const [trailing, end] = begin(call);
    let count = 0, total = 0;
    for await (const order of call.iterator({ destroyOnReturn: false })) {
      if (order.hold) return;
      if (order.code) { end(); answer(failure(order, trailing)); return; }
      count++; total += order.number;
    }
    end();
    answer(null, { number: total, count }, trailing);
  },
  async Both(call) {
    const [trailing, end] = begin(call);
    let count = 0;
    for await (const order of call.iterator({ destroyOnReturn: false })) {
      if (order.hold) return;
      await writeAll(call, order, ++count);
      if (order.code) { end(); call.emit('error', failure(order, trailing)); return; }
    }
    end();
    call.end(trailing);
  },
};

// A client that goes away in the middle of a stream is no reason to fall over.
for (const [name, method] of Object.entries(methods)) {
  methods[name] = (call, answer) => method(call, answer).catch(() => call.emit('cancelled'));
}
const server = new grpc.Server(JSON.parse(options));
server.addService(grpc.loadPackageDefinition(definition).nimblepool.tests.Peer.service, methods);
server.bindAsync(address, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
  console.log('listening');
});
require('readline').createInterface({ input: process.stdin })
  .on('line', () => console.log(JSON.stringify(figures)))
  .on('close', () => process.exit());
"""


def modules() -> Path:
    """Return where the packages are: in the user's cache, where npm puts them once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nimblepool" / "grpc-js"
    found = cache / "node_modules"
    if not all((found / package.rsplit("@", 1)[0]).exists() for package in PACKAGES):
        cache.mkdir(parents=True, exist_ok=True)
        command = [program("npm"), "install", "--no-audit", "--no-fund", "--prefix", str(cache), *PACKAGES]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    return found


class NodeServer:
    """It can be killed and started again on the same port.

    Args:
        options: of grpc-js's server.
    """

    def __init__(self, **options: int) -> None:
        self.target = f"127.0.0.1:{free_port()}"
        self._options = json.dumps({f"grpc.{name}": value for name, value in options.items()})
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and return when it takes calls."""
        process = subprocess.Popen(
            [program("node"), "-e", SERVER, "server", self.target, HERE / "peer.proto", self._options],
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

    @property
    def running(self) -> int:
        """Calls whose handlers have begun and neither ended nor heard of a cancellation."""
        process = self._process
        assert process is not None, "it is not running"
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("figures\n")
        process.stdin.flush()
        figures: dict[str, Any] = json.loads(process.stdout.readline())
        return int(figures["running"])
