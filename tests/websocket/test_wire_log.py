import base64
import logging

import pytest

from nimblepool_websocket import WebSocketWorker, open_websockets

SECRET = "hunter2"


async def handshake_log(uri: str, caplog: pytest.LogCaptureFixture, logger: logging.Logger | None = None) -> str:
    caplog.set_level(logging.DEBUG)
    address = f"{uri.replace('//', f'//me:{SECRET}@')}/p?token={SECRET}"
    worker = WebSocketWorker(
        address, additional_headers={"X-Api-Key": SECRET}, subprotocols=[SECRET, "chat"], logger=logger
    )
    async with open_websockets(worker) as sockets, sockets.connection():
        pass
    return caplog.text


async def test_the_drivers_log_of_the_handshake_shows_no_secret(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    text = await handshake_log(uri, caplog)
    assert "> GET /p?... HTTP/1.1" in text
    assert "> Authorization: ..." in text
    assert "> X-Api-Key: ..." in text
    assert "< Upgrade: websocket" in text
    assert SECRET not in text
    assert base64.b64encode(f"me:{SECRET}".encode()).decode() not in text
    assert hasattr(caplog.records[-1], "websocket")


async def test_a_logger_of_the_users_own_gets_everything(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    assert SECRET in await handshake_log(uri, caplog, logging.getLogger("mine"))
