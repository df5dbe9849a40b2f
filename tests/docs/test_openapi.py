"""The OpenAPI description of the gateway is OpenAPI 3.1, and names what the structs and the settings say."""

import json

from openapi_spec_validator import OpenAPIV31SpecValidator

from clickscore.stream.gateway.openapi import OPERATIONS, openapi
from docs.generate import ROOT


def test_description_is_openapi_3_1() -> None:
    description = json.loads((ROOT / "docs/openapi.json").read_text())
    assert description == openapi()
    assert list(map(str, OpenAPIV31SpecValidator(description).iter_errors())) == []


def test_every_path_stands_in_the_page_or_is_the_description_itself() -> None:
    page = (ROOT / "docs/gateway.md").read_text()
    for operation in OPERATIONS:
        start = operation.path.partition("{")[0]
        assert start in page, operation.path


def test_events_keep_their_tag() -> None:
    schemas = openapi()["components"]["schemas"]
    assert schemas["View"]["properties"]["type"]["enum"] == ["view"]
    assert schemas["Event"]["discriminator"]["propertyName"] == "type"
