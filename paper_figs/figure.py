"""What a figure is, where figures are found, and how one is written."""

from __future__ import annotations

import importlib
import io
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.figure

import paper_figs
from paper_figs import style
from paper_figs.sources import LedgerData, ToyRun
from theory._runs import write_atomically

# matplotlib's names for what each format can say of itself; without the date, the same data give the same bytes.
METADATA: dict[str, dict[str, str | None]] = {
    "pdf": {"Title": "{name}", "Subject": "{caption}", "Creator": "paper_figs", "CreationDate": None},
    "svg": {"Title": "{name}", "Description": "{caption}", "Creator": "paper_figs", "Date": None},
    "png": {"Title": "{name}", "Description": "{caption}", "Software": "paper_figs"},
}


@dataclass(frozen=True)
class Figure:
    """A figure of result files.

    Attributes
    ----------
    name
        Name of the module and of the files.
    inputs
        The result files; what they read is passed to `draw` and `caption`, in this order.
    draw
        Data in, drawing out.
    caption
        Data in, one line out: what the data are, how many seeds, which interval.
    """

    name: str
    inputs: tuple[LedgerData | ToyRun, ...]
    draw: Callable[..., matplotlib.figure.Figure]
    caption: Callable[..., str]


def figures() -> dict[str, Figure]:
    """Return every figure of this package by name: the `FIGURE` of each module that has one."""
    names = sorted(module.name for module in pkgutil.iter_modules(paper_figs.__path__) if module.name != "__main__")
    modules = {name: importlib.import_module(f"paper_figs.{name}") for name in names}
    return {name: module.FIGURE for name, module in modules.items() if hasattr(module, "FIGURE")}


def build(figure: Figure, source: Path, output: Path) -> tuple[str, list[Path]]:
    """Read the inputs below `source` and write the figure into `output`; returns its caption and its files."""
    data: list[Any] = [result.read(source) for result in figure.inputs]
    caption = figure.caption(*data)
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's matplotlibrc must not change a figure
        mpl.rcParams.update(style.RC)
        drawing = figure.draw(*data)
        contents = {}
        for suffix, entries in METADATA.items():
            buffer = io.BytesIO()
            texts = {key: text and text.format(name=figure.name, caption=caption) for key, text in entries.items()}
            drawing.savefig(buffer, format=suffix, metadata=texts)
            contents[output / f"{figure.name}.{suffix}"] = buffer.getvalue()
    for path, content in contents.items():
        write_atomically(path, content)
    return caption, list(contents)
