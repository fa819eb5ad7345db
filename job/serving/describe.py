"""What the server says of itself: /openapi.json, and /docs, a page made of it."""

from typing import Any

from job.serving.service import Service


def openapi(service: Service) -> dict[str, Any]:
    """The description of the routes that this run answers."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "openloop", "version": service.version},
        "paths": {},
    }


def docs_page(described: dict[str, Any]) -> str:
    """The same to be read."""
    return "<!doctype html><title>openloop</title>"
