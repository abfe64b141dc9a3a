"""The page: self-contained, with every figure, table and row, the same twice, and errors that name the file."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from paper_figs.figure import Figure, items
from paper_figs.findings import ARCHIVE, HEADLINES, Evidence
from paper_figs.report import PAPER, main, page
from tests.paper_figs.make_data import seal
from theory.base.files import only_writer, read_json, write_json
from theory.claims import Verdict

pytestmark = pytest.mark.xdist_group("paper_figs")  # what is drawn is shared

VOID = {"meta", "link", "img", "br"}
ROWS = [
    {
        "id": id, "claim": f"claim {id} <of> a & b", "source": "eq. 1", "verdict": verdict, "recorded": verdict,
        "evidence": f"evidence {id}", "numbers": {}, "counterexample": other, "seconds": 0.1,
        "said_by": author, "regime": f"regime of {id}", "by_construction": id == "S1",
    }
    for id, author, verdict, other in (
        ("S1", "paper", "exact", None), ("M4", "summary", "fails", "p < 1/2"), ("A7", "paper", "conditional", None),
    )
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with all figures and a short ledger, not to be changed."""
    source = Path(shutil.copytree(drawn, tmp_path_factory.mktemp("report") / "results"))
    write_json(source / "ledger" / "ledger.json", {"paper": "", "versions": {}, "rows": ROWS})
    return source


@pytest.fixture(scope="module")
def html(whole: Path) -> str:
    return page(whole)


@pytest.fixture
def source(whole: Path, tmp_path: Path) -> Path:
    """Results of one figure and one table, to be spoiled."""
    source = tmp_path / "results"
    (source / "ledger").mkdir(parents=True)
    (source / "figures").mkdir()
    shutil.copy(whole / "ledger" / "ledger.json", source / "ledger")
    kept = ("score_norm", "table2_ablations")
    index = read_json(whole / "figures" / "index.json")
    entries = [entry for entry in index["items"] if entry["name"] in kept]
    write_json(source / "figures" / "index.json", {**index, "items": entries})
    for name in ("score_norm.svg", "table2_ablations.md"):
        shutil.copy(whole / "figures" / name, source / "figures")
    shutil.copytree(whole / "toy" / "grpo", source / "toy" / "grpo")
    return source


