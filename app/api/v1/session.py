"""The current session and, for the demo only, a sign-in without a password."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from app.api.deps import OwnOrigin
from app.sessions import COOKIE, InvalidSession
from app.state import state_of

DEMO_SECONDS = 12 * 3600  # lifetime of a demo session

router = APIRouter(prefix="/api/v1/session")


class SignIn(BaseModel):
    """The user id to sign in with."""

    user_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")]


@router.get("")
async def read(request: Request) -> JSONResponse:
    """Return the user of the session cookie, or 401."""
    state = state_of(request)
    demo = {"demo_sign_in": state.settings.demo_sign_in}
    try:
        session = await state.sessions.verify(request.cookies.get(COOKIE))
    except InvalidSession as error:
        return JSONResponse({"detail": str(error), **demo}, 401)
    return JSONResponse({"user_id": session.subject, **demo})


@router.post("", status_code=204, dependencies=[OwnOrigin])
async def sign_in(body: SignIn, request: Request, response: Response) -> None:
    """Sign in with any user id, if the demo sign-in is enabled; else 404."""
    state = state_of(request)
    if not state.settings.demo_sign_in:
        raise HTTPException(404, "The demo sign-in is disabled; use the site's own.")
    token = state.sessions.issue(body.user_id, DEMO_SECONDS)
    response.set_cookie(COOKIE, token, DEMO_SECONDS, secure=True, httponly=True, samesite="lax")


@router.delete("", status_code=204, dependencies=[OwnOrigin])
async def sign_out(response: Response) -> None:
    """Delete the session cookie."""
    response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax")
