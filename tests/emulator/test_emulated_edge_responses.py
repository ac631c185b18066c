"""Responses of the edge: cache, configuration and compression rules, Polish, Rocket Loader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from emulator.edge.rocket_loader import SCRIPT_PATH
from emulator.rulesets import CACHE, COMPRESSION, CONFIG
from tests.kit import emulator as kit

ACTIONS = {CACHE: "set_cache_settings", CONFIG: "set_config", COMPRESSION: "compress_response"}
TEXT = b"a line of text that is long enough to be compressed\n" * 20


@pytest.fixture
async def requested(site: kit.Site) -> AsyncIterator[list[str]]:
    """An origin that responds by the path's extension; the paths that were requested from it."""
    paths: list[str] = []
    types = {"js": "text/javascript", "png": "image/png", "html": "text/html", "json": "application/json"}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split()[1]
        paths.append(path)
        kind = types.get(path.partition("?")[0].rpartition(".")[2], "text/plain")
        body = kit.PAGE if kind == "text/html" else TEXT
        private = "Cache-Control: private\r\n" if "private" in path else ""
        status = path[1:] if path[1:].isdecimal() else 200
        start = (
            f"HTTP/1.1 {status} OK\r\nContent-Type: {kind}\r\n{private}Content-Length: {len(body)}\r\n\r\n"
        )
        writer.write(start.encode() + body)
        await writer.drain()

    async with kit.raw_origin(answer) as port:
        site.origin(http=port)
        yield paths


async def rules(site: kit.Site, phase: str, *contents: tuple[str, dict[str, Any]]) -> None:
    """Replace the rules of a phase; each is an expression and its action parameters."""
    async with site.client() as client:
        entry = f"/client/v4/zones/{site.zone.id}/rulesets/phases/{phase}/entrypoint"
        body = [{"expression": e, "action": ACTIONS[phase], "action_parameters": p} for e, p in contents]
        answer = await client.put(entry, json={"rules": body})
        assert answer.status_code == 200, answer.text


async def statuses(site: kit.Site, path: str) -> list[str]:
    return [(await site.get(path, "http")).headers["cf-cache-status"] for _ in range(2)]


async def test_static_files_are_cached_and_pages_are_not(site: kit.Site, requested: list[str]) -> None:
    assert await statuses(site, "/app.js") == ["MISS", "HIT"]
    assert await statuses(site, "/api/x") == ["DYNAMIC", "DYNAMIC"]
    assert await statuses(site, "/private.js") == ["BYPASS", "BYPASS"]
    assert requested.count("/app.js") == 1


async def test_a_cached_response_leaves_the_connection_open(site: kit.Site, requested: list[str]) -> None:
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{site.http}", headers={"host": kit.NAME}
    ) as client:
        answers = [await client.get("/app.js") for _ in range(3)]
        ports = {answer.extensions["network_stream"].get_extra_info("client_addr") for answer in answers}
    assert [answer.headers["cf-cache-status"] for answer in answers] == ["MISS", "HIT", "HIT"]
    assert len(ports) == 1


async def test_a_cache_rule_bypasses_the_cache_on_its_path(site: kit.Site, requested: list[str]) -> None:
    await rules(site, CACHE, ('starts_with(http.request.uri.path, "/ws/")', {"cache": False}))
    assert await statuses(site, "/ws/app.js") == ["DYNAMIC", "DYNAMIC"]
    assert await statuses(site, "/app.js") == ["MISS", "HIT"]


async def test_a_cache_rule_sets_how_long_a_path_is_cached(site: kit.Site, requested: list[str]) -> None:
    ttl = {"edge_ttl": {"mode": "override_origin", "default": 1}}
    await rules(site, CACHE, (f'http.host eq "{kit.NAME}"', {"cache": True, **ttl}))
    assert await statuses(site, "/private.json") == ["MISS", "HIT"]
    await asyncio.sleep(1.1)
    assert await statuses(site, "/private.json") == ["EXPIRED", "HIT"]


async def test_of_the_error_responses_only_404_is_cached(site: kit.Site, requested: list[str]) -> None:
    await rules(site, CACHE, (f'http.host eq "{kit.NAME}"', {"cache": True}))
    assert await statuses(site, "/404") == ["MISS", "HIT"]
    assert await statuses(site, "/403") == ["BYPASS", "BYPASS"]


