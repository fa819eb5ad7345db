"""/docs: the description of the routes as a page that asks nothing of the network and runs no
script. What is shown comes from openapi.json, which stays the one place that says it."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any
from urllib.parse import quote

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.5rem; }
code, pre { font: 14px/1.45 ui-monospace, monospace; background: #f2f2f2; border-radius: 4px; }
code { padding: 0 .25em; } pre { padding: .75rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0;
  border-top: 1px solid #ddd; }
@media (prefers-color-scheme: dark) {
  body { color: #e8e8e8; background: #161616; } code, pre { background: #262626; }
  td, th { border-color: #444; } a { color: #9ecbff; } }
"""


HOST = re.compile(r"([A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


def address_of(scheme: str, host: str | None, server: tuple[str, int | None] | None) -> str:
    """Where whoever asks has reached this server: by the Host header of the request or, where that
    is none or an odd one, by the address and port that the connection came to."""
    if host is None or not HOST.fullmatch(host):
        name, port = server or ("localhost", None)
        name = f"[{name}]" if ":" in name else name
        host = name if port is None else f"{name}:{port}"
    return f"{scheme}://{host}"


def docs_page(described: Mapping[str, Any], address: str) -> str:
    """The page; its commands ask the server at `address`."""
    title = escape(described["info"]["title"])
    secured = "security" in described
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="stylesheet" href="/docs.css"></head><body><main>',
        f"<h1>{title}</h1><p>{escape(described['info']['description'])} The same for programs: "
        '<a href="/openapi.json">openapi.json</a>. To try it: <a href="/">the page</a>.</p>',
    ]
    if secured:
        parts.append(
            "<p>Requests bring a token: <code>Authorization: Bearer TOKEN</code>. The commands "
            "below take it from the variable <code>TOKEN</code>.</p>"
        )
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            parts += route_parts(method.upper(), path, route, address, secured)
    return "\n".join([*parts, "</main></body></html>"])


def route_parts(
    method: str, path: str, route: Mapping[str, Any], address: str, secured: bool
) -> Iterator[str]:
    """One route: what it is, how to ask it, its fields, what may come back."""
    yield f"<h2><code>{method} {escape(path)}</code></h2><p>{escape(route['summary'])}.</p>"
    yield f"<pre>{escape(curl_line(path, route, address, secured))}</pre>"
    if "requestBody" in route:
        schema = route["requestBody"]["content"]["application/json"]["schema"]
        yield "<table><thead><tr><th>field</th><th>what it takes</th></tr></thead><tbody>"
        for name, value in schema["properties"].items():
            needed = " (needed)" if name in schema["required"] else ""
            shown = escape(kind_of(value))
            more = f"; {escape(value['description'])}" if "description" in value else ""
            yield f"<tr><td><code>{escape(name)}</code>{needed}</td><td>{shown}{more}</td></tr>"
        yield "</tbody></table>"
    yield "<table><thead><tr><th>status</th><th>when</th></tr></thead><tbody>"
    for status, answer in route["responses"].items():
        yield f"<tr><td>{status}</td><td>{escape(answer['description'])}</td></tr>"
    yield "</tbody></table>"


def curl_line(path: str, route: Mapping[str, Any], address: str, secured: bool) -> str:
    """The command that asks a route of the server at `address`."""
    words = ["curl"]
    for parameter in route.get("parameters", ()):
        path = path.replace(f"{{{parameter['name']}}}", quote(parameter["example"]))
    if secured and path not in ("/health", "/ready"):
        words.append('-H "Authorization: Bearer $TOKEN"')
    if "requestBody" in route:
        body = json.dumps(route["requestBody"]["content"]["application/json"]["example"])
        words += ["-H 'Content-Type: application/json'", f"-d {shlex.quote(body)}"]
    return " ".join([*words, shlex.quote(f"{address}{path}")])


def kind_of(schema: Mapping[str, Any]) -> str:
    """A schema in words."""
    if "anyOf" in schema:
        return " or ".join(kind_of(part) for part in schema["anyOf"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return ", ".join(json.dumps(value) for value in schema["enum"])
    if schema.get("type") == "array":
        few = {(1, 1): "one ", (2, 2): "two "}
        count = few.get((schema.get("minItems", 0), schema.get("maxItems", 0)), "")
        return f"[{count}{kind_of(schema['items'])}{'' if count else ', …'}]"
    if schema.get("type") == "object":
        return "{" + ", ".join(schema.get("properties", ())) + "}"
    bounds = [f"{schema[key]}" for key in ("minimum", "maximum") if key in schema]
    named = {"string": "text", "boolean": "true or false", "integer": "whole number"}
    kind = named.get(schema.get("type", ""), schema.get("type", "anything"))
    if len(bounds) == 1:
        return f"{kind}, {bounds[0]} or {'more' if 'minimum' in schema else 'less'}"
    return kind + (f", {' to '.join(bounds)}" if bounds else "")