class Strict(HTMLParser):
    """A reader that requires every element to be closed in its place, and keeps what is referred to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: dict[str, str] = {}
        self.tags: Counter[str] = Counter()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        assert len(found) == len(attrs), f"an attribute twice in {tag}"
        assert not any(name.startswith("on") for name in found), f"a script in {tag}"
        self.tags[tag] += 1
        self.open += [] if tag in VOID else [tag]
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[name] for name in ("href", "src", "srcset", "data", "action") if name in found]
        if tag == "img":
            self.images[found["alt"]] = found["src"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(html: str) -> Strict:
    reader = Strict()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def test_page_is_sound_html(html: str) -> None:
    reader = parsed(html)
    assert html.startswith("<!doctype html>")
    assert reader.tags["html"] == reader.tags["body"] == reader.tags["h1"] == reader.tags["title"] == 1
    assert len(set(reader.ids)) == len(reader.ids)


def test_page_refers_to_nothing_outside_but_the_paper(html: str) -> None:
    reader = parsed(html)
    inside = [link for link in reader.links if link.startswith("#")]
    assert {link[1:] for link in inside} == set(reader.ids)
    others = [link for link in reader.links if not link.startswith(("#", "data:"))]
    assert others == [PAPER]
    assert not {"script", "iframe", "object"} & set(reader.tags)
    assert reader.tags["link"] == 1  # the icon, an empty one
    assert not re.search(r"@import|url\(|https?://(?!arxiv\.org/abs/)", html)


def test_every_figure_is_shown_as_it_was_drawn(html: str, whole: Path) -> None:
    images = parsed(html).images
    figures = {name: item for name, item in items().items() if isinstance(item, Figure)}
    assert set(images) == {item.title for item in figures.values()}
    for name, item in figures.items():
        head, data = images[item.title].split(",")
        assert head == "data:image/svg+xml;base64"
        drawing = base64.b64decode(data)
        assert drawing == (whole / "figures" / f"{name}.svg").read_bytes()
        assert not re.search(rb'(?:href|src)="(?!#)', drawing), name  # nor does the drawing


def test_every_item_has_its_reading_and_caption(html: str, whole: Path) -> None:
    text = parsed(html).text
    for entry in json.loads((whole / "figures" / "index.json").read_text())["items"]:
        for what in ("title", "reading", "caption"):
            assert entry[what] in text
        for row in entry.get("rows", ()):
            assert all(part in text for cell in row for part in cell.split(" [")[0].splitlines())


def test_numbers_of_a_table_are_where_they_belong(html: str, whole: Path) -> None:
    index = {entry["name"]: entry for entry in json.loads((whole / "figures" / "index.json").read_text())["items"]}
    entry = index["table1_methods"]
    section = html.split('<section id="table1_methods">')[1].split("</section>")[0]
    lines = re.findall(r"<tr>(.*?)</tr>", section)
    assert len(lines) == 1 + len(entry["rows"])
    for line, row, bold in zip(lines[1:], entry["rows"], entry["bold"], strict=True):
        cells = re.findall(r"<td>(.*?)</td>", line)
        assert [re.sub("<small>", " ", cell).replace("</small>", "") for cell in cells] == [
            re.sub(r"^(\S+)", r"<b>\1</b>", text) if mark else text for text, mark in zip(row[1:], bold, strict=True)
        ]
    assert sum(map(sum, entry["bold"])) >= 2


def test_every_row_of_the_ledger_is_there_by_who_said_it_the_surprising_ones_first(html: str) -> None:
    reader = parsed(html)
    assert reader.tags["details"] == len(ROWS)
    places = [reader.text.index(row["claim"]) for row in ROWS]
    assert sorted(range(len(ROWS)), key=places.__getitem__) == [2, 0, 1]
    for row in ROWS:
        assert row["evidence"] in reader.text
        assert f"Judged for: {row['regime']}." in reader.text
    assert reader.text.count("By construction") == 1
    assert reader.text.count("by construction: claim S1") == 1
    assert "Counter-example: p < 1/2" in reader.text
    assert "Said by: paper1 claims: 1 conditional; 1 by construction." in reader.text
    assert "Said by: summary1 claims: 1 fails." in reader.text
    assert "<of>" not in html
    assert "undecided: a computation" not in html  # no formula is broken


def test_every_verdict_has_its_place_and_a_broken_formula_is_told_first(source: Path) -> None:
    wanted = ["undecided", "fails", "conditional", "approximate", "bound holds", "exact"]
    assert sorted(wanted) == sorted(verdict.value for verdict in Verdict)
    judged = {**ROWS[0], "by_construction": False}
    rows = [{**judged, "id": f"X{i}", "verdict": verdict} for i, verdict in enumerate(sorted(wanted))]
    write_json(source / "ledger" / "ledger.json", {"rows": rows})
    html = page(source)
    assert re.findall(r'class="verdict \w+">([a-z ]+)<', html) == wanted
    assert "6 claims: 1 undecided, 1 fails, 1 conditional, 1 approximate, 1 bound holds, 1 exact." in html
    assert "1 undecided: a computation" in html
    assert re.search(r"\.undecided \{ background", html)


def test_verdicts_of_another_version_come_last(source: Path) -> None:
    judged = {**ROWS[0], "by_construction": False}
    rows = [{**judged, "id": id, "verdict": verdict} for id, verdict in (("X1", "open"), ("X2", "exact"))]
    write_json(source / "ledger" / "ledger.json", {"rows": rows})
    assert re.findall(r'class="verdict \w+">([a-z ]+)<', page(source)) == ["exact", "open"]


def test_report_loads_neither_torch_nor_scipy() -> None:
    code = "import sys, paper_figs.report; print({'torch', 'scipy', 'matplotlib'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_made_with(html: str, whole: Path) -> None:
    runs = [json.loads(path.read_text()) for path in whole.rglob("versions.json")]
    text = parsed(html).text
    seeds = [seed for run in runs for seed in run["seeds"]]
    minutes = sum(run["seconds"] for run in runs) / 60
    assert f"{len(runs)} training runs with seeds {min(seeds)} to {max(seeds)}, which took {minutes:.0f} min" in text
    for run in runs:
        assert f"numpy {run['numpy']}" in text
    assert f"verl {runs[0].get('verl', '0.9.1')}" in text
    assert "vllm not installed" not in text


def test_same_files_same_bytes(whole: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(whole, tmp_path / "elsewhere")
    assert page(moved) == page(whole)


def test_command_writes_the_page(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--source", str(source)]) == 0
    path = source / "report.html"
    assert capsys.readouterr().out == f"report: {path}\n"
    first = path.read_bytes()
    assert main(["--source", str(source), "--out", str(source / "again.html")]) == 0
    assert (source / "again.html").read_bytes() == first
    assert str(source).encode() not in first


def test_what_was_not_made_is_said(source: Path) -> None:
    path = source / "figures" / "index.json"
    index = read_json(path)
    entries = index["items"]
    entries[0] = {"name": "score_norm", "title": "Norm", "error": "G3.parquet: expected <numbers>"}
    entries[1] = {"name": "table2", "title": "Two", "skipped": "no results; `make` makes them"}
    write_json(path, index)
    text = parsed(page(source)).text
    assert "Not here: G3.parquet: expected <numbers>" in text
    assert "Not here: no results; `make` makes them" in text


def without(key: str) -> Callable[[Any], Any]:
    return lambda content: {name: [{k: v for k, v in row.items() if k != key} for row in rows]
                            if name in ("rows", "items") else rows for name, rows in content.items()}  # fmt: skip


def with_(**values: Any) -> Callable[[Any], Any]:
    return lambda content: {name: [{**row, **values} for row in rows]
                            if name in ("rows", "items") else rows for name, rows in content.items()}  # fmt: skip


@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        ("ledger/ledger.json", None, "No such file.*; make it with `python -m theory --json"),
        ("ledger/ledger.json", "{", "expected JSON that ends with its checksum"),
        ("ledger/ledger.json", lambda content: {"rows": 3}, "expected rows of type list, got 3"),
        ("ledger/ledger.json", without("evidence"), "got none named evidence"),
        ("ledger/ledger.json", with_(verdict=None), "verdict of type str, got None"),
        ("ledger/ledger.json", with_(counterexample=0), "counterexample of type str or null, got 0"),
        ("figures/index.json", None, "No such file.*; make it with `python -m paper_figs --source"),
        ("figures/index.json", "", "expected JSON that ends with its checksum"),
        ("figures/index.json", lambda content: {**content, "items": ["a"]}, "expected a JSON object, got str"),
        ("figures/index.json", lambda content: {"items": content["items"]}, "expected the SHA-256 of files, got None"),
        ("figures/index.json", lambda content: {**content, "files": {}}, "the SHA-256 of table2_ablations.csv"),
        ("figures/index.json", without("caption"), "got none named caption"),
        ("figures/index.json", with_(kind="picture"), "expected a table, or a figure with an SVG, got 'picture'"),
        ("figures/index.json", with_(kind="table", columns=[], rows=[["1"]], bold=[[]]), "expected rows of 0 cells"),
        ("figures/index.json", with_(kind="table", columns=["a"], rows=[[1]], bold=[[]]), "expected a table of text"),
        ("figures/index.json", with_(kind="table", columns=["a"], rows=[["1"]], bold=[[1]]), "marks of bold"),
        ("figures/index.json", with_(name="a"), "entries of different names"),
        ("figures/score_norm.svg", None, "No such file.*; make it with `python -m paper_figs --only score_norm`"),
        ("figures/score_norm.svg", "<svg/>", "expected the file whose SHA-256 is in"),
        ("toy/grpo/versions.json", "{}", "expected JSON that ends with its checksum"),
        ("toy/grpo/versions.json", lambda content: {**content, "seeds": [True]}, "seeds: expected integers"),
        ("toy/grpo/versions.json", lambda content: {**content, "seeds": ["1"]}, "seeds: expected integers"),
        ("toy/grpo/versions.json", lambda content: {**content, "seeds": []}, "seeds: expected integers"),
        ("toy/grpo/versions.json", lambda content: {**content, "seconds": -1}, "seconds: expected a finite number"),
        ("toy/grpo/versions.json", lambda content: {**content, "numpy": 2}, "software: expected versions as text"),
        ("toy/grpo/versions.json", lambda content: {**content, "files": None}, "expected the SHA-256 of config.json"),
    ],
)  # fmt: skip
def test_missing_and_corrupt_files_are_named(
    source: Path, file: str, spoil: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = source / file
    if spoil is None:
        path.unlink()
    elif isinstance(spoil, str):
        path.write_text(spoil)
    else:
        write_json(path, spoil(read_json(path)))
    with pytest.raises(ValueError, match=message) as error:
        page(source)
    assert str(error.value).startswith(f"{path}: ")
    assert main(["--source", str(source)]) == 2
    assert capsys.readouterr().err == f"python -m paper_figs.report: error: {error.value}\n"
    assert not (source / "report.html").exists()


@pytest.mark.parametrize("drawing", ["<svg/>", '<svg width="1.2.3pt"/>', '<svg width=".pt"/>'])
def test_a_drawing_without_a_width_is_refused(drawing: str, source: Path) -> None:
    (source / "figures" / "score_norm.svg").write_text(drawing)
    for name in read_json(source / "figures" / "index.json")["files"]:
        (source / "figures" / name).touch()
    seal(source / "figures" / "index.json")
    with pytest.raises(ValueError, match=r"score_norm.svg: expected an SVG with its width in points, got another file"):
        page(source)


def test_a_page_has_one_writer(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with only_writer(source):
        assert main(["--source", str(source)]) == 2
    assert capsys.readouterr().err.startswith(f"python -m paper_figs.report: error: {source}: expected no other writer")


def test_the_first_screen_has_five_sentences_of_the_archive_where_the_folder_has_no_results(html: str) -> None:
    found = html[html.index('<ol class="found">') : html.index("</ol>")]
    assert found.count("<li>") == len(HEADLINES) == 5
    for tell in HEADLINES:
        sentence = " ".join(tell(Evidence(ARCHIVE)).split())
        assert len(re.findall(r"[.!?](?= [A-Z]|$)", sentence)) == 1, sentence  # one sentence
    assert "Archived results" in found
