"""The normal form of problems and answers, and templates that are taken off whole."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given, strategies as st

from scale.data import text_keys


@example("a\u200b\u0301 ａ\u0301")  # a letter and an accent that become one
@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_normal_form(text):
    """It is its own normal form, and spaces and widths do not change it."""
    form = text_keys.normalize(text)
    assert text_keys.normalize(form) == form
    assert text_keys.normalize(f"  {text}\n\u3000") == form
    wide = "".join(chr(ord(x) + 0xFEE0) if "!" <= x <= "~" else x for x in form)
    assert text_keys.prompt_key(wide) == text_keys.prompt_key(form)


@pytest.mark.parametrize(("one", "other"), [("x²", "x2"), ("x", "X"), ("1 2", "12"), ("a-b", "ab"), ("½", "1/2")])
def test_different_problems_stay_different(one, other):
    assert text_keys.prompt_key(one) != text_keys.prompt_key(other)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("025", "25", True),
        ("27.0", "27", True),
        (" $3$ ", "3", True),
        ("$$3$$", "3", True),
        ("$$x$", "$x", True),
        ("$x$$", "x$", True),
        ("$$$", "$", True),
        ("-0", "0", True),
        ("1.50", "1.5", True),
        ("\\frac{1} {2}", "\\frac{1}{2}", True),
        ("3", "-3", False),
        ("$3", "3", False),
        ("10", "1", False),
        ("0.5", "\\frac{1}{2}", False),
        ("1,2", "2,1", False),
    ],
)
def test_answers_that_agree(one, other, same):
    """Only spellings that are surely the same agree."""
    assert (text_keys.answer_form(one) == text_keys.answer_form(other)) is same


KNOWN = {**text_keys.TEMPLATES, **text_keys.OTHERS}
POSED = {name: template.messages("{}")[-1]["content"] for name, template in KNOWN.items()}
SUFFIXES = {name: x.after.strip() for name, x in KNOWN.items() if x.after and not x.before}
PIECES = [x for template in KNOWN.values() for x in (template.before, template.after) if x]
LIKE_PROBLEMS = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from([*PIECES, *(x[: len(x) // 2] for x in PIECES), "Find $x$.", " ", "\n"]), max_size=4).map(
        "".join
    ),
)


def has_a_template(text):
    try:
        return text_keys.strip_template(text) != text
    except ValueError:  # a half
        return True


@pytest.mark.parametrize("name", KNOWN)
@given(problem=LIKE_PROBLEMS)
def test_every_template_is_taken_off(name, problem):
    """To the very character; and its key is the plain problem's."""
    assume(not has_a_template(problem))
    found = text_keys.strip_template(POSED[name].replace("{}", problem, 1))
    assert found == problem
    assert text_keys.prompt_key(found) == text_keys.prompt_key(problem)


@pytest.mark.parametrize("one", KNOWN)
@pytest.mark.parametrize("other", KNOWN)
def test_templates_within_one_another(one, other):
    posed = POSED[one].replace("{}", POSED[other].replace("{}", "Find $x$.", 1), 1)
    assert text_keys.strip_template(posed) == "Find $x$."


@pytest.mark.parametrize("name", SUFFIXES)
@pytest.mark.parametrize("joint", [" ", "\n", "\n\n", "", " \n\t"])
def test_a_request_after_any_space_or_before(name, joint):
    asked = SUFFIXES[name]
    for posed in (f"Find $x$.{joint}{asked}", f"Find $x$.{joint}{asked}\n", f"{asked}{joint}Find $x$."):
        assert text_keys.prompt_key(text_keys.strip_template(posed)) == text_keys.prompt_key("Find $x$."), posed
    assert text_keys.strip_template(f"Find $x$.{joint}{asked.removesuffix('.')}").strip() == "Find $x$."
    assert text_keys.strip_template(f"Find{joint}{asked} $x$.") == f"Find{joint}{asked} $x$."


def test_half_a_template():
    """Of one with two parts it is an error, also under another's request; half a request is the problem's own."""
    before, after = text_keys.TEMPLATES["dapo"].before, text_keys.TEMPLATES["dapo"].after
    for half, kind in ((f"{before}Find $x$.", "begins"), (f"Find $x$.{after}", "ends")):
        for posed in (half, *(POSED[name].replace("{}", half, 1) for name in SUFFIXES)):
            with pytest.raises(ValueError, match=f"the whole template 'dapo' or none of it, got .* only {kind} so"):
                text_keys.strip_template(posed)
    for asked in SUFFIXES.values():
        for part in (asked[:40], asked[40:]):
            assert text_keys.strip_template(f"Find $x$. {part}") == f"Find $x$. {part}"


def test_a_template_is_taken_off_whole():
    """Whatever spaces end the message; a text without it is left alone."""
    posed = text_keys.TEMPLATES["dapo"].messages("Find $x$.")[0]["content"]
    assert text_keys.strip_template(f"{posed} \n") == "Find $x$."
    assert text_keys.strip_template("Find $x$. ") == "Find $x$. "


def test_requests_of_others():
    """Word for word: of the example in slime's documentation, and of verl's gsm8k.py."""
    slime = (
        "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
        "\\boxed{$Answer} where $Answer is the answer to the problem.\n\nFind $x$.\n\n"
        'Remember to put your answer on its own line after "Answer:".'
    )
    gsm8k = 'Find $x$. Let\'s think step by step and output the final answer after "####".'
    assert text_keys.strip_template(slime) == text_keys.strip_template(gsm8k) == "Find $x$."
    with pytest.raises(ValueError, match="the whole template 'slime' or none of it, got one that only begins so"):
        text_keys.strip_template(slime[:200])


def test_what_is_taken_off_is_never_nothing():
    """Nothing could be taken off a problem again and again."""
    assert all(before or after for before, after in text_keys._wrappings())
