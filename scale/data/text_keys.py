r"""Texts of problems: their normal form, keys, language, and the templates that make prompts of them.

Two rows are the same problem if their normal forms are equal: they then differ only in spaces, the width of characters
(full-width forms of East Asian text) or the composition of accents. A key is a hash of the normal form of the problem
alone, so that it is the same for every template, order and file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from scale.text import narrow
from theory.base import require

_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")

LANGUAGES = ("en", "zh")

BOXED = r"Please reason step by step, and put your final answer within \boxed{}."


def normalize(problem: str) -> str:
    r"""Return the normal form of a problem: `narrow`, with every run of spaces and line ends as one space.

    Examples
    --------
    >>> normalize(" Find\u3000x: \n $x^2 = ４$ ")
    'Find x: $x^2 = 4$'
    """
    return " ".join(narrow(problem).split())


def prompt_key(problem: str) -> str:
    r"""Return a problem's key: the first 16 hexadecimal digits of SHA-256 of the UTF-8 of its normal form.

    The problem is the text without a template.

    Examples
    --------
    >>> prompt_key("1 + 1 = ?"), prompt_key(" 1 +  1 =\n?") == prompt_key("1 + 1 = ?")
    ('02cf971fbe13f9ec', True)
    """
    return hashlib.sha256(normalize(problem).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def loose_form(problem: str) -> str:
    r"""Return letters and digits only, in lower case: by which a problem is looked for in benchmarks.

    Punctuation and LaTeX's spacing do not count here, since copies of a problem differ in them; signs do not count
    either, so a match is a suspicion, not an identity.

    Examples
    --------
    >>> loose_form(r"Find $\sqrt{x} + 1$.") == loose_form(r"find \( \sqrt x+1 \)")
    True
    """
    return "".join(x for x in narrow(problem).lower() if x.isalnum())


def language(text: str) -> str:
    """Return "zh" for a text with a Chinese character, else "en".

    Examples
    --------
    >>> language("求 $x$ 的值"), language("Find $x$")
    ('zh', 'en')
    """
    return "zh" if _CHINESE.search(text) else "en"


_NUMBER = re.compile(r"([+-]?)(\d+)(?:\.(\d*))?", re.ASCII)


def answer_form(answer: str) -> str:
    r"""Return the form by which answers of one problem are compared: 025 is 25, 27.0 is 27, $3$ is 3.

    Only spellings that surely are the same answer meet; two that differ otherwise are a conflict.

    Examples
    --------
    >>> [answer_form(x) for x in (" 025 ", "27.0", "$-3$", "-0", r"\frac{1}{2}")]
    ['25', '27', '-3', '0', '\\frac{1}{2}']
    """
    text = "".join(normalize(answer).split())
    inner = len(text.lstrip("$")), len(text.rstrip("$"))
    pairs = min(len(text) - max(inner), len(text) // 2)
    text = text[pairs : len(text) - pairs]
    number = _NUMBER.fullmatch(text)
    if number is None:
        return text
    sign, whole, part = number[1], number[2].lstrip("0") or "0", (number[3] or "").rstrip("0")
    value = f"{whole}.{part}" if part else whole
    return f"-{value}" if sign == "-" and value != "0" else value


# Templates


@dataclass(frozen=True)
class Template:
    """How a problem becomes chat messages: an optional system message, and a user message around the problem."""

    before: str = ""
    after: str = ""
    system: str = ""

    def messages(self, problem: str) -> list[dict[str, str]]:
        """Return the chat messages that pose a problem."""
        user = {"role": "user", "content": f"{self.before}{problem}{self.after}"}
        return [{"role": "system", "content": self.system}, user] if self.system else [user]


TEMPLATES: Mapping[str, Template] = {
    "boxed": Template(after=f"\n{BOXED}"),
    "qwen-boxed": Template(after=f"\n{BOXED}", system="You are a helpful assistant."),
    "qwen25-math-cot": Template(system=BOXED),
    "verl-boxed": Template(after=r" Let's think step by step and output the final answer within \boxed{}."),
    "dapo": Template(
        before="Solve the following math problem step by step. The last line of your response should be of the form "
        "Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n",
        after='\n\nRemember to put your answer on its own line after "Answer:".',
    ),
    "plain": Template(),
}
r"""Templates by name.

