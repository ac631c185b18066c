"""The worker, run as `dramatiq app.worker`: processes each uploaded CV and publishes every step.

A job may run twice, when its worker was killed or lost Redis. `Progress` makes the second run continue where
the first stopped, without publishing a step twice. A job ends only once its outcome is in Redis.
"""

import logging
import tempfile
import threading
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
from app.batches import Progress
from app.extract import Refused, Unavailable, client
from app.redis_password import from_url
from app.settings import WorkerSettings, load
from app.storage import ALLOW_OOM, QUEUE
from app.turns import ACTOR, Busy, Job, Turns

UPLOAD_SECONDS = 86_400  # after which an unprocessed upload is deleted
SWEEP_EVERY = 3_600.0  # seconds between searches for such uploads
HEARTBEAT_TIMEOUT = 5_000  # milliseconds without a heartbeat after which others take over a worker's jobs
IDLE_WAIT = 200  # milliseconds between polls of an empty queue, at most
WAIT = 1.0  # seconds between attempts of a job that lost Redis or the extractor
TURN_WAIT = 0.2  # seconds between attempts to take a CV while all that wait are of users at their share
# One file per worker process, named by its id in Redis; the health check reads the names.
ALIVE_DIR = Path(tempfile.gettempdir()) / "screen-flow-worker"

settings = load(WorkerSettings)
logging.getLogger("app").setLevel(settings.log_level)
logger = logging.getLogger(__name__)


class Broker(RedisBroker):
    """dramatiq's Redis broker, with shorter polls, without KEYS or lost jobs, also in a full Redis."""

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
        self.scripts["dispatch"] = self.client.register_script(ALLOW_OOM + script.replace(listing, left))

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
    """Publishes the worker's id to the health check, and deletes uploads whose jobs were lost."""

    def __init__(self) -> None:
        self.stopping = threading.Event()

    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        """Write the file and start to search. Half of the threads are for users other than the busiest."""
        assert isinstance(broker, Broker)
        turns.share = max(1, worker.worker_threads // 2)
        threading.Thread(target=self._sweep, daemon=True).start()
        ALIVE_DIR.mkdir(exist_ok=True)
        (ALIVE_DIR / broker.broker_id).touch()

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        """Let the threads that wait for another user's CV return."""
        self.stopping.set()

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        """Remove the file."""
        assert isinstance(broker, Broker)
        (ALIVE_DIR / broker.broker_id).unlink(missing_ok=True)

    def _sweep(self) -> None:
        while True:
            for upload in settings.upload_dir.iterdir():
                try:
                    if upload.stat().st_mtime < time.time() - UPLOAD_SECONDS:
                        upload.unlink()
                except FileNotFoundError:
                    continue  # processed meanwhile
            if self.stopping.wait(SWEEP_EVERY):
                return


alive = Alive()
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
    middleware=[alive],
)
turns = Turns(broker.client)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=QUEUE, actor_name=ACTOR)
def process_cv(user_id: str, batch_id: str, cv_id: str, kind: str) -> None:
    """Process the CV whose turn it is, which may be another. Without Redis or the extractor it waits."""
    own = Job(user_id, batch_id, cv_id, kind)
    busy = False
    while True:
        try:
            if busy and alive.stopping.is_set():
                # Back to the queue; a message too many would find nothing to do.
                broker.enqueue(process_cv.message(*own))
                return
            with turns.take(own) as job:
                if job:
                    _process_once(job)
            return
        except Busy:
            busy = True
            alive.stopping.wait(TURN_WAIT)
            continue
        except RedisError as error:
            logger.warning("CV %s waits for Redis: %s", cv_id, error)
        except Unavailable as error:
            logger.warning("CV %s waits: %s", cv_id, error)
        time.sleep(WAIT)


def _process_once(job: Job) -> None:
    path = settings.upload_dir / job.cv_id
    progress = Progress(broker.client, job.user_id, job.batch_id, job.cv_id)
    cv = progress.cv()
    if cv is None:
        logger.warning("The batch of CV %s no longer exists", job.cv_id)
    elif cv["progress"] < 100:
        _process(progress, cv, job.kind, path)
    # Only the result is kept.
    path.unlink(missing_ok=True)


def _process(progress: Progress, cv: dict[str, Any], kind: str, path: Path) -> None:
    seconds = 0.0
    try:
        progress.advance(cv, "extracting")
        if progress.spent() >= settings.batch_cpu_seconds:
            raise Refused(
                f"The other CVs of this upload took {settings.batch_cpu_seconds} seconds of processing, all "
                "that one upload may take. Upload this CV again, with fewer others."
            )
        text, seconds = client.text(settings.extractor_socket, kind, path)
        progress.advance(cv, "analysing", seconds)
        result = analyse(text, settings.phone_region)
    except (RedisError, Unavailable):
        raise
    except Refused as refused:
        logger.info("CV %s failed: %s", cv["cv_id"], refused)
        progress.advance(cv, "failed", refused.seconds, error=str(refused))
    except Exception:
        logger.exception("CV %s failed with an internal error", cv["cv_id"])
        progress.advance(
            cv, "failed", error="The CV could not be processed because of an internal error. Upload it again."
        )
    else:
        progress.advance(cv, "done", result=result)
