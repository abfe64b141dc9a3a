r"""Made-up responses to made-up problems, in the styles in which models write, with the right and some wrong answers.

A response has a derivation, which states no answer though the value may stand in it, and then a statement of the
answer. It is right for its gold, and wrong for each of its near golds. All follows from the seed.

Examples
--------
>>> made = responses(1, seed=7)[0]
>>> made.response[: made.stated] == made.derivation, made.gold in made.near
(True, False)
"""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from math import comb
from typing import NamedTuple


class Made(NamedTuple):
    """A response: what is right, what is nearly right, and where in the text the statement of the answer starts."""

    gold: str
    near: tuple[str, ...]
    derivation: str
    statement: str
    form: str

    @property
    def response(self) -> str:
        return self.derivation + self.statement

    @property
    def stated(self) -> int:
        return len(self.derivation)


class Solved(NamedTuple):
    """A problem's right answers, spelt in several ways, the gold first; wrong ones; steps; what the answer is of."""

    answers: tuple[str, ...]
    near: tuple[str, ...]
    steps: tuple[str, ...]
    what: str


def _fraction(value: Fraction) -> str:
    sign = "-" if value < 0 else ""
    if value.denominator == 1:
        return str(value)
    return rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def _linear(rng: random.Random) -> Solved:
    a, x, b = rng.randint(2, 19), rng.choice([-1, 1]) * rng.randint(2, 90), rng.randint(1, 60)
    return Solved(
        (str(x), f"x = {x}", f"{x}.0"),
        (str(-x), f"{x}0", str(x + 1), str(2 * x), f"{x}x"),
        (
            f"We start from ${a}x + {b} = {a * x + b}$.",
            f"Taking {b} from both sides leaves \\[{a}x = {a * x}.\\]",
            f"Dividing by {a}, $x = \\frac{{{a * x}}}{{{a}}} = {x}$.",
        ),
        "$x$",
    )


def _share(rng: random.Random) -> Solved:
    size, taken = rng.randint(6, 14), rng.randint(2, 4)
    good = rng.randint(taken, size - 1)
    value = Fraction(comb(good, taken), comb(size, taken))
    spelt = _fraction(value)
    answers = (
        spelt,
        spelt.replace("frac", "dfrac"),
        f"{value}",
        rf"\frac{{{comb(good, taken)}}}{{{comb(size, taken)}}}",
    )
    wrong = (1 - value, 1 / value, value / 10, value / 2, -value, Fraction(value.numerator + 1, value.denominator))
    return Solved(
        answers,
        tuple(_fraction(x) for x in wrong if x != value),
        (
            f"There are $\\binom{{{size}}}{{{taken}}} = {comb(size, taken)}$ draws in all.",
            f"Of these, $\\binom{{{good}}}{{{taken}}} = {comb(good, taken)}$ have only red balls.",
            f"All draws are equally likely, so we divide: $\\frac{{{comb(good, taken)}}}{{{comb(size, taken)}}}$.",
        ),
        "the probability",
    )


def _roots(rng: random.Random) -> Solved:
    low, high = sorted(rng.sample([x for x in range(-12, 13) if x], 2))
    answers = (
        f"{low}, {high}",
        f"{high}, {low}",
        rf"\{{{low}, {high}\}}",
        rf"x = {low} \text{{ or }} x = {high}",
        rf"{low} \text{{ and }} {high}",
    )
    near = (str(low), str(high), f"{low}, {high + 1}", f"{low}, {high}, {high + 3}", f"{low}{abs(high)}")
    near += (f"{-low}, {-high}",) if low != -high else ()
    return Solved(
        answers,
        near,
        (
            f"The sum of the roots is ${low + high}$, and their product is ${low * high}$.",
            f"So we factor: $(x - ({low}))(x - ({high})) = 0$.",
            f"A product is zero if a factor is, which gives $x = {low}$ first and $x = {high}$ next.",
        ),
        "the solution set",
    )


def _diagonal(rng: random.Random) -> Solved:
    side, root = rng.randint(2, 30), rng.choice([2, 3, 5, 7])
    return Solved(
        (
            rf"{side}\sqrt{{{root}}}",
            rf"{side} \sqrt{root}",
            rf"\sqrt{{{side * side * root}}}",
            rf"{side}\sqrt{{{root}}}\text{{ cm}}",
        ),
        (
            rf"{side}\sqrt{{{root + 1}}}",
            rf"-{side}\sqrt{{{root}}}",
            rf"{side}0\sqrt{{{root}}}",
            str(side),
            rf"\pm {side}\sqrt{{{root}}}",
        ),
        (
            f"Call the length $d$, in centimetres; one side has {side}.",
            f"Then $d^2 = {root} \\cdot {side}^2 = {root * side * side}$.",
            f"The root of {root * side * side} is taken from the factor {side * side}.",
        ),
        "the length in centimetres",
    )


