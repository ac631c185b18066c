"""WebSockets through the edge: relayed, refused, cut when idle and cut on demand."""

from __future__ import annotations

import asyncio

import pytest
import websockets

from tests.kit import emulator as kit


@pytest.mark.parametrize("mode", ["flexible", "full"])
async def test_a_websocket_is_relayed(live: kit.Site, mode: str) -> None:
    live.zone.put_settings({"ssl": mode})
    async with live.websocket() as connection:
        assert connection.response is not None
        assert connection.response.headers["cf-ray"].endswith("-EMU")
        for message in ("ping", "x" * 300_000):
            await connection.send(message)
            assert await connection.recv() == message
        await connection.send("close")
        with pytest.raises(websockets.ConnectionClosed):
            await connection.recv()
        assert connection.close_code == 1012
    await live.closed()


async def test_with_websockets_off_the_handshake_arrives_as_a_plain_get(live: kit.Site) -> None:
    live.zone.put_settings({"websockets": "off"})
    with pytest.raises(websockets.InvalidStatus) as refused:
        await live.websocket("/headers")
    response = refused.value.response
    assert response.status_code == 200
    assert b"upgrade" not in response.body.lower()
    assert b"sec-websocket" not in response.body.lower()
    assert "upgrade" not in response.headers
    with pytest.raises(websockets.InvalidStatus):
        await live.websocket("/ws")


async def test_a_rejected_handshake_is_passed_on(live: kit.Site) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        await live.websocket("/nowhere")
    assert refused.value.response.status_code == 403
    assert refused.value.response.headers["server"] == "cloudflare"


async def test_an_idle_tunnel_is_cut_without_a_close_frame(live: kit.Site) -> None:
    loop = asyncio.get_running_loop()
    async with live.websocket(ping_interval=None) as connection:
        await connection.send("hello")
        assert await connection.recv() == "hello"
        live.edge.configure({"idle_seconds": 0.4})  # applies to open tunnels too
        started = loop.time()
        with pytest.raises(websockets.ConnectionClosedError):
            await asyncio.wait_for(connection.recv(), 5)
        assert 0.2 < loop.time() - started < 1.5
        assert connection.close_code == 1006


@pytest.mark.parametrize("sender", ["visitor", "origin"])
async def test_traffic_in_one_direction_keeps_a_tunnel_open(live: kit.Site, sender: str) -> None:
    live.edge.configure({"idle_seconds": 0.4})
    async with live.websocket(ping_interval=None) as connection:
        if sender == "origin":
            await connection.send("talk8")
            assert [await connection.recv() for _ in range(8)] == list("01234567")
        else:
            for number in range(8):
                await connection.send(f"n{number}")
                await asyncio.sleep(0.1)
        await connection.send("alive")
        while await connection.recv() != "alive":
            pass


async def test_a_cut_drops_hundreds_of_sockets_at_once_and_new_ones_are_served(live: kit.Site) -> None:
    connections = await asyncio.gather(*(live.websocket(ping_interval=None) for _ in range(200)))
    assert live.edge.describe()["tunnels"] == 200

    async def exchange(connection: websockets.ClientConnection, text: str) -> None:
        await connection.send(text)
        assert await connection.recv() == text

    await asyncio.gather(*(exchange(connection, str(n)) for n, connection in enumerate(connections)))
    async with live.client() as client:
        assert (await client.post("/_emulator/edge/cut")).json() == {"cut": 200}
    await asyncio.wait_for(asyncio.gather(*(c.wait_closed() for c in connections)), 10)
    assert {connection.close_code for connection in connections} == {1006}
    async with live.websocket() as connection:
        await exchange(connection, "again")
    await live.closed()
