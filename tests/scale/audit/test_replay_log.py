"""What an audit reports of a log, and the command."""

from __future__ import annotations

import argparse
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scale.audit import Log, audit, comparison, read_log, replay_log, report
from tests.scale.audit.logs import simulated, write
from theory.allocation import get_allocator, log_replay, register
from theory.base.terminal import Console
from theory.statistics import holm

ROOT = Path(__file__).parents[3]


def test_the_commands_defaults_are_those_of_the_function():
    defaults = {name: x.default for name, x in inspect.signature(audit).parameters.items()}
    for name in ("discount", "steps", "seed"):
        assert replay_log.ARGUMENTS[f"--{name}"]["default"] == defaults[name]


def run(*arguments):
    """Run the command; returns what it printed."""
    parser = argparse.ArgumentParser()
    for name, settings in replay_log.ARGUMENTS.items():
        parser.add_argument(name, **settings)
    console = Console(width=150, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    try:
        assert replay_log.command(parser.parse_args(list(map(str, arguments))), console) == 0
    finally:
        console.file.close()
    return console.export_text()


class TestAudit:
    def test_by_hand(self, tmp_path):
        """Two prompts, two steps, four rollouts each, but one group of one."""
        groups = [
            (1, "a", [1, 1, 1, 1]),
            (1, "b", [0, 0, 0, 1]),
            (2, "a", [1, 1, 0, 1]),
            (2, "b", [0, 0, 0, 0]),
            (2, "c", [1]),
        ]
        rows = [(t, i, r) for t, i, rewards in groups for r in rewards]
        pd.DataFrame(rows, columns=["step", "prompt", "reward"]).to_csv(tmp_path / "x.csv", index=False)
        log = read_log([tmp_path / "x.csv"])
        found = audit(log, 2, 6)
        assert found["log"] | {"files": 0} == {
            "format": "csv", "files": 0, "rewards": "rewards of 0 are wrong, of 1 right", "steps": 2, "prompts": 3,
            "groups": 5, "rollouts": 17,
        }  # fmt: skip
        assert found["groups"]["degenerate_share"] == 3 / 5
        assert found["groups"]["wasted_share"] == 9 / 17
        assert found["groups"]["of_one"] == 1
        # (1/16 - 0 - (3/16)/4 + 1/16 - (1/16) ...) by hand: changes 1/4 and 1/4, noise P/n = (3/12)/4 each
        assert found["prompts"]["change_between_visits"] == pytest.approx(0.0)
        assert found["replay"]["groups"] == 2
        # The history of step 2 is a: 4 of 4, b: 1 of 4. Neyman gives all above the floor to b, which has no variance
        # in step 2; a has P = 3 (4 - 3) / (4 * 3) = 1/4: noise (1/4)/2 against (1/4)/4.
        neyman = found["rules"]["neyman"]
        assert neyman["noise_against_uniform"]["exact-baseline"]["point"] == [2.0, 2.0]
        assert neyman["noise_against_uniform"]["rloo"]["point"] == [3.0, 3.0]
        assert neyman["weight_moved_token_mean"] == 0.25
        assert neyman["success_rate_of_a_rollout"] == 0.75 * 2 / 8
        # a: 2 of 4 with 3 right agree with probability 1/2; b: p^6 + q^6, between 1 - 0 and 1.
        assert neyman["degenerate_share"] == [0.75, 0.75]
        assert neyman["wasted_share"] == [(2 * 0.5 + 6) / 8] * 2

    @pytest.mark.parametrize("rule", ["dynamo", "knapsack"])
    def test_a_run_that_used_a_rule_is_that_rule_replayed(self, rule, tmp_path):
        log = read_log([write(simulated(3, rule, steps=12), "parquet", tmp_path)])
        found = audit(log, 4, 12)
        ours, own = found["rules"]["log"], found["rules"][rule]
        assert ours == own
        assert own["noise_against_log"]["grpo"]["interval"] == [1.0, 1.0]
        assert own["weight_moved_token_mean"] > 0.02
        assert not found["replay"]["uniform_log"]
        ratio = found["rules"]["uniform"]["noise_against_log"]["exact-baseline"]["point"][0]
        assert ratio == pytest.approx(1 / own["noise_against_uniform"]["exact-baseline"]["point"][0])

    @pytest.mark.parametrize(("last", "uniform"), [((6, 6, 6), True), ((5, 6, 7), False)])
    def test_a_log_is_uniform_whose_steps_are_each(self, last, uniform):
        """Then a rule against the log is the rule against uniform, and is said once."""
        step, prompt, n = np.repeat(np.arange(3), 3), np.tile(np.arange(3), 3), np.array([4] * 6 + list(last))
        k = np.array([1, 2, 3, 2, 1, 3, 2, 3, 4])
        found = audit(Log("csv", (Path("x"),), ("a", "b", "c"), step, prompt, n, k, "", ()))
        assert found["replay"]["uniform_log"] is uniform
        against = found["rules"]["uniform"]["noise_against_log"]["exact-baseline"]["point"]
        assert (against == [1.0, 1.0]) is uniform

    def test_ratios_are_those_of_the_true_rates(self, tmp_path):
        """A long log with known p: the points of six rules are within three standard errors of the exact ratios."""
        rng = np.random.default_rng(11)
        num, steps, n = 400, 40, 8
        p = rng.beta(0.8, 0.8, num)
        batches = np.concatenate([rng.permutation(num).reshape(4, 100) for _ in range(steps // 4)])
        step, prompt = np.repeat(np.arange(steps), 100), batches.reshape(-1)
        k = rng.binomial(n, p[prompt])
        log = Log("csv", (Path("x"),), tuple(map(str, range(num))), step, prompt, np.full(step.size, n), k, "", ())
        found = audit(log)
        past = log_replay.past_counts(step, prompt, k, log.attempts)
        rows = past[1] > 0
        assert found["replay"]["groups"] == rows.sum()
        assert (found["replay"]["low"], found["replay"]["high"]) == (4, 12)
        v = (p * (1 - p))[prompt[rows]]
        for name in ("dynamo", "neyman", "gvm", "knapsack", "vip", "cures"):
            m = log_replay.replay(
                get_allocator(name), step[rows], past[0][rows], past[1][rows], log.attempts[rows], 4, 12, rng
            )
            exact = (v / m).sum() / (v / n).sum()
            noise = found["rules"][name]["noise_against_uniform"]["exact-baseline"]
            low, high = noise["interval"]
            assert abs(exact - noise["point"][0]) < 3 / 1.96 * (high - low) / 2
            assert high - low < 0.04
            same = p[prompt[rows]] ** m + (1 - p[prompt[rows]]) ** m
            low, high = found["rules"][name]["degenerate_share"]
            assert low - 0.02 < same.mean() < high + 0.02
        assert found["rules"]["neyman"]["verdict"] == "less noise"

    def test_a_rule_that_overspends_is_left_out(self, table, tmp_path):
        class Threefold:
            name = "threefold"

            def counts(self, problem, rng):
                return np.full(problem.num_prompts, 3 * problem.budget // problem.num_prompts)

        register(Threefold())
        found = audit(read_log([write(table, "csv", tmp_path)]))
        assert "threefold" not in found["rules"]
        assert found["left_out"]["threefold"].startswith("rule threefold: counts: expected finite values in [4, 12]")

    def test_no_prompt_comes_back(self, tmp_path):
        log = read_log([write(simulated(steps=4), "csv", tmp_path)])
        found = audit(log)
        assert found["rules"] == {}
        assert found["cannot_say"][0].startswith("No prompt comes back in a later step")
        report.show(found, Console(quiet=True))

    def test_prompts_that_come_back_in_groups_of_one(self, table, tmp_path):
        found = audit(read_log([write(table.drop_duplicates(["step", "prompt"]), "csv", tmp_path)]))
        assert found["prompts"]["visits_mean"] == 4
        assert found["rules"] == {}
        said = " ".join(found["cannot_say"])
        assert "No prompt comes back" not in said
        assert "No group of two or more has a history" in said

    @pytest.mark.parametrize("times", [2, 3])
    def test_a_log_given_several_times(self, times, tmp_path):
        table = simulated(2, num_prompts=120, size=60, steps=16)
        once, found = (
            audit(read_log([write(rows, "csv", tmp_path)]), 4 * number, 12 * number)
            for number, rows in ((1, table), (times, pd.concat([table] * times)))
        )
        assert (once["groups"]["copies"], found["groups"]["copies"]) == (1, times)
        assert "log given" not in " ".join(once["cannot_say"])
        asked = "is even: was the log given twice?" if times == 2 else "multiple of 3: was the log given 3 times?"
        assert asked in found["cannot_say"][0]
        assert "less noise" in {x["verdict"] for x in once["rules"].values()}
        assert {x["verdict"] for x in found["rules"].values()} >= {"less noise?", "the same"}
        assert not {x["verdict"] for x in found["rules"].values()} & {"less noise", "more noise"}
        assert report._drawn(found).axes[2].get_title() == "verdicts in doubt"

    def test_what_cannot_be_said(self, table, tmp_path):
        short = table[table.step < 8]
        said = " ".join(audit(read_log([write(short, "csv", tmp_path)]))["cannot_say"])
        assert "uniform: 1 is in the interval." in said
        assert "does not hold the scores" in said
        assert "other prompts, steps or runs" in said
        assert "left out" not in said

    @pytest.mark.parametrize(("kind", "reward", "other"), [("right", 1.0, "wrong"), ("wrong", 0.0, "right")])
    def test_a_filtered_log_gets_no_verdict(self, kind, reward, other, tmp_path):
        """Groups of one kind are missing; the same log, unfiltered, has verdicts."""
        table = simulated(2, num_prompts=120, size=60, steps=16)
        whole = audit(read_log([write(table, "parquet", tmp_path)]))
        assert whole["filtered"]["verdict"] == "no"
        assert {x["verdict"] for x in whole["rules"].values()} >= {"less noise", "the same"}
        kept = table.groupby(["step", "prompt"]).reward.transform(lambda x: (x != reward).any())
        found = audit(read_log([write(table[kept], "csv", tmp_path)]))
        assert {x["verdict"] for x in found["rules"].values()} == {"withheld"}
        assert {x["p_value_of_all"] for x in found["rules"].values()} == {None}
        for result, title, color in ((found, "verdicts withheld", "0.7"), (whole, "", "#0173b2")):
            plot = report._drawn(result).axes[2]
            assert plot.get_title() == title
            assert {line.get_color() for line in plot.lines[1:]} == {color}
        groups = found["log"]["groups"]
        assert found["cannot_say"][0].startswith(f"None of {groups:,} groups are all {kind}. Beside the groups with")
        assert f"one or two {other} rollouts" in found["cannot_say"][0]
        assert (
            found["filtered"][f"all_{kind}_chance"] < comparison.IMPROBABLE < found["filtered"][f"all_{other}_chance"]
        )

    def test_a_small_log_without_such_groups_says_what_it_cannot_tell(self, table, tmp_path):
        kept = table.groupby(["step", "prompt"]).reward.transform("nunique") == 2
        found = audit(read_log([write(table[kept & (table.step < 9)], "parquet", tmp_path)]))
        assert found["filtered"]["verdict"] == "perhaps"
        assert {x["verdict"] for x in found["rules"].values()} <= {
            "less noise?",
            "more noise?",
            "cannot say",
            "the same",
        }
        for sentence, kind in zip(found["cannot_say"], ("right", "wrong"), strict=False):
            doubtful = found["filtered"][f"all_{kind}_chance"] < comparison.DOUBTFUL
            said = ". Beside the groups with one or two" if doubtful else ", and the log is too small to say"
            assert sentence.startswith(f"No group is all {kind}{said}")

    def test_a_log_without_noise_has_no_interval(self, tmp_path):
        """All groups are all right or all wrong: nothing is known of the ratio, and nothing fails."""
        rows = [(t, i, float(i < 3)) for t in range(4) for i in range(6) for _ in range(4)]
        pd.DataFrame(rows, columns=["step", "prompt", "reward"]).to_csv(tmp_path / "log.csv", index=False)
        printed = run(tmp_path / "log.csv", "--out", tmp_path / "out")
        result = json.loads((tmp_path / "out" / "audit.json").read_text())
        nothing = {"point": [None, None], "interval": [None, None], "p_value": 1.0, "method": "none"}
        of_noise = {x["noise_against_uniform"]["exact-baseline"]["method"] for x in result["rules"].values()}
        assert of_noise == {"same", "none"}
        for x in result["rules"].values():
            noise = x["noise_against_uniform"]["exact-baseline"]
            assert noise == nothing or noise["method"] == "same"
            assert x["verdict"] == ("cannot say" if noise == nothing else "the same")
        assert "? (?-?)" in printed
        said = " ".join(printed.split())
        assert "so there is no noise to compare." in said
        assert "1 is in the interval" not in said

    def test_one_rule_that_cannot_be_told(self, table, tmp_path):
        rule = audit(read_log(write(table, "csv", tmp_path)))["rules"]["vip"] | {"verdict": "cannot say"}
        (sentence,) = comparison._unclear({"vip": rule})
        assert sentence == "Whether vip makes more or less noise than uniform: 1 is in the interval."

    def test_the_plot_has_the_stars_of_the_table(self, table, tmp_path):
        found = audit(read_log([write(table[table.groupby(["step", "prompt"]).cumcount() < 3], "csv", tmp_path)]))
        plot = report._drawn(found).axes[2]
        stars = {
            name: x["noise_against_uniform"]["exact-baseline"]["method"] == "predicted"
            for name, x in found["rules"].items()
            if name != "uniform"
        }
        labels = [label.get_text() for label in plot.get_yticklabels()]
        assert labels == [(report.THIS_LOG if name == "log" else name) + "*" * star for name, star in stars.items()]
        assert set(stars.values()) == {False, True}
        assert "Student's t\n* by predictions" in plot.get_xlabel()
        plot.figure.draw_without_rendering()
        assert plot.xaxis.label.get_window_extent().x1 <= plot.figure.bbox.x1

    def test_steps_are_thinned_evenly_and_slow_rules_further(self, table, tmp_path, monkeypatch):
        log = read_log([write(table, "csv", tmp_path)])
        found = audit(log, steps=7)
        assert found["replay"]["steps"] == 7
        assert found["replay"]["steps_with_history"] == 12
        monkeypatch.setattr(comparison, "MOST_ENTRIES", 10 * 10 * 10 * 8 * 9)
        found = audit(log)
        assert found["rules"]["log-progress"]["steps"] == 10
        assert {rule["steps"] for name, rule in found["rules"].items() if name != "log-progress"} == {12}
        monkeypatch.setattr(comparison, "MOST_ENTRIES", 1)
        assert "would take too long" in audit(log)["left_out"]["log-progress"]

    def test_bounds_that_do_not_fit(self, table, tmp_path):
        log = read_log([write(table, "csv", tmp_path)])
        with pytest.raises(
            ValueError, match="--low, --high: expected bounds around 8, the mean of step 5, got 9 to 12"
        ):
            audit(log, 9, 12)


class TestCommand:
    def test_prints_and_writes(self, table, tmp_path):
        path, out = write(table, "parquet", tmp_path), tmp_path / "out"
        printed = run(path, "--out", out, "--seed", 3)
        for text in (
            "1,280 rollouts of 40 prompts in 16 steps",
            "neyman",
            "What these data cannot say",
            "Left out: dars",
            "given the past of each step",
            "is for one rule alone. With Holm's correction for 8 rules these words stay: ",
        ):
            assert text in " ".join(printed.split())
        names = {"audit.json", "audit.parquet", "audit.pdf", "audit.svg", "audit.png"}
        assert {x.name for x in out.iterdir()} == names
        result = json.loads((out / "audit.json").read_text())
        assert result["replay"]["seed"] == 3
        family = [x for x in result["rules"].values() if x["p_value_of_all"] is not None]
        p_values = [x["noise_against_uniform"]["exact-baseline"]["p_value"] for x in family]
        assert [x["p_value_of_all"] for x in family] == pytest.approx(holm(p_values))
        kept = [name for name, x in result["rules"].items() if (x["p_value_of_all"] or 0) < 0.05 and x in family]
        assert f"8 rules these words stay: {', '.join(kept) or 'none'}. " in " ".join(printed.split())
        told = result["rules"]["knapsack"]
        plain, grpo = (told["noise_against_uniform"][x] for x in ("exact-baseline", "grpo"))
        (row,) = (line for line in printed.splitlines() if line.strip().startswith("knapsack "))
        numbers = [plain["point"][0], *plain["interval"], *grpo["point"]]
        percents = [*told["degenerate_share"], *told["wasted_share"], told["weight_moved_token_mean"]]
        texts = [f"{x:.3f}" for x in numbers] + [f"{100 * x:.1f}" for x in percents]
        assert re.findall(r"\d+\.\d+", row) == [*texts, f"{told['success_rate_of_a_rollout']:.3f}"]
        assert row.rstrip().endswith(told["verdict"])
        prompts = pd.read_parquet(out / "audit.parquet")
        expected = table.groupby("prompt").reward.agg(["size", "sum"]).loc[prompts.prompt]
        assert prompts.rollouts.tolist() == expected["size"].tolist()
        assert prompts.successes.tolist() == expected["sum"].tolist()
        assert np.all((prompts.low <= prompts.success_rate) & (prompts.success_rate <= prompts.high))
        last = table[table.prompt == prompts.prompt[0]]
        last = last[last.step == last.step.max()]
        assert (prompts.last_step[0], prompts.last_rollouts[0]) == (last.step.max(), len(last))
        assert prompts.first_step.min() == 1

        before = {x.name: x.read_bytes() for x in out.iterdir()}
        with pytest.raises(ValueError, match=r"audit.json: expected no results of an earlier audit, got them; --force"):
            run(path, "--out", out)
        run(path, "--out", out, "--seed", 3, "--force")
        assert {x.name: x.read_bytes() for x in out.iterdir()} == before, "the same log and seed give the same bytes"

    def test_nothing_is_written_without_a_folder(self, table, tmp_path, monkeypatch):
        path = write(table, "csv", tmp_path)
        monkeypatch.chdir(tmp_path)
        run(path)
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--format", "tsv"), "--format: expected one of csv, parquet, jsonl, verl, trl, allocation, got 'tsv'"),
            (("--low", "1"), "--low: expected an integer >= 2, got 1"),
            (("--low", "8", "--high", "4"), "--high: expected an integer >= 8, got 4"),
            (("--discount", "2"), r"--discount: expected a finite number in \[0.0, 1.0\], got 2.0"),
            (("--steps", "0"), "--steps: expected an integer >= 1, got 0"),
            (("--prompt-column", "step"), "columns: expected three different ones, got step, step, reward"),
            (
                ("--reward-column", "score"),
                "log.csv: expected the columns prompt, step, score, got step, prompt, reward",
            ),
        ],
    )
    def test_bad_arguments(self, table, arguments, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            run(write(table, "csv", tmp_path), *arguments)

    def test_works_without_verl_vllm_torch_and_matplotlib(self, table, tmp_path):
        """In a fresh process that cannot import them."""
        path, out = write(table, "parquet", tmp_path), tmp_path / "out"
        code = f"""
import sys
class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        absent = ("verl", "vllm", "ray", "hydra", "transformers", "torch", "matplotlib", "seaborn", "pandas")
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent)
from scale.audit import replay_log
assert not {{"numpy", "pyarrow", "rich"}} & set(sys.modules), "light at import"
import argparse
from theory.base.terminal import Console
parser = argparse.ArgumentParser()
for name, settings in replay_log.ARGUMENTS.items():
    parser.add_argument(name, **settings)
replay_log.command(parser.parse_args([{str(path)!r}, "--out", {str(out)!r}]), Console(width=120))
"""
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "no plot: it needs matplotlib" in done.stdout
        assert {x.name for x in out.iterdir()} == {"audit.json", "audit.parquet"}
