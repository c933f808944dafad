"""The paths of the server: requests in, answers of the service out."""

from http import HTTPStatus
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from rmjax.serve import schemas
from rmjax.serve.forms import read_form
from rmjax.serve.guard import PAGE, Access, Guard, refusal
from rmjax.serve.service import Service
from rmjax.utils.templates import package_environment
from rmjax.utils.versions import own_version

router = APIRouter()

_PAGE = files("rmjax.serve") / "page"
_MEANING = {
    400: "the request ended early, or is no HTTP",
    401: "the token is missing or wrong",
    403: "asked from a page of elsewhere, or by another name",
    404: "there is no such thing here",
    408: "the request took too long to arrive",
    409: "nothing is enrolled that could be asked about",
    413: "the request is too large, or has too many images",
    415: "the request is no multipart form",
    422: "the form is broken or lacks something, or an image can't be taken",
    500: "the server failed; its log says why",
    503: "too many requests at once",
}


def _errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {
        code: {"model": schemas.Error, "description": _MEANING[code]} for code in codes
    }


_OF_UPLOADS = _errors(400, 408, 413, 415, 422, 503)


def _takes(field: str, *texts: str, several: bool = True) -> dict[str, Any]:
    """Describe a form with image files in `field`, and fields that are text."""
    file: dict[str, Any] = {"type": "string", "format": "binary"}
    if several:
        file = {"type": "array", "items": file, "minItems": 1}
    properties = {field: file} | {name: {"type": "string"} for name in texts}
    form = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }
    content = {"multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


def make_app(service: Service, access: Access) -> ASGIApp:
    """Return the server as an ASGI application.

    Args:
        service: what answers.
        access: who may ask.
    """
    app = FastAPI(
        title="rmjax",
        description="Attributes images to the generator that made them.",
        version=own_version(),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=_errors(401, 403, 500),
    )
    app.state.service = service
    app.include_router(router)
    app.mount(PAGE, StaticFiles(packages=[("rmjax.serve", "page")]))
    app.add_exception_handler(HTTPException, _answer_refused)
    app.add_exception_handler(Exception, _answer_failed)
    paths = [route.path for route in router.routes if isinstance(route, APIRoute)]
    return Guard(app, access, service.limits.max_requests, paths, service.metrics)


@router.get("/", include_in_schema=False)
async def show_page() -> Response:
    return FileResponse(str(_PAGE / "index.html"))


@router.get("/docs", include_in_schema=False)
async def show_docs(request: Request) -> Response:
    template = package_environment("rmjax.serve").get_template("docs.html.jinja")
    return Response(template.render(api=request.app.openapi()), media_type="text/html")


@router.get("/healthz", response_model=schemas.Health)
async def check_health() -> Response:
    """Whether the server runs."""
    return JSONResponse({"status": "ok"})


@router.get("/metrics", response_class=Response)
async def read_metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    text = request.app.state.service.metrics.text()
    return Response(text, media_type="text/plain; version=0.0.4")


@router.get("/v1/model", response_model=schemas.Model)
async def describe_model(request: Request) -> Response:
    """Which network it is, and what can be asked."""
    return JSONResponse(await request.app.state.service.describe())


@router.post(
    "/v1/attribute",
    response_model=schemas.Answers,
    responses=_OF_UPLOADS | _errors(409),
    openapi_extra=_takes("images"),
)
async def attribute(request: Request) -> Response:
    """Which source or generator made each image, and how far that can be trusted."""
    service: Service = request.app.state.service
    form = await read_form(request, service.limits)
    images = form.images("images", service.limits.max_images)
    return JSONResponse(await service.attribute(images))


@router.post(
    "/v1/embed",
    response_model=schemas.Fingerprints,
    responses=_OF_UPLOADS,
    openapi_extra=_takes("images"),
)
async def embed(request: Request) -> Response:
    """The fingerprint of each image."""
    service: Service = request.app.state.service
    form = await read_form(request, service.limits)
    images = form.images("images", service.limits.max_images)
    return JSONResponse(await service.embed(images))


@router.post(
    "/v1/explain",
    response_model=schemas.Explanation,
    responses=_OF_UPLOADS,
    openapi_extra=_takes("image", several=False),
)
async def explain(request: Request) -> Response:
    """Where in an image the evidence for its answer lies, and its spectrum."""
    service: Service = request.app.state.service
    form = await read_form(request, service.limits)
    (image,) = form.images("image", 1)
    return JSONResponse(await service.explain(image))


@router.get("/v1/gallery", response_model=schemas.Generators, responses=_errors(404))
async def list_generators(request: Request) -> Response:
    """Which generators are enrolled."""
    return JSONResponse(await request.app.state.service.generators())


@router.post(
    "/v1/gallery",
    response_model=schemas.Enrolled,
    responses=_OF_UPLOADS | _errors(404),
    openapi_extra=_takes("images", "generator"),
)
async def enrol(request: Request) -> Response:
    """Enrol images of a generator; the next answers know it."""
    service: Service = request.app.state.service
    service.find_shelf()  # before anything is uploaded
    form = await read_form(request, service.limits)
    images = form.images("images", service.limits.max_images)
    name = form.texts.get("generator")
    if name is None:
        raise HTTPException(422, "no name: send it in the field 'generator'")
    return JSONResponse(await service.enrol(name, images))


async def _answer_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = error.detail
    if text == HTTPStatus.NOT_FOUND.phrase:
        text = "no such path: /docs lists those that there are"
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # Starlette lists those of one route, and a path may have two.
        methods = _methods(request.url.path) or {"GET", "HEAD"}
        headers["Allow"] = ", ".join(sorted(methods))
        text = f"{request.method} is not for this path: use {headers['Allow']}"
    return refusal(error.status_code, text, headers)


def _methods(path: str) -> set[str]:
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    return {method for r in routes if r.path == path for method in r.methods or ()}


async def _answer_failed(request: Request, error: Exception) -> Response:
    """Answer where the server is at fault; Starlette logs the error."""
    return refusal(500, "the server failed: whoever runs it finds why in its log")
