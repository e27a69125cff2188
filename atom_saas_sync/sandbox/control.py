"""The control API under `/_sandbox/`, which tests and users call to change a running sandbox.

It accepts loopback clients only, so it needs no token. Each route calls the `Marketplace` method of the same name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from atom_saas_sync.errors import UsageError
from atom_saas_sync.sandbox.encoding import to_json
from atom_saas_sync.sandbox.faults import fault_from

if TYPE_CHECKING:
    from atom_saas_sync.sandbox.catalogue import Json
    from atom_saas_sync.sandbox.marketplace import Marketplace

    Handler = Callable[[Marketplace, str, Json], Any]

_LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1", "[::1]")


def _skill_changes(body: Json) -> Json:
    return {key: value for key, value in body.items() if key in ("position", "push", "touch")}


def _delete_skill(sandbox: Marketplace, skill_id: str, body: Json) -> None:
    sandbox.delete_skill(skill_id, push=body.get("push", True))


def _push(sandbox: Marketplace, _: str, body: Json) -> Json:
    message = body["text"] if "text" in body else body["message"]
    return {"listeners": sandbox.push(message)}


def _set(sandbox: Marketplace, _: str, body: Json) -> None:
    setters: dict[str, Callable[[Any], None]] = {
        "clock_offset": sandbox.set_clock_offset,
        "latency": sandbox.set_latency,
        "bandwidth": sandbox.set_bandwidth,
        "rate_limit": sandbox.set_rate_limit,
        "silent": sandbox.silence,
        "token": lambda token: setattr(sandbox, "token", token),
    }
    for name, value in body.items():
        setters[name](value)


def _faults(sandbox: Marketplace, _: str, __: Json) -> Json:
    return {"faults": [{"number": n, "strikes": s, **asdict(fault)} for n, (fault, s) in sandbox.faults().items()]}


# Method, path, action. `{name}` is the rest of the path; bodies are JSON objects.
ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/state", lambda sandbox, _, __: sandbox.summary()),
    ("GET", "/requests", lambda sandbox, _, __: {"requests": sandbox.journal.documents()}),
    ("GET", "/ratings", lambda sandbox, _, __: {"ratings": sandbox.ratings()}),
    ("GET", "/messages", lambda sandbox, _, __: {"messages": [str(message) for message in sandbox.ws_messages()]}),
    ("GET", "/skills/{name:path}", lambda sandbox, name, _: sandbox.skill(name)),
    ("PUT", "/skills", lambda sandbox, _, body: sandbox.put_skill(body["skill"], **_skill_changes(body))),
    (
        "PATCH",
        "/skills/{name:path}",
        lambda sandbox, name, body: sandbox.patch_skill(name, body["fields"], **_skill_changes(body)),
    ),
    ("DELETE", "/skills/{name:path}", _delete_skill),
    ("PUT", "/categories/{name:path}", lambda sandbox, name, body: sandbox.put_category(name, **body)),
    ("POST", "/ratings", lambda sandbox, _, body: sandbox.add_rating(**body)),
    ("GET", "/faults", _faults),
    ("POST", "/faults", lambda sandbox, _, body: {"number": sandbox.fault(fault_from(body))}),
    ("DELETE", "/faults", lambda sandbox, _, body: sandbox.clear_faults(body.get("number"))),
    ("POST", "/set", _set),
    ("POST", "/reset", lambda sandbox, _, __: sandbox.reset()),
    ("POST", "/warm", lambda sandbox, _, body: {"pages": sandbox.warm(**body)}),
    ("POST", "/push", _push),
    ("POST", "/push_bad", lambda sandbox, _, body: {"listeners": sandbox.push_bad(**body)}),
    ("POST", "/flood", lambda sandbox, _, body: sandbox.flood(**body)),
    ("POST", "/close", lambda sandbox, _, body: sandbox.close_ws(**body)),
    ("POST", "/drop", lambda sandbox, _, body: sandbox.drop_ws(**body)),
)


def control_app(sandbox: Marketplace) -> Starlette:
    """Return the application for `/_sandbox/`."""
    routes = [Route(path, _endpoint(sandbox, handler), methods=[method]) for method, path, handler in ROUTES]
    return Starlette(routes=[Mount("/_sandbox", routes=routes)])


def _endpoint(sandbox: Marketplace, handler: Handler) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        if not _is_local(request):
            return _answer({"error": "the control API is for loopback only"}, 403)
        try:
            body = await _read_object(request)
            # In a separate thread: the methods of Marketplace wait for the event loop that runs this function.
            result = await asyncio.to_thread(handler, sandbox, request.path_params.get("name", ""), body)
        except UsageError as error:
            return _answer({"error": error.message, "hint": error.hint}, 400)
        except KeyError as error:
            return _answer({"error": f"there is no {error}"}, 404)
        except (TypeError, ValueError) as error:
            return _answer({"error": str(error)}, 400)
        return _answer({} if result is None else result)

    return endpoint


def _answer(document: Any, status: int = 200) -> Response:  # noqa: ANN401 - JSON
    return Response(to_json(document), status, media_type="application/json")


async def _read_object(request: Request) -> Json:
    try:
        body = await request.json() if await request.body() else {}
    except RecursionError as error:
        raise UsageError("the body is nested too deeply") from error
    if not isinstance(body, dict):
        raise UsageError("the body must be a JSON object")
    return body


def _is_local(request: Request) -> bool:
    """Tell whether the request comes from this machine and not from a web page (DNS rebinding)."""
    client = request.client.host if request.client else ""
    return client in _LOOPBACK and request.url.hostname in _LOOPBACK_NAMES and "origin" not in request.headers