`boxed`: of Cheng et al. (arXiv 2506.14758) for Qwen2.5-Math, the default. `qwen-boxed`, `qwen25-math-cot`: of the
evaluation of Qwen2.5-Math. `verl-boxed`: of verl's examples. `dapo`: of DAPO-Math-17k itself; it asks for a line
"Answer:" instead of a box. `plain`: the problem alone.
"""


OTHERS: Mapping[str, Template] = {
    "slime": Template(
        before="Solve the following math problem step by step. The last line of your response should be of the form "
        "Answer: \\boxed{$Answer} where $Answer is the answer to the problem.\n\n",
        after='\n\nRemember to put your answer on its own line after "Answer:".',
    ),
    "verl-gsm8k": Template(after=' Let\'s think step by step and output the final answer after "####".'),
}
"""Requests that sources have and that we do not write: of slime's copy of DAPO-Math-17k, of verl's GSM8K."""

_KNOWN = {**TEMPLATES, **OTHERS}


def get_template(name: str) -> Template:
    """Return a template by name."""
    require.one_of("template", name, TEMPLATES)
    return TEMPLATES[name]


def strip_template(text: str) -> str:
    r"""Return the problem inside a user message made by one of `TEMPLATES` or `OTHERS`; another text is the problem.

    Templates are looked for again in what is left. Spaces and line ends around the problem may be others than the
    template's. The request of a template that has nothing before the problem may stand before it, or lack its last
    full stop. With one half of a template of two parts the problem is not known: a `ValueError`.

    Examples
    --------
    >>> strip_template(TEMPLATES["dapo"].messages("What is 1+1?")[0]["content"])
    'What is 1+1?'
    >>> strip_template("What is 1+1?\n\nLet's think step by step and output the final answer within \\boxed{}.")
    'What is 1+1?'
    """
    start, end = 0, len(text)
    while (inside := _inside(text, start, end)) is not None:
        start, end = inside
    problem = text[start:end]
    for name, template in _KNOWN.items():
        if template.before and template.after:
            first = problem.lstrip().startswith(template.before.strip())
            if first or problem.rstrip().endswith(template.after.strip()):
                half = "begins" if first else "ends"
                raise ValueError(
                    f"prompt: expected the whole template {name!r} or none of it, got one that only {half} so"
                )
    return problem


def _wrappings() -> list[tuple[str, str]]:
    """Return what may stand before and after a problem, longest first."""
    known = {(x.before, x.after) for x in _KNOWN.values()}
    asked = {after for before, after in known if after and not before}
    known |= {(after.strip(), "") for after in asked} | {("", after.removesuffix(".")) for after in asked}
    return sorted(known - {("", "")}, key=lambda pair: (-len("".join(pair)), pair))


_WRAPPINGS = _wrappings()


def _inside(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Return where the problem within a template starts and ends, or None if there is no whole template."""
    first, last = start, end
    while first < end and text[first].isspace():
        first += 1
    while last > first and text[last - 1].isspace():
        last -= 1
    for before, after in _WRAPPINGS:
        if (inside := _between(text, start, end, before, after)) is not None:
            return inside  # with the very spaces of the template, so those of the problem are kept
        if (inside := _between(text, first, last, before.strip(), after.strip())) is not None:
            first, last = inside
            while first < last and text[first].isspace():
                first += 1
            while last > first and text[last - 1].isspace():
                last -= 1
            return first, last
    return None


def _between(text: str, start: int, end: int, before: str, after: str) -> tuple[int, int] | None:
    start_inside = start + len(before)
    if text.startswith(before, start, end) and text.endswith(after, start_inside, end):
        return start_inside, end - len(after)
    return None