async def test_a_disabled_rule_is_not_applied(site: kit.Site, requested: list[str]) -> None:
    await rules(site, CACHE, ("true", {"cache": False}))
    site.zone.rulesets.all[0]["rules"][0]["enabled"] = False
    assert await statuses(site, "/app.js") == ["MISS", "HIT"]


async def test_a_configuration_rule_turns_rocket_loader_off_on_its_path(
    site: kit.Site, requested: list[str]
) -> None:
    site.zone.put_settings({"rocket_loader": "on"})
    await rules(site, CONFIG, ('starts_with(http.request.uri.path, "/plain/")', {"rocket_loader": False}))
    assert (await site.get("/plain/page.html", "http")).content == kit.PAGE
    assert b"rocket-loader" in (await site.get("/page.html", "http")).content


async def test_a_configuration_rule_turns_polish_off_on_its_path(
    site: kit.Site, requested: list[str]
) -> None:
    site.zone.put_settings({"polish": "lossy"})
    await rules(site, CONFIG, ('starts_with(http.request.uri.path, "/raw/")', {"polish": "off"}))
    assert (await site.get("/a.png", "http")).headers["cf-polished"] == "status=not_needed"
    assert "cf-polished" not in (await site.get("/raw/a.png", "http")).headers


async def test_a_compression_rule_leaves_its_path_uncompressed(site: kit.Site, requested: list[str]) -> None:
    await rules(
        site, COMPRESSION, ('starts_with(http.request.uri.path, "/ws/")', {"algorithms": [{"name": "none"}]})
    )
    for path, encoding in (("/api/x", "gzip"), ("/ws/x", None)):
        answer = await site.get(path, "http", headers={"accept-encoding": "br, gzip"})
        assert (answer.headers.get("content-encoding"), answer.content) == (encoding, TEXT)
    plain = await site.get("/api/x", "http", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert "content-encoding" not in (await site.get("/a.png", "http")).headers


async def test_a_response_that_the_origin_compressed_is_decompressed_if_a_rule_requires_it(
    site: kit.Site,
) -> None:
    with kit.origin() as http:
        site.origin(http=http)
        await rules(site, COMPRESSION, ("http.response.code eq 200", {"algorithms": [{"name": "none"}]}))
        answer = await site.get("/page?gz", "http")
    assert ("content-encoding" in answer.headers, answer.content) == (False, kit.PAGE)


# --- Rocket Loader


@pytest.mark.parametrize("form", ["?plain", "?gz", "?bytes"])
async def test_rocket_loader_defers_scripts(live: kit.Site, form: str) -> None:
    untouched = (await live.get(f"/page{form}")).content
    assert untouched == kit.PAGE
    live.zone.put_settings({"rocket_loader": "on"})
    answer = await live.get(f"/page{form}", headers={"accept-encoding": "identity"})
    text = answer.text
    prefix = text.split('<script type="')[1].split("text/javascript")[0]
    assert f'<script type="{prefix}text/javascript">window.order' in text
    assert f'<script type="{prefix}module" src="/app.js">' in text
    assert '<script type="application/json">{"a": "<script>"}</script>' in text
    assert "<!-- <script>never()</script> -->" in text
    assert '<script data-cfasync="false">window.early = "</body>"' in text
    assert text.endswith(
        f'<script src="{SCRIPT_PATH}" data-cf-settings="{prefix}|49" defer></script></body></html>'
    )
    assert text.count(SCRIPT_PATH) == 1
    assert "content-encoding" not in answer.headers
    if form != "?bytes":
        assert answer.headers["etag"] == 'W/"1"'
    loader = await live.get(SCRIPT_PATH)
    assert loader.headers["content-type"] == "application/javascript"


async def test_rocket_loader_leaves_other_responses_unchanged(live: kit.Site) -> None:
    live.zone.put_settings({"rocket_loader": "on"})
    answer = await live.get("/page?as=text/plain", headers={"accept-encoding": "identity"})
    assert (answer.content, answer.headers["etag"]) == (kit.PAGE, '"1"')
