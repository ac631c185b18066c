"""The worker: takes CVs from the queue, one at a time each thread. Run it with `dramatiq app.worker`."""

import logging
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import TimeLimitExceeded

from app.batches import ACTOR, QUEUE, Progress
from app.extraction import Unreadable, facts_of, text_of
from app.settings import WorkerSettings, load

TIME_LIMIT = 60_000  # milliseconds for one CV: a file made to be slow ends here
TAKEOVER = 15_000  # milliseconds without a sign of life after which another worker takes a worker's jobs
LOOKOUT = 100_000  # of 1,000,000 commands look for such jobs; the library has 1,000

logger = logging.getLogger(__name__)
settings = load(WorkerSettings)
logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
dramatiq.set_broker(
    RedisBroker(url=settings.redis_url, heartbeat_timeout=TAKEOVER, maintenance_chance=LOOKOUT)
)
# Every command may be repeated: a step that is reported already changes nothing.
client = redis.Redis.from_url(settings.redis_url, decode_responses=True, health_check_interval=10)


@dramatiq.actor(actor_name=ACTOR, queue_name=QUEUE, time_limit=TIME_LIMIT, max_retries=20, max_backoff=30_000)
def process_cv(user_id: str, batch_id: str, cv_id: str, kind: str) -> None:
    """Extract one CV and report each step. Raises RedisError; the job is then tried again."""
    progress = Progress(client, user_id, batch_id, cv_id)
    cv: dict[str, Any] | None = progress.cv()
    if cv is None or cv["status"] in ("done", "failed"):
        return
    try:
        progress.advance(cv, "extracting")
        text = text_of(settings.upload_dir / cv_id, kind)
        progress.advance(cv, "analysing")
        progress.advance(cv, "done", result=facts_of(text, settings.phone_region))
    except Unreadable as error:
        logger.info("CV %s of batch %s failed: %s", cv_id, batch_id, error)
        progress.advance(cv, "failed", error=str(error))
    except (TimeLimitExceeded, MemoryError) as error:
        logger.warning("CV %s of batch %s failed: %s", cv_id, batch_id, type(error).__name__)
        progress.advance(cv, "failed", error="The file takes too long to read; export it again, smaller.")
