"""The session: its user, sign-in with a provider's token, sign-out; and the demo's sign-in."""

import time
from typing import Annotated

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from app.api.deps import OwnOrigin
from app.sessions import COOKIE, InvalidSession
from app.state import state_of

DEMO_SECONDS = 12 * 3600  # that a demo session lasts
COOKIE_BYTES = 4096  # of name and value together; browsers silently drop a larger cookie

router = APIRouter(prefix="/api/v1/session")


class SignIn(BaseModel):
    """The user id to sign in with."""

    user_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")]


@router.get("")
async def read(request: Request) -> JSONResponse:
    """Return the user of the cookie's session, or how to sign in."""
    state = state_of(request)
    demo = {"demo_sign_in": state.settings.demo_sign_in}
    try:
        session = await state.sessions.verify(request.cookies.get(COOKIE))
    except InvalidSession as error:
        return JSONResponse({"detail": str(error), **demo, "sign_in_url": state.settings.sign_in_url}, 401)
    return JSONResponse({"user_id": session.subject, **demo})


@router.post("", status_code=204, dependencies=[OwnOrigin])
async def sign_in(request: Request, response: Response, body: SignIn | None = None) -> None:
    """Exchange a bearer token for the cookie; or sign in under any name, where the demo allows it."""
    state = state_of(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        await _exchange(request, response, token.strip())
        return
    if not state.settings.demo_sign_in:
        raise HTTPException(
            404, "The demo's sign-in is off. Send the provider's token: Authorization: Bearer TOKEN."
        )
    if body is None:
        raise HTTPException(422, "user_id is missing: send a name.")
    _set_cookie(response, state.sessions.issue(body.user_id, DEMO_SECONDS), DEMO_SECONDS)


async def _exchange(request: Request, response: Response, token: str) -> None:
    # Not an ambient credential: another site's page can't send this header without CORS, which is off.
    try:
        session = await state_of(request).sessions.verify(token)
    except InvalidSession as error:
        raise HTTPException(401, str(error), {"WWW-Authenticate": 'Bearer error="invalid_token"'}) from None
    size = len(COOKIE) + len(token)
    if size > COOKIE_BYTES:
        raise HTTPException(
            422,
            f"The token is too large: as a cookie it takes {size} bytes, and browsers keep {COOKIE_BYTES}. "
            "Send the provider's ID token instead of an access token, or have fewer claims put into it.",
        )
    _set_cookie(response, token, max(1, int(session.expires - time.time())))


def _set_cookie(response: Response, token: str, seconds: int) -> None:
    response.set_cookie(COOKIE, token, seconds, secure=True, httponly=True, samesite="lax")


@router.delete("", status_code=204, dependencies=[OwnOrigin])
async def sign_out(response: Response) -> None:
    """Remove the cookie."""
    response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax")
