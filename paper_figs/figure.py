"""What a figure and a table are, where they are found, and how they are written."""

from __future__ import annotations

import importlib
import io
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.figure

import paper_figs
from paper_figs import style
from paper_figs.result_files import Input
from theory.base.files import write_atomically
from theory.base.tables import TextTable
from theory.base.text import plain

Drawing = matplotlib.figure.Figure

# matplotlib's names for what each format can say of itself; without the date, the same data give the same bytes.
METADATA: dict[str, dict[str, str | None]] = {
    "pdf": {"Title": "{title}", "Subject": "{caption}", "Creator": "paper_figs", "CreationDate": None},
    "svg": {"Title": "{title}", "Description": "{caption}", "Creator": "paper_figs", "Date": None},
    "png": {"Title": "{title}", "Description": "{caption}", "Software": "paper_figs"},
}


@dataclass(frozen=True, kw_only=True)
class Item:
    """A figure or a table of result files.

    Attributes
    ----------
    name : Name of the module and of the files.
    title : A few words on what it is.
    inputs : The result files; what they read is passed to the functions below, in this order.
    caption : Data in, one line out: what the data are, how many seeds, which interval.
    reading : Data in, two sentences out: what it shows, and whether the paper's statement appears; both follow from the
        data.
    made_by : None for an item of `make reproduce`; else the command that makes its inputs, without which it is skipped.
    """

    name: str
    title: str
    inputs: tuple[Input, ...]
    caption: Callable[..., str]
    reading: Callable[..., str]
    made_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class Figure(Item):
    """A figure; `draw` turns data into a drawing."""

    draw: Callable[..., Drawing]


@dataclass(frozen=True, kw_only=True)
class Table(Item):
    """A table; `fill` turns data into groups of rows, each with a heading."""

    fill: Callable[..., TextTable]


@dataclass(frozen=True)
class Built:
    """An item that was written.

    Attributes
    ----------
    files : Written files, by suffix.
    content : Columns and rows of a table as text; a row begins with its group's heading, the cells after it may be
        bold.
    """

    item: Item
    caption: str
    reading: str
    files: Mapping[str, Path]
    content: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the item's entry in the index; files are relative to it."""
        return {
            "name": self.item.name,
            "kind": type(self.item).__name__.lower(),
            "title": self.item.title,
            "caption": self.caption,
            "reading": self.reading,
            "files": {suffix: path.name for suffix, path in self.files.items()},
            **self.content,
        }


def items() -> dict[str, Item]:
    """Return every figure and table by name, the paper's first: the `FIGURE` or `TABLE` of each module that has one."""
    names = sorted(module.name for module in pkgutil.iter_modules(paper_figs.__path__) if module.name != "__main__")
    modules = {name: importlib.import_module(f"paper_figs.{name}") for name in names}
    by_name = {
        name: getattr(module, kind)
        for name, module in modules.items()
        for kind in ("FIGURE", "TABLE")
        if isinstance(getattr(module, kind, None), Item)
    }
    return dict(sorted(by_name.items(), key=lambda pair: (_place(pair[0]), pair[0])))


def _place(name: str) -> int:
    """Return 0 for figures of the paper, 1 for its tables, 2 for ours."""
    return 0 if re.match(r"fig\d", name) else 1 if re.match(r"table\d", name) else 2


def build(item: Item, source: Path, output: Path) -> Built:
    """Read the inputs below `source` and write the figure or table into `output`."""
    data = [result.read(source) for result in item.inputs]
    caption, reading = plain(item.caption(*data)), plain(item.reading(*data))
    content: dict[str, Any] = {}
    if isinstance(item, Table):
        table = item.fill(*data)
        contents = {
            "md": table.markdown(item.title, caption).encode(),
            "tex": table.latex(item.name, item.title, caption).encode(),
            "csv": table.csv().encode(errors="backslashreplace"),
        }
        content = {"columns": table.headings, "rows": table.texts(), "bold": table.bold()}
    else:
        assert isinstance(item, Figure)
        contents = _draw(item, data, caption)
    files = {suffix: output / f"{item.name}.{suffix}" for suffix in contents}
    for suffix, path in files.items():
        write_atomically(path, contents[suffix])
    return Built(item, caption, reading, files, content)


def _draw(figure: Figure, data: list[Any], caption: str) -> dict[str, bytes]:
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's matplotlibrc must not change a figure
        mpl.rcParams.update(style.RC)
        drawing = figure.draw(*data)
        contents = {}
        for suffix, entries in METADATA.items():
            buffer = io.BytesIO()
            texts = {key: text and text.format(title=figure.title, caption=caption) for key, text in entries.items()}
            drawing.savefig(buffer, format=suffix, metadata=texts)
            contents[suffix] = buffer.getvalue()
    return contents
