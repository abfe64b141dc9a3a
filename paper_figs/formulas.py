"""Formulas for the report: those of the ledger's rows as MathML, and ASCII formulas within sentences as HTML."""

from __future__ import annotations

import re
from collections.abc import Mapping

from docutils.utils.math.latex2mathml import tex2mathml

TEX: Mapping[str, str] = {
    "S1": r"\sum_v \pi(v)\,\Lambda(v) = 0, \quad \Lambda(v) = \log\pi(v) + H",
    "S2": r"\frac{\partial H}{\partial z_v} = -\pi(v)\,\Lambda(v)",
    "S3": r"\Delta H \approx -\eta\,\xi\,\left(\pi(a)\Lambda(a) - \mathbb{E}_\pi[\pi\Lambda]\right)",
    "S4": r"\Delta H - \Delta H_{\text{first order}} = O(\eta^2)",
    "S5": r"\frac{1}{n}\sum_j A_j\,\mathbb{E}_\pi[\pi\Lambda] = 0",
    "G1": r"\|\nabla_z \log\pi(a)\|^2 = 1 - 2\pi(a) + C, \quad C = \sum_v \pi(v)^2",
    "G2": r"\mathbb{E}_\pi\|\nabla_z \log\pi\|^2 = 1 - C",
    "G3": r"\mathbb{E}_\pi\|\nabla_z \log\pi\|^2 \le 1 - e^{-H}",
    "G4": r"\mathbb{E}\left[A^2\,\|s\|^2\right] \le \mathbb{E}\left[A^2\right]\left(1 - e^{-H}\right)",
    "A1": r"n_i = B\,\frac{\sigma_i}{\sum_j \sigma_j}",
    "A2": r"\frac{\left(\sum_i \sigma_i\right)^2}{N \sum_i \sigma_i^2} \le 1",
    "A3": r"P = \frac{k\,(G - k)}{G\,(G - 1)}, \quad \mathbb{E}[P] = p\,(1 - p)",
    "A6": r"\operatorname{Var}(g_n) = \frac{\sigma^2}{n}",
    "A8": r"\sigma^2 \approx p\,(1 - p)\,(1 - C)",
    "A10": r"\mathbb{E}[g_n] = w(p, n)\,\nabla J",
    "A12": r"\operatorname{Var}(g_i) = \frac{\sigma_i^2}{n_i} \ \Rightarrow \ "
    r"\operatorname{Var}\left(\frac{1}{B}\sum_i n_i\,g_i\right) = \frac{1}{B^2}\sum_i n_i\,\sigma_i^2",
    "A13": r"s^*(k) = p\,q\,\frac{X/Q}{\mathbb{E}[X^2/Q]}, \quad r = \frac{k}{n}, \quad X = r\,(1 - r), "
    r"\quad Q = X\,\frac{(1 - r)\,v_C + r\,v_W}{n} + X^2\,\|d\|^2",
    "A14": r"\min_n \sum_i \frac{\operatorname{Var}_i(n_i)}{w(p_i, n_i)^2}",
    "M8": r"\Xi \le c\,\|A\,s\|, \quad c = \max_\pi \|\pi\,\Lambda\|",
    "M1": r"1 \le \beta_{\text{comp}} \le 1 + \alpha, \quad 1 - \alpha \le \beta_{\text{stab}} \le 1",
    "M2": r"\beta_{\text{comp}} = 1 + \alpha\,\frac{H_{\max} - H}{H_{\max} - H_{\min}}\ \text{ if } A > 0, \quad "
    r"\beta_{\text{stab}} = 1 - \alpha + \frac{\alpha}{1 + \exp(\gamma\,(\Xi / \max \Xi - \tau))}",
}
"""The formula of a row of the ledger by its id, in TeX; most rows are words."""

XMLNS = ' xmlns="http://www.w3.org/1998/Math/MathML"'
"""What HTML does not need."""

_SUB, _SUP = r"<sub>\1</sub>", r"<sup>\1</sup>"
# In order: longer names first.
_HTML = (
    (r"beta_(comp|stab)\b", r"β" + _SUB),
    (r"\bgrad_z\b", "∇<sub>z</sub>"),
    (r"\bE_pi\b", "E<sub>π</sub>"),
    (r"\bsum\b(?= (?:[A-Za-z]\b|sigma|pi\b|\())", "Σ"),
    (r"\bsqrt\(", "√("),
    *(
        (rf"\b{name}\b", letter)
        for name, letter in (
            ("sigma", "σ"), ("pi", "π"), ("Lambda", "Λ"), ("Xi", "Ξ"), ("xi", "ξ"), ("eta", "η"),
            ("alpha", "α"), ("gamma", "γ"), ("tau", "τ"), ("grad", "∇"),
        )
    ),
    (r"(?<=[\w)|])\^2\b", "²"),
    (r"(?<=[\w)|])\^(-?[A-Za-z0-9]+)", _SUP),
    (r"(?<=\b[^\W\d_])_([A-Za-z0-9]+)\b", _SUB),
    (r"&lt;=", "≤"),
    (r"&gt;=", "≥"),
    (r"\+- ?(?=[.\d])", "±"),
    (r"(?<![\w.])-(?=[.\d])", "−"),
)  # fmt: skip


def mathml(row: str) -> str:
    """Return the formula of a row of the ledger as MathML, which needs no script; empty if the row has none."""
    return tex2mathml(TEX[row], as_block=True).replace(XMLNS, "") if row in TEX else ""


def typeset(escaped: str) -> str:
    """Return a sentence, already escaped for HTML, with its ASCII formulas as letters, subscripts and superscripts.

    Examples
    --------
    >>> typeset("n Var = sigma^2 at 1 - e^-H &lt;= .5 and n_i")
    'n Var = σ² at 1 - e<sup>-H</sup> ≤ .5 and n<sub>i</sub>'
    """
    for pattern, letters in _HTML:
        escaped = re.sub(pattern, letters, escaped)
    return escaped