def _interval(rng: random.Random) -> Solved:
    low = rng.randint(-30, 20)
    high = low + rng.randint(1, 25)
    return Solved(
        (rf"[{low}, {high})", rf"\left[{low}, {high}\right)", rf"x \in [{low},{high})"),
        (f"({low}, {high})", f"[{low}, {high}]", f"[{low}, {high + 1})", f"[{low - 1}, {high})", rf"[{low}, \infty)"),
        (
            f"The root asks for $x \\ge {low}$.",
            f"The logarithm asks for $x < {high}$.",
            f"Both hold between {low} and {high}.",
        ),
        "the domain",
    )


def _point(rng: random.Random) -> Solved:
    x, y = rng.sample(range(-20, 20), 2)
    return Solved(
        (f"({x}, {y})", rf"\left({x}, {y}\right)", f"({x},{y})"),
        (f"({y}, {x})", f"({x}, {y + 1})", str(x), f"({x}, {y}, 0)", f"(-{abs(x) + 1}, {y})"),
        (
            f"Adding the equations gives ${x} + {y} = {x + y}$ for the sum.",
            f"Put $y = {y}$ into the first one.",
            f"That leaves $x = {x}$, and the second one holds, too.",
        ),
        "the point where the lines meet",
    )


def _polynomial(rng: random.Random) -> Solved:
    a, b = rng.randint(2, 9), rng.randint(2, 12)
    return Solved(
        (f"x^2 + {a + b}x + {a * b}", f"{a * b} + {a + b}x + x^{{2}}", f"(x+{a})(x+{b})"),
        (
            f"x^2 - {a + b}x + {a * b}",
            f"x^2 + {a + b + 1}x + {a * b}",
            f"y^2 + {a + b}y + {a * b}",
            f"x^2 + {a + b}x",
            f"x^2 + {a + b}x + {a * b}0",
        ),
        (
            f"We expand $(x + {a})(x + {b})$ term by term.",
            f"The middle is ${a}x + {b}x$, the end is ${a} \\cdot {b} = {a * b}$.",
            "Now we collect like terms.",
        ),
        "the product",
    )


