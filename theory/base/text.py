"""Text from data, such as a name or a path, in languages that would take some of its characters for orders."""

from __future__ import annotations

MARKDOWN = {ord(c): f"\\{c}" for c in "\\`*_<&|$~"}

# What LaTeX reads as commands, and what its plain fonts lack or show as another character.
LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": "\\textbackslash{}", "^": "\\textasciicircum{}", "~": "\\textasciitilde{}"}
    | {"<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}"}
    | {"−": "$-$", "–": "--", "±": "$\\pm$", "≤": "$\\le$", "→": "$\\to$"}
)


def plain(text: object) -> str:
    r"""Return text on one line, with every character that is not printed as `repr` writes it.

    So nothing in it starts a line, moves a terminal's cursor, colours, turns the reading direction, or is no UTF-8.

    Examples
    --------
    >>> print(plain("a\nb \x1b[31m \u202e [/b] é"))
    a\nb \x1b[31m \u202e [/b] é
    """
    written = str(text)
    if written.isprintable():
        return written
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in written)


def markdown(text: str) -> str:
    r"""Return text for a line or a cell of Markdown.

    Examples
    --------
    >>> print(markdown("a_b|c <i> [0, 1] [x](y)"))
    a\_b\|c \<i> [0, 1] [x]\(y)
    """
    return plain(text).translate(MARKDOWN).replace("](", "]\\(")


def latex(text: str) -> str:
    r"""Return text for LaTeX.

    Examples
    --------
    >>> print(latex("50 % of a_b\\c"))
    50 \% of a\_b\textbackslash{}c
    """
    return plain(text).translate(LATEX)


def as_drawn(text: str) -> str:
    r"""Return text for a drawing by matplotlib, which reads what stands between two dollars as mathematics.

    Examples
    --------
    >>> print(as_drawn("$x$"))
    \$x\$
    """
    return plain(text).replace("$", "\\$")
