"""What is done with texts that others write takes time linear in their length, whatever they are."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from scale import text as text_module
from scale.data import text_keys
from scale.rewards import extraction, spelling, values
from scale.text import narrow

ROOT = Path(__file__).parents[2]

HANG = 100
"""Seconds that only a time quadratic in the length exceeds, also on a busy machine."""

ORDERS = [
    st.text(st.sampled_from("\u0301\u0323\u0327\u0344\u0345\u0f71\u0f73\u0f75\u0f81\u3099aé각漢1"), max_size=200),
    st.text(st.characters(min_codepoint=0x300, max_codepoint=0x36F), min_size=60, max_size=100),
    st.text(st.characters(exclude_categories=[]), max_size=100),
]


@given(st.one_of(ORDERS), st.integers(0, 3))
def test_fuzz_narrow(text, copies):
    """It is NFC, as Python finds it: marks that are sorted before are sorted alike."""
    text = f"1{text * copies}１漢{text}x"
    assert narrow(text) == unicodedata.normalize("NFC", text.translate(text_module._WIDTH))
    assert text_module._in_order(text) == unicodedata.normalize("NFD", text)


def run(code):
    """Run a statement in a process of its own, which can be ended whatever it computes."""
    modules = "from scale import text\nfrom scale.data import text_keys\nfrom scale.rewards import extraction, spelling"
    command = f"{modules}\n{code}"
    subprocess.run([sys.executable, "-c", command], cwd=ROOT, timeout=HANG, check=True)


@pytest.mark.parametrize(
    "call",
    [
        r"spelling.same_text('\\text{' * 140_000 + '}' * 140_000)",
        r"spelling.plain('是' + '\\text{' * 140_000 + '}' * 140_000)",
        r"extraction.extract('\\boxed{' * 1_000_000 + '}' * 1_000_000)",
        "text.narrow('\u0301\u0323' * 500_000)",
        "text.narrow('\u0301\u0f73' * 500_000)",
        "text_keys.answer_form('$' * 10_000_000)",
    ],
)
def test_what_was_quadratic(call):
    run(call)


@pytest.mark.parametrize(
    "call",
    [
        """files.parse_json('{' + ','.join(f'"{i}":1' for i in [*range(300_000), 299_999]) + '}', 'a.json')""",
        "formats._require_distinct('a.csv', [str(i) for i in [*range(300_000), 299_999]])",
    ],
)
def test_a_name_that_is_there_twice_is_found_among_many(call):
    """Of objects in JSON, and of the columns of a table."""
    run(
        "import contextlib\nfrom scale.data import formats\nfrom theory.base import files\n"
        f"with contextlib.suppress(ValueError):\n    {call}\n    raise AssertionError('not found')"
    )


FUNCTIONS = {
    f"{module.__name__}.{name}": function
    for module in (extraction, spelling, values, text_module, text_keys)
    for name, function in vars(module).items()
    if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    if next(iter(inspect.signature(function).parameters.values())).annotation == "str"
}
"""Every public function whose first argument is a text."""

WORDS = (
    r"$ \text{ \text \mathrm{ \boxed{ \boxed{1} \boxed \frac{ { } {} {1} \{ \} \ \, \; \quad \( \) \[ \] \[1\] \$ $1$ "
    r"$$ % \% percent \text{percent} ^ _ 1 0 12 123, 1, 1\, 1{,} {,} 1~ 1. 0. . .. / 1/ 1e3 e 1E + - +1 x A ( [ < ° ~ "
    "* ** answer answer: answeris: Answer: and or inf infinity ∞ 答案 答案是 是 元 或 和 、 。 １ ： ， \u3000 \u200b "
    r"<answer> </answer> <think> </think> <|im_end|> </s> #### `` ~ $x $$1$$ is = or, if (and not ? 5? \\ \\[1] & \cup "
    r"\boxed1 \boxed{} \boxed{1}\text{and} \text{or} \left( \begin{a} {\text{ "
    "\ud800 \0 é e\u0301 \u0301 \u0323\u0301 \u0f73 \u0f73\u0301 가 각 ﬁ ² − ٣"
)
SPACED = [
    *(" ", "\n", "\t", "1 ", "1 2/3 ", "1 / ", "a\n", "answer: ", "answer is ", " and ", "\\text ", "\\boxed "),
    *(
        "the answer is 5 ",
        "\nAnswer: ",
        "answer  ",
        "the answer to the problem is ",
        "the final ",
        "5 apples or ",
        "5 (x ",
    ),
    *("\n#### 5", "is not ", "if x = 1, the answer ", "the value is ", "answer (x) ", "\\boxed{1} and ", "\\boxed 1 "),
    "\\boxed{1} x_2 = ",
]
UNITS = [*WORDS.split(" "), *SPACED]

LENGTH = 100_000


def hostile(unit):
    """Return texts that are long for a unit: alone, after a digit, in a box, half open, and around another answer."""
    times = LENGTH // len(unit)
    yield unit * times
    yield f"1{unit * times}1"
    yield f"\\boxed{{是{unit * times}}}"
    yield unit * (times // 2) + "}" * (LENGTH // 2)
    yield f"answer: {unit * (times // 2)}x{unit * (times // 2)}."


def test_all_functions_are_tried():
    assert FUNCTIONS.keys() >= {
        "scale.rewards.extraction.extract",
        "scale.rewards.values.value",
        "scale.rewards.spelling.plain",
        "scale.rewards.spelling.same_text",
        "scale.text.boxes",
        "scale.text.narrow",
        "scale.data.text_keys.answer_form",
        "scale.data.text_keys.strip_template",
    }


@pytest.mark.long
@pytest.mark.parametrize("name", FUNCTIONS)
def test_time_is_linear(name):
    """At most a tenth of a second of CPU time, usually; in quadratic time it is several seconds, and often minutes."""
    for unit, number in itertools.product(UNITS, range(5)):
        text = next(itertools.islice(hostile(unit), number, None))
        start = time.process_time()
        with contextlib.suppress(ValueError):  # no template of this name, or half of one
            FUNCTIONS[name](text)
        assert time.process_time() - start < 3, (unit, number)
