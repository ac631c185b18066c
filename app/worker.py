"""The worker, run as `dramatiq app.worker`: processes each uploaded CV and publishes every step.

A job may run twice, when its worker was killed or lost Redis. `Progress` makes the second run continue where
the first stopped, without publishing a step twice. A job ends only once its outcome is in Redis.
"""

import logging
import os
import subprocess
import sys
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

from app import extract
from app.analyse import analyse
from app.batches import Progress
from app.redis_password import from_url
from app.settings import WorkerSettings, load
from app.storage import ALLOW_OOM, QUEUE
from app.turns import ACTOR, Busy, Job, Turns

UPLOAD_SECONDS = 86_400  # after which an unprocessed upload is deleted
SWEEP_EVERY = 3_600.0  # seconds between searches for such uploads
HEARTBEAT_TIMEOUT = 5_000  # milliseconds without a heartbeat after which others take over a worker's jobs
IDLE_WAIT = 200  # milliseconds between polls of an empty queue, at most
REDIS_WAIT = 1.0  # seconds between attempts of a job that lost Redis
TURN_WAIT = 0.2  # seconds between attempts to take a CV while all that wait are of users at their share
EXTRACTOR = str(Path(extract.__file__).parent)
EXTRACT_TIMEOUT = 60  # seconds; longer than the extractor's own limit, for a busy machine
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
    """Process the CV whose turn it is, which may be another. Without Redis it waits and repeats."""
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
        except RedisError as error:
            logger.warning("CV %s waits for Redis: %s", cv_id, error)
            time.sleep(REDIS_WAIT)


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
            raise extract.Refused(
                f"The other CVs of this upload took {settings.batch_cpu_seconds} seconds of processing, all "
                "that one upload may take. Upload this CV again, with fewer others."
            )
        text, seconds = _extract(kind, path)
        progress.advance(cv, "analysing", seconds)
        result = analyse(text, settings.phone_region)
    except RedisError:
        raise
    except extract.Refused as refused:
        logger.info("CV %s failed: %s", cv["cv_id"], refused)
        progress.advance(cv, "failed", refused.seconds, error=str(refused))
    except Exception:
        logger.exception("CV %s failed with an internal error", cv["cv_id"])
        progress.advance(
            cv, "failed", error="The CV could not be processed because of an internal error. Upload it again."
        )
    else:
        progress.advance(cv, "done", result=result)


class _Extractor(subprocess.Popen[bytes]):
    """Also records the processor time that the process took, in seconds."""

    seconds = 0.0

    def _try_wait(self, flags: int) -> tuple[int, int]:
        # The one place where the standard library reaps a child; waitpid reports no times.
        try:
            pid, status, usage = os.wait4(self.pid, flags)
        except ChildProcessError:
            return self.pid, 0
        self.seconds = usage.ru_utime + usage.ru_stime
        return pid, status


def _extract(kind: str, path: Path) -> tuple[str, float]:
    """Return the file's text and the seconds of processor time that the extractor took. Raises Refused.

    The extractor is a process without secrets.
    """
    if not path.exists():
        raise extract.Refused("The uploaded file is no longer on the server. Upload it again.")
    with _Extractor(
        [sys.executable, "-I", EXTRACTOR, kind, str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
    ) as child:
        try:
            stdout, stderr = child.communicate(timeout=EXTRACT_TIMEOUT)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise extract.Refused(extract.TOO_MUCH, child.seconds) from None
    output = stdout.decode("utf-8", "replace")
    if child.returncode == 0:
        return output, child.seconds
    logger.info(
        "The extractor exited with %s: %s", child.returncode, stderr[-2000:].decode("utf-8", "replace")
    )
    if child.returncode == extract.REFUSED:
        raise extract.Refused(output, child.seconds)
    if child.returncode < 0:  # by a signal: out of time, or a crashed parser
        raise extract.Refused(extract.TOO_MUCH, child.seconds)
    raise RuntimeError(f"the extractor exited with status {child.returncode}")
