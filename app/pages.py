"""The frontend's built files."""

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_SECURITY = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_ABSENT = "<!doctype html><title>screen-flow</title><p>The api is running; its page was not built."


class Pages(StaticFiles):
    """The build's files. Names under assets/ contain a hash of the content, so these are cached forever."""

    def __init__(self, folder: Path) -> None:
        super().__init__(directory=folder, html=True, check_dir=False)
        self._folder = folder

    async def check_config(self) -> None:
        """Accept a missing folder: the api also runs without a page."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the file, or a placeholder when no page was built. Raises HTTPException 404 and 405."""
        try:
            response = await super().get_response(path, scope)
        except HTTPException as error:
            if error.status_code != 404 or path != "." or (self._folder / "index.html").exists():
                raise
            response = HTMLResponse(_ABSENT)
        immutable = path.startswith("assets/") and response.status_code in (200, 304)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if immutable else "no-cache"
        response.headers.update(_SECURITY)
        return response
