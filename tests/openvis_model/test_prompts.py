import pytest

from openvis_model.prompts import Prompt, parse_prompt, parse_prompts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5s: box 10 20 200 180 = my cup", Prompt(seconds=0.5, box=(10, 20, 200, 180), name="my cup")),
        ("0.5s: box 10,20,200,180 = my cup", Prompt(seconds=0.5, box=(10, 20, 200, 180), name="my cup")),
        (" frame 12 : point 3 4", Prompt(frame=12, points=((3, 4),), name="object 1")),
        (
            "2s: point 3,4, point 5 6, not 7, 8=a: b = c",
            Prompt(seconds=2.0, points=((3, 4), (5, 6)), excluded=((7, 8),), name="a: b = c"),
        ),
        (
            "1.25 s: box 1 2 3 4 not 2 2 = x",
            Prompt(seconds=1.25, box=(1, 2, 3, 4), excluded=((2, 2),), name="x"),
        ),
    ],
)
def test_a_prompt_and_its_text(text: str, expected: Prompt) -> None:
    prompt = parse_prompt(text, "object 1")
    assert prompt == expected
    assert parse_prompt(str(prompt), "another") == prompt


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("0.5s box 1 2 3 4", "p 3: '0.5s box 1 2 3 4' is not TIME: WHERE = NAME; write for example 0.5s: box"),
        ("5: box 1 2 3 4", "the time is '5'; write seconds as 0.5s, or frame 12"),
        ("-1s: box 1 2 3 4", "the time is '-1s'"),
        ("1s: box 1 2 3", "'box 1 2 3' is not understood; write box LEFT TOP WIDTH HEIGHT"),
        ("1s: box 1 2 3 4.5", "'box 1 2 3 4.5' is not understood"),
        ("1s: circle 1 2 3", "'circle 1 2 3' is not understood"),
        ("1s: box 1 2 3 4, box 5 6 7 8", "has 2 boxes; give each object a prompt of its own"),
        ("1s: not 1 2", "has neither a box nor a point of the object"),
        ("1s: = cup", "has neither a box nor a point of the object"),
        ("1s: point 1 2 =", "its name is empty; write one after =, or leave out the ="),
    ],
)
def test_a_bad_prompt_is_named(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=r"^p 3: ") as raised:
        parse_prompt(text, "object 1", "p 3")
    assert error in str(raised.value)


def test_prompts_without_a_name_are_numbered() -> None:
    prompts = parse_prompts([("a", "1s: point 1 2 = cup"), ("b", "1s: point 3 4")])
    assert [(prompt.name, prompt.place) for prompt in prompts] == [("cup", "a"), ("object 2", "b")]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("1s: box 90 0 10 80", None),
        ("1s: box 91 0 10 80", "1s: box 91 0 10 80 = o: the box is not within the frame: the video is 100 x 80 pixels"),
        ("1s: box 0 0 0 80", "the box is not within"),
        ("1s: point 99 79", None),
        ("1s: point 99 80", "the point 99 80 is not within"),
        ("1s: point 0 0 not 100 0", "the point 100 0 is not within"),
    ],
)
def test_a_prompt_lies_within_the_frame(text: str, error: str | None) -> None:
    prompt = parse_prompt(text, "o")
    if error is None:
        prompt.check_within(width=100, height=80)
    else:
        with pytest.raises(ValueError, match=error):
            prompt.check_within(width=100, height=80)
