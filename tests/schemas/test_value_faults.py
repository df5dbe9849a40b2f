"""Value faults: each message of msgspec becomes a sentence that names the field."""

from typing import Annotated, Any, Literal

import msgspec
import pytest

from clickscore.schemas.value_faults import SHOWN_CHARACTERS, describe_fault

Name = Annotated[str, msgspec.Meta(pattern="^[a-z]+$", extra={"words": "have small letters alone"})]
Code = Annotated[str, msgspec.Meta(pattern="^[0-9]+$", extra={"other": 1})]


class Slot(msgspec.Struct, forbid_unknown_fields=True):
    place: Annotated[int, msgspec.Meta(ge=1)]
    factors: dict[str, Annotated[float, msgspec.Meta(gt=0, lt=1)]] = {}


class Mark(msgspec.Struct, array_like=True):
    item: Annotated[str, msgspec.Meta(min_length=1)]
    hashed: Annotated[bytes, msgspec.Meta(min_length=8)]


class Page(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[Name | None, msgspec.Meta(description="its name")] = None
    code: Code = "0"
    letters: Annotated[str, msgspec.Meta(pattern="^a$")] = "a"
    is_open: bool = True
    owner: Annotated[str, msgspec.Meta(min_length=1, max_length=3)] = "me"
    kind: Annotated[Literal["near", "far"] | None, msgspec.Meta(description="how far")] = "far"
    slots: list[Slot] = []
    areas: dict[Name, Slot] = {}
    kinds: dict[Literal["near", "far"], int] = {}
    paths: str | list[Name] | dict[str, int] | None = None
    words: Annotated[tuple[str, ...], msgspec.Meta(max_length=2)] = ()
    marks: list[Mark] = []
    pair: tuple[int, str] = (0, "")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"nam": "a"}, "unknown field nam (did you mean name?)"),
        ({"slots": [{"place": 1, "zzz": 1}]}, "unknown field slots[0].zzz (the fields are place, factors)"),
        ({"slots": [{}]}, "slots[0].place is missing"),
        ({"slots": [{"place": 1}, {"place": 0}]}, "slots[1].place must be at least 1, not 0"),
        ({"areas": {"a": {"place": 1}, "b": {"place": 2.5}}}, "areas.b.place must be a whole number, not 2.5"),
        (
            {"areas": {"a": {"place": 1}, "b": {"place": 1, "factors": {"x": 0.5, "y": 1.0}}}},
            "areas.b.factors.y must be below 1, not 1.0",
        ),
        ({"slots": [{"place": 1, "factors": {"y": 0.0}}, {"place": 1}]}, "slots[0].factors.y must be above 0, not 0.0"),
        ({"areas": {"a": {"place": 1}, "B": {"place": 1}}}, "a name in areas must have small letters alone, not 'B'"),
        ({"kinds": {"near": 1, "here": 1}}, "a name in kinds must be one of far, near, not 'here'"),
        ({"kind": "here"}, "kind must be one of far, near, not 'here'"),
        ({"name": 7}, "name must be text, not 7"),
        ({"name": "A"}, "name must have small letters alone, not 'A'"),
        ({"code": "A"}, "code must match ^[0-9]+$, not 'A'"),
        ({"letters": "b"}, "letters must match ^a$, not 'b'"),
        ({"is_open": "yes"}, "is_open must be true or false, not 'yes'"),
        ({"owner": ""}, "owner must have at least 1 character, not 0"),
        ({"owner": "abcd"}, "owner must have at most 3 characters, not 4"),
        ({"words": ["a", "b", "c"]}, "words must have at most 2 entries, not 3"),
        ({"words": True}, "words must be a list, not true"),
        (
            {"owner": [0] * SHOWN_CHARACTERS},
            f"owner must be text, not {str([0] * SHOWN_CHARACTERS)[:SHOWN_CHARACTERS]}...",
        ),
        ({"paths": 5}, "paths must be text or a table of fields or a list, not 5"),
        ({"paths": ["a", "B"]}, "paths[1] must have small letters alone, not 'B'"),
        ({"paths": {"a": "b"}}, "paths.a must be a whole number, not 'b'"),
        ([], "it must be a table of fields, not []"),
        ({"marks": [["a", b"12345678"], ["", b"12345678"]]}, "marks[1][0] must have at least 1 character, not 0"),
        ({"marks": [["a", b"1234567"]]}, "marks[0][1] must have at least 8 bytes"),
        ({"pair": [0, 1]}, "Expected `str`, got `int` - at `$.pair[1]`"),
    ],
)
def test_fault_is_a_sentence_that_names_the_field(value: Any, sentence: str):
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert(value, Page)
    assert describe_fault(refused.value, value, Page) == sentence


def test_sentence_of_our_own_stays_as_it_is():
    assert describe_fault(msgspec.ValidationError("two pins name the place 1"), {}, Page) == "two pins name the place 1"
