"""Execute the notebooks of this folder and save them with their outputs: `python notebooks/execute.py`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from theory.base.files import write_atomically
from theory.base.terminal import Parser, command

FOLDER = Path(__file__).resolve().parent


def execute(path: Path) -> nbformat.NotebookNode:
    """Return the notebook with the outputs of a fresh kernel, and without anything that changes from run to run."""
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    except ValueError as error:
        raise ValueError(f"{path}: expected a readable notebook, got {error!s:.200}") from error
    search = [str(FOLDER.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(search),
        # A kernel keeps a backend that it finds in its environment, and other backends put no plots into notebooks.
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute(env=environment)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


@command("notebooks/execute.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Execute and save every notebook; returns 0, or as in `theory.base.terminal`. A cell that fails has a traceback."""
    parser = Parser(prog="notebooks/execute.py", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, metavar="DIR", help="default: %(default)s")
    folder = parser.parse_args(argv).folder
    if not (paths := sorted(folder.glob("*.ipynb"))):
        raise ValueError(f"{folder}: expected a folder with notebooks, got none")
    for path in paths:
        write_atomically(path, (nbformat.writes(execute(path)).rstrip("\n") + "\n").encode())
        print(path.name, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
