"""Who am I? And, for the demo only, a sign-in for anybody."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from app.api.deps import OwnOrigin
from app.sessions import COOKIE, InvalidSession
from app.state import state_of

DEMO_SECONDS = 12 * 3600  # that a demo session lasts

router = APIRouter(prefix="/api/v1/session")


class SignIn(BaseModel):
    """The name to sign in under."""

    user_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")]


@router.get("")
async def read(request: Request) -> JSONResponse:
    """Tell whose session the cookie is."""
    state = state_of(request)
    demo = {"demo_sign_in": state.settings.demo_sign_in}
    try:
        session = await state.sessions.verify(request.cookies.get(COOKIE))
    except InvalidSession as error:
        return JSONResponse({"detail": str(error), **demo}, 401)
    return JSONResponse({"user_id": session.subject, **demo})


@router.post("", status_code=204, dependencies=[OwnOrigin])
async def sign_in(body: SignIn, request: Request, response: Response) -> None:
    """Sign in under any name, where the demo allows it."""
    state = state_of(request)
    if not state.settings.demo_sign_in:
        raise HTTPException(404, "The demo's sign-in is off; use the site's own.")
    token = state.sessions.issue(body.user_id, DEMO_SECONDS)
    response.set_cookie(COOKIE, token, DEMO_SECONDS, secure=True, httponly=True, samesite="lax")


@router.delete("", status_code=204, dependencies=[OwnOrigin])
async def sign_out(response: Response) -> None:
    """Forget the session."""
    response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax")
