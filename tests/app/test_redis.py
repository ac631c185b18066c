"""The permissions of the Redis users: the app has no more than it needs, which all other tests show."""

import signal
from pathlib import Path

import httpx
import pytest
import redis
from redis.exceptions import NoPermissionError

from app.redis_password import PasswordFile
from tests.kit.app import RedisServer, Site, make_site, numbers
from tests.kit.documents import TEXT, finished, upload
from tests.kit.process import wait_until


@pytest.fixture(scope="module")
def app_user(redis_server: RedisServer) -> "redis.Redis":
    return redis_server.as_user("app", redis_server.password_file)


@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL", "FLUSHDB", "CONFIG GET save", "CONFIG SET save x", "DEBUG SLEEP 0", "SHUTDOWN NOSAVE",
        "KEYS *", "SCAN 0", "ACL LIST", "ACL WHOAMI", "MONITOR", "CLIENT LIST", "CLIENT KILL TYPE normal",
        "INFO", "SAVE", "REPLICAOF 127.0.0.1 1", "MODULE LIST", "SCRIPT FLUSH", "SWAPDB 0 1", "RANDOMKEY",
        "GET other", "DEL other", "SUBSCRIBE other", "PSUBSCRIBE *", "EVAL redis.call('flushall') 0",
        "EVAL redis.call('get','other') 0",
    ],
)  # fmt: skip
def test_app_is_not_permitted(app_user: "redis.Redis", command: str) -> None:
    name, *arguments = command.split(" ")
    if name == "EVAL":
        arguments = [f"return {arguments[0]}", "0"]
    with pytest.raises(
        redis.ResponseError, match=r"permission|can't run this command|can't access|not allowed"
    ):
        app_user.execute_command(name, *arguments)


@pytest.mark.parametrize("command", ["FLUSHALL", "KEYS *", "SHUTDOWN NOSAVE", "CONFIG SET save x", "KEYS *"])
def test_operator_can_not_run_destructive_commands(redis_server: RedisServer, command: str) -> None:
    with pytest.raises(NoPermissionError):
        redis_server.client.execute_command(*command.split(" "))
    assert redis_server.client.execute_command("CONFIG", "GET", "appendonly")["appendonly"] == "yes"


@pytest.mark.parametrize("user", ["", "default", "app", "operator"])
def test_wrong_password_is_refused(redis_server: RedisServer, tmp_path: Path, user: str) -> None:
    (tmp_path / "wrong").write_text("0" * 48)
    with pytest.raises(redis.AuthenticationError):
        redis_server.as_user(user, tmp_path / "wrong").ping()
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=redis_server.port).ping()


def test_no_process_exposes_the_password(redis_server: RedisServer, site: Site) -> None:
    password = redis_server.password_file.read_bytes().strip()
    operator = (redis_server.folder / "operator").read_bytes().strip()
    children = [process.child.pid for process in (redis_server, site.api, site.worker) if process.child]
    assert len(children) == 3
    for pid in children:
        exposed = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert password not in exposed
        assert operator not in exposed
    # The ACL file has only digests.
    assert password not in (redis_server.folder / "users.acl").read_bytes()
    assert password not in redis_server.log_file.read_bytes() + site.api.log_file.read_bytes()


def test_redis_does_not_start_without_a_password(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.password_file.write_text("")
    with pytest.raises(AssertionError):
        server.start()
    assert "redis_password is missing or empty" in server.log()


def test_unreadable_password_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(redis.AuthenticationError, match="nowhere can't be read"):
        PasswordFile("app", tmp_path / "nowhere").get_credentials()


async def test_rotated_password_needs_no_restart(own_site: Site, user: str) -> None:
    own_site.start()
    server = own_site.redis
    old = server.as_user("app", server.password_file)
    async with own_site.socket(user) as connection:
        server.client.execute_command(
            "ACL", "SETUSER", "app", "resetpass", ">new-password-new-password-new-pass"
        )
        server.password_file.write_text("new-password-new-password-new-pass\n")
        server.client.execute_command("CLIENT", "KILL", "USER", "app")
        server.publish(user, 1)
        assert await numbers(connection, 1) == [1]
        wait_until("the api is ready", own_site.ready)
    server.password_file.write_text("old\n")
    with pytest.raises(redis.AuthenticationError):
        old.ping()


def test_readiness_reports_a_wrong_password(own_site: Site) -> None:
    own_site.start()
    own_site.redis.password_file.write_text("wrong\n")
    own_site.redis.cut()
    wait_until("the api is not ready", lambda: not own_site.ready())
    assert httpx.get(f"{own_site.url}/readyz").json()["redis"] == "AuthenticationError"


def test_connection_cut_while_idle_causes_no_error(own_site: Site) -> None:
    own_site.start()
    with own_site.http("ada") as http:
        for _ in range(3):
            assert http.get("/batches").status_code == 200
            own_site.redis.cut()


def test_full_redis_refuses_uploads_and_keeps_accepted_ones(tmp_path: Path, user: str) -> None:
    """An accepted CV is finished although Redis is full."""
    server = RedisServer(tmp_path, "--maxmemory", "12mb", "--maxmemory-policy", "noeviction")
    server.start()
    site = make_site(server, tmp_path)
    try:
        site.start()
        upload(site, user, a__txt=TEXT.encode())
        with pytest.raises(redis.OutOfMemoryError):
            for number in range(100_000):
                server.client.execute_command("SET", f"ballast:{number}", "x" * 1_000)
        refused = wait_until(
            "an upload is refused",
            lambda: (response := upload(site, user, b__txt=TEXT.encode())).status_code != 202 and response,
        )
        assert refused.status_code == 503
        assert "try again" in refused.json()["detail"]
        with site.http(user) as http:
            accepted = [batch["batch_id"] for batch in http.get("/batches").json()["batches"]]
        assert len(list(site.uploads.iterdir())) == len(accepted) >= 1
        site.worker.start()
        assert [finished(site, user, batch_id)["done"] for batch_id in accepted] == [1] * len(accepted)
        ready = httpx.get(f"{site.url}/readyz")
        assert (ready.status_code, ready.json()["storage"]) == (200, "full")
        server.client.execute_command("DEL", *(f"ballast:{number}" for number in range(100_000)))
        assert httpx.get(f"{site.url}/readyz").json()["storage"] == "ok"
        assert upload(site, user, c__txt=TEXT.encode()).status_code == 202
    finally:
        site.worker.close()
        site.api.close()
        server.end(signal.SIGKILL)
