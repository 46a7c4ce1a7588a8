"""Finding strings in texts: which occurrence is taken, and what is said about it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_relx.data.align import SEVERAL, align

INSIDE = "found only inside another mention"


def found(text: str, *surfaces: str) -> dict[str, tuple[str, int]]:
    return {surface: (text[place.start : place.end], place.start) for surface, place in align(text, surfaces).items()}


def test_the_first_whole_word_is_taken() -> None:
    assert found("Stone left St in St .", "St") == {"St": ("St", 11)}
    assert align("Stone left St in St .", ["St"])["St"].notes == (SEVERAL,)
    assert align("Stone left St .", ["St"])["St"].notes == ()


def test_longer_strings_are_placed_first_and_shorter_ones_elsewhere() -> None:
    text = "The New York Times of New York is old ."
    assert found(text, "New York", "New York Times") == {
        "New York": ("New York", 22),
        "New York Times": (text[4:18], 4),
    }
    inside = align("The New York Times is old .", ["New York", "New York Times"])["New York"]
    assert (inside.start, inside.end, inside.notes) == (4, 12, (INSIDE,))


@pytest.mark.parametrize(
    ("text", "surface", "note"),
    [
        ("ACME is here", "Acme", "found only in another case"),
        ("a trip to Cancun", "Cancún", "found only without its accents"),
        ("on Main Street", "St", "found only inside a word"),
    ],
)
def test_second_choices_are_told(text: str, surface: str, note: str) -> None:
    assert align(text, [surface])[surface].notes == (note,)


def test_letters_that_grow_in_lower_case_do_not_move_offsets() -> None:
    assert found("İİ and ACME", "Acme") == {"Acme": ("ACME", 7)}


def test_what_is_not_there_is_left_out() -> None:
    assert align("nobody", ["somebody", "", " "]) == {}


def test_marks_of_regular_expressions_are_letters_like_others() -> None:
    assert found("see (a+b)* here", "(a+b)*", "a+b") == {"(a+b)*": ("(a+b)*", 4), "a+b": ("a+b", 5)}


@given(st.text("ab é", max_size=12), st.lists(st.text("ab é", max_size=3), max_size=4))
def test_places_are_in_the_text_and_read_like_the_string(text: str, surfaces: list[str]) -> None:
    for surface, place in align(text, surfaces).items():
        assert surface in surfaces
        assert len(text[place.start : place.end]) == len(surface)
        if "accents" not in "".join(place.notes):
            assert text[place.start : place.end] == surface
