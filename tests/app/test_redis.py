"""The permissions of the Redis users: api and worker have only what they need, which all other tests show."""

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

REFUSED = r"permission|can't run this command|can't access|not allowed"


@pytest.mark.parametrize("user", ["api", "worker"])
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
def test_the_backend_is_not_permitted(redis_server: RedisServer, user: str, command: str) -> None:
    name, *arguments = command.split(" ")
    if name == "EVAL":
        arguments = [f"return {arguments[0]}", "0"]
    with pytest.raises(redis.ResponseError, match=REFUSED):
        redis_server.as_user(user, redis_server.password_file_of(user)).execute_command(name, *arguments)


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("worker", "DEL user:ada:stream"),
        ("worker", "DEL batch:1"),
        ("worker", "EXPIRE user:ada:waiting 0"),
        ("worker", "LRANGE user:ada:batches 0 -1"),
        ("worker", "LPUSH user:ada:batches 1"),
        ("worker", "DEL user:ada:batches"),
        ("worker", "RPUSH user:ada:waiting 1"),
        ("worker", "XRANGE user:ada:stream - +"),
        ("worker", "HGETALL batch:1"),
        ("worker", "SUBSCRIBE user:ada:events"),
        ("worker", "INFO memory"),
        ("worker", "XADD dramatiq:cvs * a b"),
        ("api", "DEL dramatiq:cvs"),
        ("api", "LPOP dramatiq:cvs"),
        ("api", "LPOP user:ada:waiting"),
        ("api", "HGET dramatiq:cvs.msgs 1"),
        ("api", "ZADD dramatiq:__heartbeats__ 1 x"),
        ("api", "SADD dramatiq:__acks__.x.cvs 1"),
        ("api", "HSET dramatiq:cvs.taken 1 2"),
    ],
)
def test_neither_part_has_the_other_s_permissions(redis_server: RedisServer, user: str, command: str) -> None:
    client = redis_server.as_user(user, redis_server.password_file_of(user))
    with pytest.raises(redis.ResponseError, match=REFUSED):
        client.execute_command(*command.split(" "))
    name, key, *rest = command.split(" ")
    if name not in ("SUBSCRIBE", "INFO"):
        # Nor by a script that names the key.
        quoted = ",".join(f"'{word}'" for word in (name, key, *rest))
        with pytest.raises(redis.ResponseError, match=REFUSED):
            client.execute_command("EVAL", f"return redis.call({quoted})", 1, key)


@pytest.mark.parametrize("command", ["FLUSHALL", "KEYS *", "SHUTDOWN NOSAVE", "CONFIG SET save x", "KEYS *"])
def test_operator_can_not_run_destructive_commands(redis_server: RedisServer, command: str) -> None:
    with pytest.raises(NoPermissionError):
        redis_server.client.execute_command(*command.split(" "))
    assert redis_server.client.execute_command("CONFIG", "GET", "appendonly")["appendonly"] == "yes"


@pytest.mark.parametrize("user", ["", "default", "api", "worker", "operator"])
def test_wrong_password_is_refused(redis_server: RedisServer, tmp_path: Path, user: str) -> None:
    (tmp_path / "wrong").write_text("0" * 48)
    with pytest.raises(redis.AuthenticationError):
        redis_server.as_user(user, tmp_path / "wrong").ping()
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=redis_server.port).ping()


def test_no_process_exposes_the_password(redis_server: RedisServer, site: Site) -> None:
    passwords = [redis_server.password_file_of(user).read_bytes().strip() for user in ("api", "worker")]
    operator = (redis_server.folder / "operator").read_bytes().strip()
    children = [process.child.pid for process in (redis_server, site.api, site.worker) if process.child]
    assert len(children) == 3
    for pid in children:
        exposed = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert not [password for password in passwords if password in exposed]
        assert operator not in exposed
    # The ACL file has only digests.
    files = redis_server.folder / "users.acl", redis_server.log_file, site.api.log_file, site.worker.log_file
    written = b"".join(file.read_bytes() for file in files)
    assert not [password for password in passwords if password in written]


@pytest.mark.parametrize("user", ["api", "worker"])
def test_redis_does_not_start_without_a_password(tmp_path: Path, user: str) -> None:
    server = RedisServer(tmp_path)
    server.password_file_of(user).write_text("")
    with pytest.raises(AssertionError):
        server.start()
    assert f"redis_password_{user} is missing or empty" in server.log()


def test_unreadable_password_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(redis.AuthenticationError, match="nowhere can't be read"):
        PasswordFile("api", tmp_path / "nowhere").get_credentials()


async def test_rotated_password_needs_no_restart(own_site: Site, user: str) -> None:
    own_site.start()
    server = own_site.redis
    old = server.as_user("api", server.password_file)
    async with own_site.socket(user) as connection:
        server.client.execute_command(
            "ACL", "SETUSER", "api", "resetpass", ">new-password-new-password-new-pass"
        )
        server.password_file.write_text("new-password-new-password-new-pass\n")
        server.client.execute_command("CLIENT", "KILL", "USER", "api")
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