def _count(rng: random.Random) -> Solved:
    value = rng.randint(1_000, 9_999_999)
    grouped = f"{value:,}"
    return Solved(
        (str(value), grouped, grouped.replace(",", "{,}"), grouped.replace(",", r"\,"), f"{value}.00"),
        (str(value + 1), f"{value}0", str(value // 10), f"-{value}", grouped.replace(",", ", 1")),
        (
            f"There are {value + 17} numbers to begin with.",
            "We leave out the 17 that are counted twice.",
            f"So ${value + 17} - 17 = {value}$ are left.",
        ),
        "the number of ways",
    )


def _scientific(rng: random.Random) -> Solved:
    digits, power = rng.randint(101, 999), rng.choice([-1, 1]) * rng.randint(5, 30)
    mantissa = f"{digits // 100}.{digits % 100:02d}"
    return Solved(
        (
            rf"{mantissa} \times 10^{{{power}}}",
            rf"{mantissa}\cdot 10^{{{power}}}",
            rf"{digits} \times 10^{{{power - 2}}}",
            rf"{mantissa} \times 10^{{{power}}}~\text{{J}}",
        ),
        (
            rf"{mantissa} \times 10^{{{power + 1}}}",
            rf"{mantissa} \times 10^{{{-power}}}",
            rf"-{mantissa} \times 10^{{{power}}}",
            rf"{mantissa}1 \times 10^{{{power}}}",
            "0",
        ),
        (
            f"The frequency enters by a factor of {mantissa}.",
            f"The powers of ten add up to {power}.",
            "No other factor is left, so we multiply the two.",
        ),
        "the energy",
    )


def _complex(rng: random.Random) -> Solved:
    a, b = rng.randint(1, 20), rng.randint(2, 20)
    return Solved(
        (f"{a} + {b}i", f"{b}i + {a}", rf"{a} + {b} \cdot i", f"{a}+i{b}"),
        (f"{a} - {b}i", f"-{a} + {b}i", f"{b + 30} + {a}i", f"{a} + {b}", f"{a} + {b + 1}i"),
        (
            f"The real parts add up to {a}.",
            f"For the imaginary parts, we find $i \\cdot {b}$.",
            "The two go together in a sum.",
        ),
        "$z$",
    )


def _percent(rng: random.Random) -> Solved:
    whole = rng.choice([20, 25, 40, 50])
    part = rng.choice([x for x in range(3, whole) if x * 100 // whole not in (10, 1)])
    rate = part * 100 // whole
    return Solved(
        (rf"{rate}\%", str(rate), rf"{rate}\text{{ percent}}", f"{rate}%"),
        (rf"{rate + 1}\%", rf"{rate}0\%", str(-rate), str(100 * rate)),
        (
            f"Of {whole} pupils, {part} came on foot.",
            f"Each pupil counts for {100 // whole} of a hundred.",
            f"Thus ${part} \\cdot {100 // whole} = {rate}$.",
        ),
        "the rate in percent",
    )


PROBLEMS: tuple[Callable[[random.Random], Solved], ...] = (
    _linear,
    _share,
    _roots,
    _diagonal,
    _interval,
    _point,
    _polynomial,
    _count,
    _scientific,
    _complex,
    _percent,
)


def _numbered(steps: tuple[str, ...], rng: random.Random) -> str:
    return "".join(f"{number}. {step}\n" for number, step in enumerate(steps, 1)) + "\n"


def _headed(steps: tuple[str, ...], rng: random.Random) -> str:
    return "".join(f"### Step {number}\n\n{step}\n\n" for number, step in enumerate(steps, 1))


def _prose(steps: tuple[str, ...], rng: random.Random) -> str:
    return " ".join(steps) + "\n\n"


def _thinking(steps: tuple[str, ...], rng: random.Random) -> str:
    doubts = ("Wait, let me check that again.", "Hmm, is this what the question asks for?", "Let me try a small case.")
    aloud = " ".join(f"{step} {rng.choice(doubts)}" for step in steps * rng.randint(1, 4))
    return f"<think>\nOkay, what do we have? {aloud}\n</think>\n\n{steps[-1]}\n\n"


def _chinese(steps: tuple[str, ...], rng: random.Random) -> str:
    return "解：" + "".join(f"由题意可知，{step} 因此我们继续计算。\n" for step in steps) + "\n"


def _french(steps: tuple[str, ...], rng: random.Random) -> str:
    return "".join(f"On sait que : {step}\n" for step in steps) + "On conclut.\n\n"


def _bullets(steps: tuple[str, ...], rng: random.Random) -> str:
    return "**Solution**\n\n" + "".join(f"- {step}\n" for step in steps) + "\n---\n\n"


STYLES: tuple[Callable[[tuple[str, ...], random.Random], str], ...] = (
    _numbered,
    _headed,
    _prose,
    _thinking,
    _chinese,
    _french,
    _bullets,
)

FORMS = (
    r"Therefore, {what} is $\boxed{{{answer}}}$.",
    r"Thus {what} is \(\boxed{{{answer}}}\).",
    "So we get\n\\[\n\\boxed{{{answer}}}\n\\]",
    "**Final Answer**\n\n$$\\boxed{{{answer}}}$$",
    r"The final answer is $\boxed{{{answer}}}$.",
    r"所以答案是 $\boxed{{{answer}}}$。",
    r"La réponse est donc $\boxed{{{answer}}}$.",
    "Answer: ${answer}$",
    "**Answer:** ${answer}$",
    "<answer>${answer}$</answer>",
    "The final answer is ${answer}$. I hope it is correct.",
    "答案：${answer}$",
    r"$\fbox{{{answer}}}$",
    r"\boxed {{{answer}}}",
)
"""How an answer is stated; every one is a statement by itself."""

ENDINGS = (
    "",
    "",
    "",
    "\n",
    "<|im_end|>",
    "\n\nThis agrees with an estimate.",
    "\n\n" + "We used nothing but what was given, and every step can be undone. " * 40,
)


def responses(count: int, seed: int) -> list[Made]:
    """Return `count` responses, of all problems, styles and forms in turn, and of chance."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        solved = PROBLEMS[number % len(PROBLEMS)](rng)
        form = FORMS[(number // len(PROBLEMS)) % len(FORMS)]
        derivation = rng.choice(STYLES)(solved.steps * rng.choice([1, 1, 2, 6]), rng)
        statement = form.format(what=solved.what, answer=rng.choice(solved.answers)) + rng.choice(ENDINGS)
        near = tuple(x for x in solved.near if x != solved.answers[0])
        found.append(Made(solved.answers[0], near, derivation, statement, form))
    return found


def cuts(made: Made) -> list[str]:
    """Return beginnings of a response that end before its answer is stated."""
    return [made.derivation[: int(len(made.derivation) * share)] for share in (0.3, 0.5, 0.7, 0.9, 1.0)]
