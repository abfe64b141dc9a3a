"""When two answers are equal: the conventions of docs/scale.md, each with right answers and wrong neighbours."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from scale.rewards import scoring
from scale.rewards.spelling import plain
from scale.rewards.verifier import CORRECT, WRONG

pytestmark = pytest.mark.skipif(find_spec("math_verify") is None, reason="needs Math-Verify")

CASES = {
    "size": [
        (
            "2.88e-19",
            [r"2.88 \times 10^{-19}"],
            [r"-2.88 \times 10^{-19}", r"2.88 \times 10^{-18}", r"5.76 \times 10^{-19}"],
        ),
        ("1/2^{99}", ["2^{-99}"], ["2^{-98}"]),
        (r"\frac{1}{2^{99}}", [], [r"\frac{1}{2^{98}}"]),
        (r"\frac{\pi}{10^{20}}", [r"\pi \times 10^{-20}"], [r"\frac{2\pi}{10^{20}}"]),
        ("10^{-30}x", [], [r"2\cdot 10^{-30}x"]),
        ("10^{-12}+i", [], ["i"]),
        (r"\sqrt{10^{20}+1}", [], ["10^{10}"]),
        ("(10^{-9}, 2)", [], [r"(2\cdot 10^{-9}, 2)"]),
        (r"\{10^{-9}, 2\}", [], [r"\{10^{-10}, 2\}"]),
        ("[0, 10^{-9}]", [], ["[0, 10^{-8}]"]),
        ("x=10^{-20}", [], ["x=10^{-21}"]),
        (r"\begin{pmatrix}10^{-9}\\1\end{pmatrix}", [], [r"\begin{pmatrix}10^{-10}\\1\end{pmatrix}"]),
        ("4.6e-24", [r"4.60 \cdot 10^{-24}"], []),
        ("0.0000001", [], ["0.0000002"]),
        ("6.02e23", [r"6.02 \times 10^{23}"], [r"6.03 \times 10^{23}"]),
        ("1e-3", ["0.001", "10^{-3}"], []),
        ("5000", ["5 thousand", r"5\text{ thousand}", "50 hundred"], ["5"]),
        ("2000000", ["2 million", "0.002 billion", r"0.000002\text{ trillion}"], ["2"]),
    ],
    "decimals": [
        ("928", [r"9.28 \times 10^{2}"], []),
        ("0.1", [r"\frac{1}{10}"], []),
        ("0.3", ["0.1+0.2"], []),
        ("1.1", ["1.10"], []),
        ("3.14", [], [r"\pi"]),
        (r"\pi", ["3.14159"], ["3.14160", "3.1416"]),
        (r"\frac{1}{3}", ["0.3333333"], ["0.33333"]),
        (r"\frac{2}{3}", ["0.666667"], ["0.666666"]),
        (r"\sqrt{2}", ["1.41421"], ["1.414"]),
        ("1234.5", ["1,234.5"], []),
        ("0.125", [r"\frac18"], []),
        ("847", [r"8.47 \times 10^2"], [r"8.471 \times 10^2"]),
        ("100000000.1", [], ["100000000.2"]),
        ("1000000", [], ["1000001"]),
        ("0.1234567", [], ["0.1234568"]),
    ],
    "units": [
        ("9.8", ["9.8 km/h", "9.8 g/cm^3", "9.8 erg s^{-1}", r"9.8\,\AA"], ["9.8 m/s^2", "9.8 km/x", "9.8 x/cm"]),
        ("3", [], ["3x²", "3 x²", "3ab²"]),
        ("60", ["60 mi/h"], []),
        (r"5\text{ pears}", [r"5\text{ pieces}", r"5\text{ muffins}"], []),
        ("5", ["5 cm²", "5 m²", "5¢", r"US\$5"], [r"5\mu", "5n²"]),
        (r"5\text{ MeV}", ["5 MeV"], [r"5\text{ eV}", "5 keV"]),
        (r"5\text{ m}", [], [r"5\,\mu\text{m}", r"5\text{ µm}"]),
        (r"5 \mathrm{\mu m}", [r"5~\mu\mathrm{m}", r"5\text{ μm}", "5"], []),
        (r"\frac23", ["2/3 cup"], []),
        (r"6:35\text{ p.m.}", ["6:35 PM", "6:35 p.m."], ["6:35 AM", "6:36 PM"]),
        ("6", [], ["6m"]),
        ("$6m$", ["6m"], ["6"]),
        (r"\frac{37}{4} m", [r"\frac{37m}{4}"], []),
        (r"\frac{1}{m} t", [r"\frac{t}{m}"], []),
        (r"\frac{1}{\sqrt2}c", [r"\frac{c\sqrt2}{2}"], [r"\frac{\sqrt2}{2}"]),
        (r"5 \text{ cm}", ["5", "5cm", r"5\text{ centimeters}"], [r"5\text{ m}"]),
        (
            "5",
            [r"5~\text{cm}", r"5\text{ s}", r"5 \text{ seconds}", r"\$5", r"5 \text{ dollars}", "£5"],
            ["5abc", "5xy"],
        ),
        ("10", [r"10\,\mathrm{km}", r"10 \mathrm{~km} / \mathrm{h}"], []),
        ("9.8", [r"9.8 \text{ m/s}^2", r"9.8\,\frac{\text{m}}{\text{s}^2}"], []),
        (r"9.8 \mathrm{~m/s^2}", [r"9.8 \text{ m/s}^2"], [r"9.8 \text{ m/s}"]),
        ("3h", [], ["3"]),
        ("3", [], ["3h"]),
        ("2t", [], ["2"]),
        ("2", [], ["2t"]),
        ("5s", [], ["5"]),
        ("12", ["12 square units", r"12\text{ sq. units}"], []),
        ("30", ["30 minutes"], []),
        ("24", ["24 apples"], []),
        (r"\$5", [r"5 \text{ dollars}"], [r"5\text{ cents}"]),
        ("5x", [], ["5"]),
        (r"7 \text{ or } 8", [], ["7"]),
        ("45", [r"45\degree", r"45^\circ"], []),
        (r"45^\circ", ["45"], [r"54^\circ"]),
        ("20", [r"20^\circ\text{C}", r"20^{\circ}\mathrm{C}"], []),
        (r"90\text{ degrees}", [r"90^\circ"], []),
        (r"\frac{\pi}{3}", [r"\frac{\pi}{3}\text{ rad}"], []),
        (r"60^\circ", [], [r"\frac{\pi}{3}"]),
        (r"\sin 30^\circ", ["0.5", r"\sin{30\degree}", r"\cos(60^{\circ})"], [r"\sin 30", r"\sin 60^\circ"]),
        (r"4\sin 10^\circ", [r"4\cos 80^{\circ}"], [r"4\sin 10"]),
        (r"\tan^2 60^\circ", ["3"], []),
        (r"-\frac12", [r"\sin(-30^\circ)", r"\cos\left(180^\circ-60^\circ\right)", r"-\sin (30)^\circ"], []),
        (r"\sin(x+30^\circ)", [r"\sin(x+\frac{\pi}{6})"], [r"\sin(x+30)"]),
        (r"\sin\frac{45}{2}^\circ", [r"\sin 22.5^\circ", r"\sin\frac{45^\circ}{2}"], []),
        (r"\cos x^\circ", [], [r"\cos x"]),
        (r"\sin 90^\circ + 30^\circ", [], ["31"]),
        (r"6 \mathrm{m}", ["6m"], []),
        ("4.5e33", [r"4.5 \times 10^{33}~\text{erg/s}"], [r"4.5 \times 10^{32}~\text{erg/s}"]),
        ("10!", [r"10! \text{ ways}"], []),
        (r"\frac{1}{2}", [r"\frac{1}{2} \text{ of the pie}"], []),
        ("3ab", [], ["3"]),
        (r"4\ell", [], ["4"]),
        ("2g", [], ["2"]),
        (r"\frac{1}{2} g", [r"\frac{g}{2}"], []),
        ("gt", [], ["g"]),
        (r"3\text{ ft}", [r"3\text{ feet}"], [r"3\text{ in}"]),
        ("25 mph", ["25"], []),
    ],
    "symbols": [
        (r"-2+2 \sqrt{3} i", [r"-2+2i\sqrt{3}"], []),
        ("2i", [r"2 \cdot i", r"2\mathrm{i}", r"2\imath"], ["2"]),
        ("-1", ["i^2"], []),
        ("1", [], ["i^2"]),
        ("-i", ["i^3"], []),
        ("3+4i", ["4i+3"], ["3-4i", "3+4"]),
        ("5", ["|3+4i|"], []),
        (r"\frac{1+i}{2}", [r"\frac12+\frac{i}{2}"], []),
        (r"e^{i\pi/3}", [r"\frac{1+i\sqrt3}{2}"], []),
        (r"2i\sqrt3", [], [r"2\sqrt3"]),
        (r"\pm i", ["i,-i"], []),
        ("E_1", ["E_{1}"], ["E_2"]),
        (r"\frac13 E_1+\frac23 E_2", [r"\frac{E_1+2E_2}{3}"], []),
        ("E_{1},E_{2}", ["E_1, E_2"], ["E_1,E_3"]),
        (r"1-\frac{1}{\mathrm{e}}", ["1-e^{-1}"], ["1+e^{-1}"]),
        ("e^2", [r"\mathrm{e}^2"], []),
        ("E", [], ["e"]),
        ("2E", [], ["2e"]),
        ("mc^2", ["m c^{2}"], []),
        ("x_1", ["x_{1}"], []),
        ("x_i", ["x_{i}"], ["x_j"]),
        ("a_{10}", [], ["a_1"]),
        ("i", [], ["1"]),
        ("I", [], ["i"]),
        (r"\frac{V}{R}", [], [r"\frac{v}{r}"]),
        ("2e", ["5.43656"], []),
        ("e", [], ["2.718"]),
        ("e^{-x}", [r"\frac{1}{e^x}"], []),
        (r"\ln(2)", [r"\ln 2"], []),
        (r"\hbar\omega", [r"\omega\hbar"], []),
    ],
    "bases": [
        ("52_8", ["52_{8}", r"52_{\text{eight}}", "52", "(52)_8"], ["52_9", "42", "53_8"]),
        ("52", [], ["52_8"]),
        ("1011_2", ["1011_{2}"], ["11_{10}"]),
        ("11", ["11_{10}"], []),
        ("2A_{16}", ["2A_{16}"], []),
    ],
    "spellings of a right answer": [
        (r"2\sqrt3", ["√12", "2√3", "√(3*4)"], []),
        ("2", [], ["√12"]),
        (r"-\frac13", ["–1/3"], []),
        (r"\log_{10} 2", [r"\lg 2"], [r"\ln 2"]),
        (r"\frac{n(n-1)}{2}", [r"\binom n2"], []),
        ("1.67e-27", ["1.67 × 10⁻²⁷", "1.67 x 10^{-27}"], ["1.67 × 10⁻²⁶"]),
        (r"\frac52", ["2½"], []),
        (r"\ln 2", ["ln 2", "ln(2)", r"\log_e 2"], []),
        (r"3\sqrt[3]{2}", [r"3\sqrt[3]2"], []),
        (r"\binom{20}{10}", ["C_{20}^{10}", "^{20}C_{10}"], ["C_{20}^{9}"]),
        (r"0.\overline{3}", ["0.(3)", r"0.\dot3"], []),
        (r"\{1,2\}", [r"\lbrace 1,2\rbrace"], []),
        ("(3,4)", [r"\langle 3,4\rangle"], [r"\langle 4,3\rangle"]),
        (r"\max(a,b)", [r"\max\{a,b\}"], [r"\min\{a,b\}"]),
        ("3:4", [r"3\text{ to }4"], []),
        (r"\text{Yes}", [r"\text{Yes.}"], []),
        (r"2\sin x\cos x", ["2 sin x cos x"], []),
        ("-1./3", [r"-\frac13"], [r"\frac13"]),
        ("np.arcsin(10/13)", [r"\arcsin\frac{10}{13}"], [r"\arccos\frac{10}{13}"]),
        (
            r"\frac{-1\pm\sqrt{5}}{2}",
            [r"\frac{-1-\sqrt5}{2}, \frac{-1+\sqrt5}{2}", r"x=\frac{-1\pm\sqrt5}{2}"],
            [r"\frac{-1+\sqrt5}{2}", r"\frac{1\pm\sqrt5}{2}"],
        ),
        (r"\pm 3", ["3,-3"], []),
        (r"\pm3", [], ["3"]),
        ("3", [], [r"\pm 3"]),
        (r"\frac{29,322,216}{5}", [r"\frac{29322216}{5}"], [r"\frac{29322217}{5}"]),
        ("sqrt(2)", [r"\sqrt2"], []),
        ("3**2", ["9"], ["6"]),
        ("2*pi", [r"2\pi"], []),
        ("np.pi/2", [r"\frac{\pi}{2}"], []),
        ("np.sqrt(3)/2", [r"\frac{\sqrt3}{2}"], []),
        ("10^(-3)", ["0.001"], []),
        ("2^(1/2)", [r"\sqrt2"], []),
        ("np.exp(-1)", [r"\frac1e"], []),
        ("np.log(2)", [r"\ln 2"], []),
        ("math.sqrt(2*(3+1))", [r"2\sqrt2"], []),
        ("1.", ["1"], []),
        ("2./3", [r"\frac23"], []),
        (r"0.\overline{3}", [r"\frac13"], ["0.3"]),
        (r"0.1\overline{6}", [r"\frac16"], []),
    ],
    "percent": [
        (r"50\%", ["50 percent", r"50\text{ per cent}", r"\frac12"], [r"500\%"]),
        (".5", [r"50\%"], ["50"]),
        (r"12.5\%", ["12.5"], []),
        (r"0.5\%", ["0.005"], ["0.05"]),
        (r"33\frac13\%", [r"\frac13"], []),
        ("50", [], ["0.5"]),
    ],
    "choices": [
        ("12", [r"\textbf{(B)}\ 12", "(B) 12"], [r"\textbf{(B)}\ 13"]),
        (
            "B",
            ["(B)", r"\text{B}", r"\textbf{(B)}\ 12", "B. 12", r"\text{Option B}"],
            [r"\textbf{(C)}\ 12", "A", "A, B"],
        ),
        (r"\textbf{(B)}\ 12", ["12", "B"], [r"\textbf{(C)}\ 12", "C"]),
        ("C", [], ["(A) and (C)"]),
        (r"\text{(B)}", ["B"], []),
        ("-3", [r"\textbf{(B)} -3"], []),
        ("3", [], [r"\textbf{(B)} -3"]),
        ("D", [], ["d"]),
    ],
    "marks and words": [
        ("-9", [r"-9\nonumber", r"\colorbox{red}{-9}", r"\mathnormal{-9}"], [r"\mathnormal{9}"]),
        ("-9", [r"\text{Our answer is }-9"], [r"\text{Our answer is }9"]),
        (r"\frac34", [r"~~\frac{3}{4}~~", r"\mathbf{\frac{3}{4}}\,", r"\text{C: }\frac34"], [r"\text{C: }\frac43"]),
        ("-9", [r"\textbf{(C)}\enspace -9", r"\textsf{(C)} -9"], [r"\textbf{(C)}\enspace 9"]),
        ("34", ["Answer: 34", "m+n=34", "m+n=3+31=34"], []),
        ("9", [r"\text{009}"], []),
        ("(1,2)", ["(1,~2)"], []),
        (r"\text{Yes}", ["yes"], []),
        (r"\text{even}", [], [r"\text{odd}"]),
        (r"\text{Friday}", ["Friday"], []),
    ],
    "structure": [
        ("xy", [], ["XY"]),
        (r"\frac{1}{(n-k)!}", [], [r"\frac{2}{(n-k)!}"]),
        ("(0.1234568,1)", [], ["(0.123457,1)"]),
        ("[1,3],[2,5]", [], ["[1,5]"]),
        ("(-2,1)", [r"x \in (-2,1)"], []),
        (r"\text{Bill}", ["bill"], []),
        (r"\lceil x\rceil", [r"-\lfloor -x\rfloor"], ["x"]),
        (r"\lfloor x\rfloor", [], ["x", r"\lceil x\rceil"]),
        (r"\lceil n/2\rceil", [r"\lfloor\frac{n+1}{2}\rfloor"], ["n/2"]),
        (r"\sqrt{gh}", [r"\sqrt g\sqrt h"], []),
        ("(-5,5]", [r"-5<x\le5", r"5\ge x>-5"], ["-5<x<5", "x<5"]),
        (r"(-\infty,0]", [r"x\le0"], ["x<0"]),
        (
            r"(-\infty,-2)\cup(1,\infty)",
            [
                *(r"x<-2\text{ or }x>1", r"x<-2\lor x>1", r"(-\infty,-2)\bigcup(1,\infty)", "(-∞,-2)U(1,∞)"),
                *(r"(-\infty,-2)\text{ U }(1,\infty)", r"\{x\mid x<-2\text{ or }x>1\}"),
            ],
            ["x<-2", r"x\le-2\text{ or }x>1"],
        ),
        (
            r"x<-2\text{ or }x>1",
            [r"(-\infty,-2)\cup(1,\infty)", r"x<-2\text{ and }x>1", r"x\in(-\infty,-2)\cup(1,\infty)"],
            ["x<-2", r"y<-2\text{ or }y>1", r"x<-2, y>1"],
        ),
        ("-2<x<1", [r"x\in(-2,1)", r"x>-2\wedge x<1", r"-2<x\text{ and }x<1"], [r"-2<x\text{ or }x<1", "-2<y<1"]),
        (r"(0,\infty)", ["x>0"], [r"x\ge0", "x<0"]),
        (r"m<1\text{ and }m\ne0", [r"m<1, m\ne0", r"(-\infty,0)\cup(0,1)"], ["m<1"]),
        ("1<x<2", ["x>1, x<2"], []),
        (r"\sqrt{1-x^2}", [r"\sqrt{1-x}\sqrt{1+x}"], [r"2\sqrt{1-x}\sqrt{1+x}"]),
        (r"0<a<1\text{ and }b>2", ["b>2, 0<a<1"], ["b>2, 0<a<2"]),
        (r"[-4,0)\cup(0,3]", [r"[-4,3]\backslash\{0\}"], []),
        ("(1,2)", [], ["(2,1)"]),
        ("1,2", ["2,1"], ["1,2,3"]),
        ("1,2,3", [], ["1,2"]),
        ("[1,2)", [], ["(1,2]"]),
        ("[1,2]", [], ["[2,1]"]),
        (r"(-\infty,3)", [], [r"(3,\infty)"]),
        (r"\frac12", [], ["2"]),
        ("12", [], ["1 2"]),
        ("5", [], ["2 3", "2(3)"]),
        ("6", ["2(3)"], []),
        (r"2\frac12", [r"\frac52"], ["1"]),
        ("x+y", ["y+x"], []),
        ("x-y", [], ["y-x"]),
        ("x^2", [], ["x^3"]),
        ("y=2x+1", ["2x-y+1=0"], ["y=2x-1"]),
        ("x^2+y^2=1", [], ["x^2+y^2=2"]),
        ("x^2+1=0", [], ["x^2+2=0"]),
        ("(2,1),(1,2)", ["(1,2),(2,1)"], ["(1,2),(1,2)"]),
        (r"\{\sqrt8, 1\}", [r"\{1, 2\sqrt2\}"], []),
        (r"x\ge 2", [r"[2,\infty)"], ["x>2"]),
        (r"x \in [-2,7]", [r"-2 \le x \le 7"], [r"-2 < x \le 7"]),
        ("|x|", [], ["x"]),
        (r"\sqrt{x^2}", [], ["x"]),
        (r"\frac{x^2-1}{x-1}", ["x+1"], []),
        (r"\sin^2x+\cos^2x", ["1"], []),
        ("n!", [], ["n"]),
        (r"\binom{5}{2}", ["10"], []),
        ("10", [], ["C(5,2)"]),
        ("3:4", [r"\frac34"], ["4:3"]),
        (r"-\frac{1}{2}", [r"\frac{1}{-2}"], []),
        ("f(x)=x^2", ["x^2"], []),
        ("2^{n+1}-1", [], ["2^n-1"]),
        ("2^{10}", ["1024"], []),
        (r"\log_2 8", ["3"], []),
    ],
}
"""By kind: a right answer, answers that are equal to it, and answers that are not."""

WITH_PROBLEM = [
    ("9.8", "9.8 m/s^2", "What is the acceleration, in m/s^2?", True),
    ("9.8", r"9.8 \, m/s^2", r"What is the acceleration, in $\mathrm{m/s^2}$?", True),
    ("9.8", "9.8 m/s^2", "For a mass $m$, what is it, in m/s^2?", False),
    ("9.8", "9.8 m/s^2", "What is the acceleration?", False),
    ("6", "6m", "How many meters is it?", True),
    ("6", "6m", "Let $m$ be the mass in meters.", False),
    ("$6m$", "6", "How long is it, in meters?", True),
    ("6m", "6", "If $m$ is an integer, find in terms of $m$.", False),
    ("6m", r"6\text{ m}", "In meters.", True),
    ("5", "5s", "A train runs for 5 s. How long?", True),
    ("5", "5t", "How many weeks?", False),
    ("2", "2g", r"The block has mass $3 \mathrm{~g}$.", True),
    ("2g", "2", r"Let \(g\) be gravity; the mass is in grams.", False),
    ("52", "52_8", "Write 42 in base 8.", True),
    ("52", "52_8", "Write 42 in base eight.", True),
    ("52", "52_8", "Write 42 in base 9.", False),
]
"""A right answer, an answer, the problem, and whether they are equal."""


def pairs(place):
    return [
        pytest.param(row[0], answer, id=f"{kind} {row[0]} = {answer}")
        for kind, rows in CASES.items()
        for row in rows
        for answer in row[place]
    ]


def decided(gold, answer, **arguments):
    return scoring.decide(plain(gold), plain(answer), **arguments).outcome


@pytest.mark.parametrize(("gold", "answer"), pairs(1))
def test_equal(gold, answer):
    assert decided(gold, answer) == CORRECT


@pytest.mark.parametrize(("gold", "answer"), pairs(2))
def test_not_equal(gold, answer):
    assert decided(gold, answer) == WRONG


@pytest.mark.parametrize(("gold", "answer", "problem", "equal"), WITH_PROBLEM)
def test_with_the_problem(gold, answer, problem, equal):
    """Whether a letter is a unit, and what base is meant, follows from the problem."""
    assert decided(gold, answer, problem=problem) == (CORRECT if equal else WRONG)


@pytest.mark.parametrize(
    ("gold", "answer", "tolerance", "equal"),
    [
        ("2.88e-19", "2.89e-19", "exact", False),
        ("2.88e-19", "2.89e-19", "minerva", True),
        ("2.88e-19", "2.92e-19", "minerva", False),
        ("2.88e-19", "-2.88e-19", "minerva", False),
        ("2e-7", "2.01e-7", "minerva", True),
        ("2e-7", "2.03e-7", "minerva", False),
        ("1e-5", "1.0009e-5", "minerva", True),
        ("1e-5", "1.0011e-5", "minerva", False),
        ("2e-7", "2.01e-7", "qwen", False),
        ("11.6", "11.6001", "minerva", True),
        ("11.6", "11.6002", "minerva", False),
        ("11.6", "11.601", "qwen", True),
        ("11.6", "11.602", "qwen", False),
        ("0", "1e-30", "minerva", False),
        (r"\sqrt{2}", "1.41422", "minerva", True),
        (r"\sqrt{2}", "1.41424", "minerva", False),
        (r"\sqrt{2}", "1.4143", "qwen", True),
        (r"\sqrt{2}", r"\sqrt{2.001}", "qwen", False),
        (r"(1,\sqrt{2})", "(1,1.4143)", "qwen", True),
    ],
)
def test_tolerance(gold, answer, tolerance, equal):
    assert decided(gold, answer, tolerance=tolerance) == (CORRECT if equal else WRONG)


PERTURBED = [
    *("7", r"\frac{5}{12}", "0.375", r"3\sqrt{2}", r"\{1, 2, 4\}", "(2, 5)"),
    *("[2, 5)", r"2\pi", "3+4i", "x^2+3x", "1.6e-19"),
]


def perturbed(gold):
    """Return answers that differ from one by a sign, a factor, a digit, an element, or the kind of an end."""
    yield from (f"-({gold})", f"10 \\cdot ({gold})", f"\\frac{{{gold}}}{{2}}", f"2 \\cdot ({gold})", f"{gold}, 17")
    yield from (gold.replace(one, other, 1) for one, other in zip("1234567", "2345678", strict=True) if one in gold)
    for one, other in ("([", "[(", ")]"):
        if gold[:1] == one or gold[-1:] == one:
            yield other + gold[1:] if gold[:1] == one else gold[:-1] + other


@pytest.mark.parametrize("gold", PERTURBED)
def test_neighbours_of_a_right_answer(gold):
    """None is taken for it; one that cannot be read is not right either."""
    assert decided(gold, gold) == CORRECT
    assert [x for x in perturbed(gold) if decided(gold, x) == CORRECT] == []
