"""The worker, run as `dramatiq app.worker`: processes each uploaded CV and publishes every step.

A job may run twice, when its worker was killed or lost Redis. `Progress` makes the second run continue where
the first stopped, without publishing a step twice. A job ends only once its outcome is in Redis.
"""

import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Middleware
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from app.analyse import analyse
from app.batches import ACTOR, QUEUE, Progress
from app.extract import Refused, Unavailable, client
from app.redis_password import from_url
from app.settings import WorkerSettings, load

UPLOAD_SECONDS = 86_400  # after which an unprocessed upload is deleted
HEARTBEAT_TIMEOUT = 5_000  # milliseconds without a heartbeat after which others take over a worker's jobs
IDLE_WAIT = 200  # milliseconds between polls of an empty queue, at most
WAIT = 1.0  # seconds between attempts of a job that lost Redis or the extractor
# One file per worker process, named by its id in Redis; the health check reads the names.
ALIVE_DIR = Path(tempfile.gettempdir()) / "screen-flow-worker"

settings = load(WorkerSettings)
logging.getLogger("app").setLevel(settings.log_level)
logger = logging.getLogger(__name__)


class Broker(RedisBroker):
    """dramatiq's Redis broker, with shorter polls, without KEYS, and without lost jobs."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        # After each upload the library lists a dead worker's queues by KEYS, which reads every key and blocks
        # Redis while it does. Our workers have one queue and its delayed messages.
        script = self.scripts["dispatch"].script.decode()  # type: ignore[union-attr]
        listing = 'redis.call("keys", dead_worker_acks .. "*")'
        if listing not in script:
            raise RuntimeError("this release of dramatiq lists queues differently: adapt app/worker.py")
        queue = 'dead_worker_acks .. "." .. queue_canonical_name'
        left = f'{{redis.call("exists", {queue}, {queue} .. ".DQ") > 0 or nil}}'
        self.scripts["dispatch"] = self.client.register_script(script.replace(listing, left))

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = IDLE_WAIT) -> dramatiq.Consumer:
        """Return a consumer of the queue that waits at most IDLE_WAIT.

        The library calls this again after a lost connection. A job that Redis had handed out in a lost reply
        would count as in progress while this process lives; so all such jobs return to the queue.
        """
        try:
            handed_out = self.client.smembers(f"{self.namespace}:__acks__.{self.broker_id}.{queue_name}")
            if handed_out:
                self.do_requeue(queue_name, *handed_out)
        except redis.ConnectionError as error:
            raise dramatiq.errors.ConnectionClosed(error) from None
        return super().consume(queue_name, prefetch, min(timeout, IDLE_WAIT))


class Alive(Middleware):
    """Publishes the worker's id to the health check."""

    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        """Write the file, and delete uploads whose jobs were lost together with Redis."""
        assert isinstance(broker, Broker)
        for upload in settings.upload_dir.iterdir():
            if upload.stat().st_mtime < time.time() - UPLOAD_SECONDS:
                upload.unlink(missing_ok=True)
        ALIVE_DIR.mkdir(exist_ok=True)
        (ALIVE_DIR / broker.broker_id).touch()

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        """Remove the file."""
        assert isinstance(broker, Broker)
        (ALIVE_DIR / broker.broker_id).unlink(missing_ok=True)


broker = Broker(
    client=redis.Redis.from_url(
        **from_url(settings.redis_url, settings.redis_password_file),
        socket_timeout=10,
        socket_connect_timeout=5,
        # A silent retry would lose the jobs in the first reply.
        retry=Retry(NoBackoff(), 0),
    ),
    heartbeat_timeout=HEARTBEAT_TIMEOUT,
    # Look for jobs of killed workers at each poll; the default is one poll in a thousand.
    maintenance_chance=1_000_000,
    # Without dramatiq's retries, which need Redis and drop the job when Redis is unavailable.
    middleware=[Alive()],
)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=QUEUE, actor_name=ACTOR)
def process_cv(user_id: str, batch_id: str, cv_id: str, kind: str) -> None:
    """Process one CV to its result or its error. While Redis or the extractor is unavailable it waits."""
    while True:
        try:
            _process_once(user_id, batch_id, cv_id, kind)
            return
        except RedisError as error:
            logger.warning("CV %s waits for Redis: %s", cv_id, error)
        except Unavailable as error:
            logger.warning("CV %s waits: %s", cv_id, error)
        time.sleep(WAIT)


def _process_once(user_id: str, batch_id: str, cv_id: str, kind: str) -> None:
    path = settings.upload_dir / cv_id
    progress = Progress(broker.client, user_id, batch_id, cv_id)
    cv = progress.cv()
    if cv is None:
        logger.warning("The batch of CV %s no longer exists", cv_id)
    elif cv["progress"] < 100:
        _process(progress, cv, kind, path)
    # Only the result is kept.
    path.unlink(missing_ok=True)


def _process(progress: Progress, cv: dict[str, Any], kind: str, path: Path) -> None:
    try:
        progress.advance(cv, "extracting")
        text, _ = client.text(settings.extractor_socket, kind, path)
        progress.advance(cv, "analysing")
        result = analyse(text, settings.phone_region)
    except (RedisError, Unavailable):
        raise
    except Refused as refused:
        logger.info("CV %s failed: %s", cv["cv_id"], refused)
        progress.advance(cv, "failed", error=str(refused))
    except Exception:
        logger.exception("CV %s failed with an internal error", cv["cv_id"])
        progress.advance(
            cv, "failed", error="The CV could not be processed because of an internal error. Upload it again."
        )
    else:
        progress.advance(cv, "done", result=result)
