"""The ledger: every verdict is the recorded one, and a broken formula turns its row red."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from paper_figs.findings import ARCHIVE, Evidence
from tests.theory.claims import curves
from theory import __main__ as command, allocation, losses
from theory.base import runs
from theory.claims import LEDGER, modulation as claims_of_modulation
from theory.claims.ledger import Author, Claim, Finding, Verdict
from theory.estimators import advantages, moments, optimal
from theory.losses import Scope, modulation
from theory.policy import entropy_change, softmax

ROWS = {row.id: row for row in LEDGER}
CURVES = json.loads(curves.RECORDED.read_text())


def test_ids_are_unique_and_the_listed_rows_are_there():
    assert len(ROWS) == len(LEDGER)
    listed = [f"S{i}" for i in range(1, 8)] + [f"G{i}" for i in range(1, 6)]
    listed += [f"A{i}" for i in range(1, 17)] + [f"M{i}" for i in range(1, 8)]
    assert set(listed) <= set(ROWS)


def test_every_row_says_who_made_the_claim_and_for_which_case_it_is_judged():
    assert all(row.regime and isinstance(row.said_by, Author) for row in LEDGER)
    assert {row.said_by for row in LEDGER} == set(Author)


@pytest.fixture(scope="module")
def archived() -> dict[str, dict]:
    """Return the rows of the archive, from which README quotes."""
    return {row["id"]: row for row in Evidence(ARCHIVE).rows()}


def without_rounding(text: str | None) -> str:
    """Leave out the sizes of rounding errors, which differ from machine to machine."""
    return re.sub(r"\d(\.\d+)?e-(0[6-9]|[1-9]\d)", "rounding", text or "")


@pytest.mark.parametrize("row", LEDGER, ids=lambda row: row.id)
def test_verdict_is_the_recorded_one(row: Claim, archived: dict[str, dict]):
    finding = row.judge()
    for name, value in archived[row.id]["numbers"].items():
        # What is an error of rounding here may be another one elsewhere.
        assert finding.numbers[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name
    # README and the pages quote the numbers; the sentences hold the others, which are read off the same data.
    for said in ("evidence", "counterexample"):
        assert without_rounding(getattr(finding, said)) == without_rounding(archived[row.id][said])
    assert finding.verdict.value == archived[row.id]["verdict"]
    assert finding.verdict is row.recorded, finding.evidence
    assert all(np.isfinite(value) for value in finding.numbers.values())
    assert len({len(column) for column in finding.data.values()}) <= 1
    found, recorded = curves.summary(finding), CURVES.get(row.id, {})
    assert found.keys() == recorded.keys()
    for name, expected in recorded.items():
        assert found[name] == [x if isinstance(x, str) else pytest.approx(x, rel=1e-6, abs=1e-9) for x in expected], (
            name
        )
    if finding.verdict in (Verdict.FAILS, Verdict.CONDITIONAL):
        assert finding.counterexample


def scaled(function, factor=1.01):
    return lambda *args, **kwargs: function(*args, **kwargs) * factor


def shifted(function, offset=1e-3):
    return lambda *args, **kwargs: function(*args, **kwargs) + offset


SABOTAGE = {
    "S1": (softmax, "centred_log_prob", shifted),
    "S2": (softmax, "centred_log_prob", scaled),
    "S3": (entropy_change, "first_order", scaled),
    "S4": (entropy_change, "first_order", scaled),
    "S5": (entropy_change, "first_order", scaled),
    "S6": (entropy_change, "first_order", shifted),
    "S7": (entropy_change, "first_order_sequence", lambda f: lambda *args: np.roll(f(*args), 1, axis=-1)),
    "S8": (entropy_change, "first_order", lambda f: lambda stats, *args: np.exp(stats.log_prob)),
    "G1": (softmax, "score_norm_squared", scaled),
    "G2": (softmax, "expected_score_norm_squared", scaled),
    "G3": (softmax, "score_norm_bound", lambda f: scaled(f, 0.9)),
    "G4": (softmax, "score_norm_squared", lambda f: scaled(f, 0.01)),
    "G5": (softmax, "score_norm_squared", lambda f: lambda stats: 2 - f(stats)),
    "A1": (allocation, "optimal", lambda f: lambda v, *args: f(1 / np.asarray(v), *args)),
    "A2": (allocation, "optimal_variance_ratio", scaled),
    "A3": (allocation, "bernoulli_variance", scaled),
    "A4": (allocation, "proportional", lambda f: lambda w, b: f(np.sqrt(w), b)),
    "A5": (moments, "gradient_moments", lambda f: lambda p, c, n, e="grpo": f(p, c, n, "reinforce")),
    "A7": (moments, "gradient_moments", lambda f: lambda p, c, n, e="grpo": f(p, c, n, "reinforce")),
    "A8": (moments, "single_rollout_variance", lambda f: lambda *args: 1 / (1e-3 + f(*args))),
    "A9": (allocation, "water_level", lambda f: lambda w, b, low, high: f(w, b, low, high)[::-1]),
    "A6": (moments, "gradient_moments", lambda f: lambda p, c, n, e="grpo": f(p, c, n, "rloo")),
    "A10": (moments, "implied_weight", scaled),
    "A11": (allocation, "water_level", lambda f: lambda w, *args: f(np.ones_like(w), *args)),
    "A12": (losses, "aggregation_weights", lambda f: lambda mask, mode: f(mask, "sequence-mean")),
    "A13": (optimal, "optimal_scale", lambda f: lambda p, n, *triple: f(np.minimum(1.01 * p, 0.99), n, *triple)),
    "A14": (moments, "implied_weight", scaled),
    "A15": (moments, "group_advantages", lambda f: lambda *args: [1.01 * a for a in f(*args)]),
    "A16": (allocation, "bernoulli_variance", scaled),
    "M1": (claims_of_modulation, "modulate", lambda f: lambda a, *args, **kw: f(-a, *args, **kw)),
    "M2": (modulation, "stabilization", lambda f: lambda *args: f(*args)[::-1]),
    "M3": (claims_of_modulation, "Modulation", lambda f: lambda alpha: f(alpha + 1e-9)),
    "M4": (advantages, "rloo", scaled),
    "M5": (softmax, "score_norm_squared", scaled),
    "M6": (claims_of_modulation, "Modulation", lambda f: lambda *args, **kw: f(0.0)),
    "M7": (claims_of_modulation, "scope_of", lambda f: lambda *args: Scope(0.1, 0.2, 0.3)),
    "M8": (
        modulation,
        "instability",
        lambda f: lambda stats, *args: np.random.default_rng(0).random(stats.entropy.shape),
    ),
    "M9": (
        modulation,
        "instability",
        lambda f: lambda stats, *args: np.random.default_rng(0).random(stats.entropy.shape),
    ),
}


def test_every_row_with_a_formula_is_sabotaged():
    assert set(SABOTAGE) == {row for row in ROWS if not row.startswith("T")}


@pytest.mark.parametrize("row", SABOTAGE)
def test_a_broken_formula_turns_the_row_red(row: str, monkeypatch: pytest.MonkeyPatch):
    module, name, fault = SABOTAGE[row]
    monkeypatch.setattr(module, name, fault(getattr(module, name)))
    assert ROWS[row].judge().verdict is not ROWS[row].recorded


def test_command_writes_the_ledger_and_its_curves(tmp_path, capsys):
    status = command.main(["--only", "A2", "S4", "--json", str(tmp_path / "new" / "l.json"), "--data", str(tmp_path)])
    out = capsys.readouterr().out
    assert status == 0
    assert "2 claims judged" in out
    assert "2 exact" in out
    ledger = json.loads((tmp_path / "new" / "l.json").read_text())
    assert [row["id"] for row in ledger["rows"]] == ["S4", "A2"]
    assert ledger["rows"][1]["numbers"]["error"] < 1e-12
    table = pq.read_table(tmp_path / "S4.parquet")
    finding = ROWS["S4"].judge()
    for name, column in finding.data.items():
        np.testing.assert_array_equal(table[name].to_numpy(), column)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["S4.parquet", "data.json", "new"]
    assert runs.read_table(tmp_path / "S4.parquet", runs.listed_tables(tmp_path), tmp_path / "data.json") == table
    assert command.main(["--only", "G4", "--data", str(tmp_path)]) == 0
    assert set(runs.listed_tables(tmp_path)) == {"S4.parquet", "G4.parquet"}


def test_command_writes_no_number_that_is_not_finite_and_leaves_a_damaged_list(tmp_path, monkeypatch, capsys):
    row = Claim("X1", "1 / 0", "-", Verdict.EXACT, lambda: Finding(Verdict.EXACT, "-", {"error": float("nan")}))
    monkeypatch.setattr(command, "LEDGER", (row,))
    assert command.main(["--json", str(tmp_path / "l.json")]) == 2
    assert capsys.readouterr().err == "python -m theory: error: X1: expected finite numbers, got error = nan\n"
    monkeypatch.setattr(command, "LEDGER", ())
    (tmp_path / "data.json").write_text("{}")
    assert command.main(["--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"python -m theory: error: {tmp_path / 'data.json'}: expected JSON")
    assert [path.name for path in tmp_path.iterdir()] == ["data.json"]


def test_brackets_of_a_sentence_are_printed(monkeypatch, capsys):
    """[pi Lambda] looks like markup to the table."""
    row = Claim("X1", "E_pi[pi Lambda] = 0", "eq. [1]", Verdict.EXACT, lambda: Finding(Verdict.EXACT, "E[s] is 0", {}))
    monkeypatch.setattr(command, "LEDGER", (row,))
    assert command.main([]) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in ("E_pi[pi Lambda] = 0", "eq. [1]", "E[s] is 0"))


def test_evidence_has_half_of_the_room_for_text(monkeypatch, capsys):
    """The claim, the regime and the evidence share it as 3 : 2 : 5; the other columns are as wide as their words."""
    long = "word " * 200
    row = Claim("X1", long, "-", Verdict.EXACT, lambda: Finding(Verdict.EXACT, long, {}), regime=long)
    monkeypatch.setattr(command, "LEDGER", (row,))
    assert command.main([]) == 0
    top = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("┏"))
    id, claim, said_by, regime, verdict, evidence = (len(part) for part in top.strip("┏┓").split("┳"))
    assert len(top) == 140
    assert (id, said_by, verdict) == tuple(len(f" {word} ") for word in ("X1", "said by", "verdict"))
    assert abs(evidence - claim - regime) <= 2
    assert abs(2 * claim - 3 * regime) <= 4


def test_readme_shows_a_row_as_it_is_printed(capsys):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    shown = [line for line in readme.splitlines() if line.startswith("│")]
    assert command.main(["--only", "A3"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")] == shown


def test_command_says_what_changed(monkeypatch, capsys):
    changed = Claim("X1", "water is dry", "nowhere", Verdict.EXACT, lambda: Finding(Verdict.FAILS, "it is wet", {}))
    monkeypatch.setattr(command, "LEDGER", (changed,))
    assert command.main([]) == 1
    out = capsys.readouterr().out
    assert "X1: recorded 'exact', now 'fails'" in out
    assert "1 changed" in out


def test_command_refuses_unknown_rows(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["--only", "Z9"])
    assert stop.value.code == 2
    assert "expected ids among S1" in capsys.readouterr().err
