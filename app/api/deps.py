"""What routes have in common: who asks, and from which page."""

from typing import Annotated

from fastapi import Depends, HTTPException, Request

from app.sessions import COOKIE, InvalidSession
from app.state import state_of


async def signed_in(request: Request) -> str:
    """Return the user's id. Raises HTTPException 401."""
    try:
        return (await state_of(request).sessions.verify(request.cookies.get(COOKIE))).subject
    except InvalidSession as error:
        raise HTTPException(401, str(error)) from None


def own_origin(request: Request) -> None:
    """Refuse a page of another site to change anything. Raises HTTPException 403.

    Browsers always name the page's origin here; programs that aren't browsers may leave it out.
    """
    origin = request.headers.get("origin")
    if origin is not None and origin not in state_of(request).settings.allowed_origins:
        raise HTTPException(403, f"Requests from {origin[:200]} are not accepted; see APP_ALLOWED_ORIGINS.")


UserId = Annotated[str, Depends(signed_in)]
OwnOrigin = Depends(own_origin)
