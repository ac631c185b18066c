"""Dependencies shared by routes: the signed-in user and the page's origin."""

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
    """Refuse changes requested by pages of other sites. Raises HTTPException 403.

    Browsers always send Origin with such requests; other clients may omit it.
    """
    origin = request.headers.get("origin")
    if origin is not None and origin not in state_of(request).settings.allowed_origins:
        raise HTTPException(403, f"Requests from {origin[:200]} are not accepted; see APP_ALLOWED_ORIGINS.")


UserId = Annotated[str, Depends(signed_in)]
OwnOrigin = Depends(own_origin)
