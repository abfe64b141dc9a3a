"""The audit: readers of every format, what is reported, what is refused; real files throughout."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from scale.audit import readers, replay_log, report
from scale.run.records import Records
from theory.allocation import log_replay
from theory.allocation.history import SuccessHistory
from theory.allocation.rules import get_allocator

ROOT = Path(__file__).parents[3]


def simulated(seed=0, rule="uniform", num_prompts=40, size=10, steps=16, mean=8):
    """Return a table of rollouts of a made run whose steps are allocated by a rule in [4, 12]."""
    rng = np.random.default_rng(seed)
    p = rng.beta(0.7, 0.7, num_prompts)
    history, rows = SuccessHistory(), []
    epochs = [rng.permutation(num_prompts) for _ in range(-(-steps * size // num_prompts))]
    for step, batch in enumerate(np.concatenate(epochs)[: steps * size].reshape(steps, size), 1):
        keys = [f"What is {i} + {i}?\n" for i in batch]
        n = get_allocator(rule).allocate(*history.counts(keys), mean * size, 4, 12, rng)
        rewards = [rng.random(m) < np.clip(p[i] + 0.02 * step, 0, 1) for i, m in zip(batch, n, strict=True)]
        history.update(keys, [x.sum() for x in rewards], n)
        rows += [(step, key, float(x)) for key, group in zip(keys, rewards, strict=True) for x in group]
    return pd.DataFrame(rows, columns=["step", "prompt", "reward"])


@pytest.fixture(scope="module")
def table():
    return simulated()


def write_verl(table, folder, score="score", decode=lambda x: x):
    """Write dumps with the fields of verl's `_write_generations` (compared in a test below)."""
    folder.mkdir()
    for step, rows in table.groupby("step"):
        lines = [
            json.dumps(
                {
                    "input": x.prompt,
                    "output": "é" * 9,
                    "gts": "4",
                    score: decode(x.reward),
                    "step": step,
                    "uid": f"{i}_0_0",
                },
                ensure_ascii=False,
            )
            for i, x in enumerate(rows.itertuples())
        ]
        (folder / f"{step}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def write_trl(table, folder, repeated=()):
    """Write `completions_<step>.parquet` as TRL's GRPOTrainer does: pandas, one column per reward function."""
    folder.mkdir(parents=True)
    for step, rows in table.groupby("step"):
        frame = pd.DataFrame(
            {
                "step": step,
                "prompt": rows.prompt,
                "completion": [f"{step}: {i}" for i in range(len(rows))],
                "accuracy_reward": rows.reward,
                "advantage": rows.reward - rows.reward.mean(),
            }
        )
        frame.to_parquet(folder / f"completions_{step:05d}.parquet")
        if step in repeated:
            frame.assign(step=step + 1000).to_parquet(folder / f"completions_{step + 1000:05d}.parquet")
    return folder


def write_allocation(table, folder):
    records = Records(folder)
    for step, rows in table.groupby("step"):
        groups = rows.groupby("prompt", sort=False).reward
        records.allocation(
            int(step), list(groups.indices), groups.size().to_numpy(), groups.sum().to_numpy().astype(int)
        )
    (folder / "metrics.jsonl").write_text("{}\n")
    return folder


def write(table, kind, folder):
    """Write the log in a format; returns what to pass to the reader."""
    if kind == "verl":
        return write_verl(table, folder / "rollouts")
    if kind == "trl":
        write_trl(table, folder / "run" / "completions")
        return folder / "run"
    if kind == "allocation":
        return write_allocation(table, folder / "run")
    path = folder / f"log.{kind}"
    if kind == "csv":
        table.to_csv(path, index=False)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_dict("records")))
    else:
        table.to_parquet(path, row_group_size=100)
    return path


def run(*arguments):
    """Run the command; returns what it printed."""
    parser = argparse.ArgumentParser()
    replay_log.add_arguments(parser)
    console = Console(width=150, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    try:
        assert replay_log.command(parser.parse_args(list(map(str, arguments))), console) == 0
    finally:
        console.file.close()
    return console.export_text()


class TestReaders:
    @pytest.mark.parametrize("kind", readers.FORMATS)
    def test_every_format_gives_the_same_groups(self, table, kind, tmp_path, monkeypatch):
        """Counts by pandas; batches and blocks small, so that groups straddle them."""
        monkeypatch.setattr(readers, "BATCH_ROWS", 37)
        monkeypatch.setattr(readers, "BLOCK_BYTES", 1500)
        log = readers.read([write(table, kind, tmp_path)])
        assert log.format == kind
        expected = table.groupby(["step", "prompt"]).reward.agg(["size", "sum"])
        found = {
            (t, log.prompts[i]): (n, k)
            for t, i, n, k in zip(log.step, log.prompt, log.attempts, log.successes, strict=True)
        }
        assert found == {at: (int(n), int(k)) for at, n, k in zip(expected.index, *expected.to_numpy().T, strict=True)}
        assert list(log.step) == sorted(log.step)
        assert list(log.prompts) == list(dict.fromkeys(table.prompt))

    def test_order_of_rows_is_immaterial(self, table, tmp_path):
        shuffled = table.sample(frac=1.0, random_state=1)
        one, other = (
            readers.read([write(x, "parquet", folder)])
            for x, folder in ((table, tmp_path), (shuffled, tmp_path / "b"))
            if not folder.mkdir(exist_ok=True)
        )

        def named(log):
            return sorted(zip(log.step, [log.prompts[i] for i in log.prompt], log.attempts, log.successes, strict=True))

        assert named(one) == named(other)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda r: 2 * r - 1, "rewards of -1 are wrong, of 1 right"),
            (lambda r: 1 - 0.9 * (1 - r), "rewards of 0.1 are wrong, of 1 right"),
            (lambda r: r.astype(bool), "rewards of 0 are wrong, of 1 right"),
            (lambda r: r.astype(int), "rewards of 0 are wrong, of 1 right"),
        ],
    )
    def test_any_two_rewards(self, table, change, said, tmp_path):
        log = readers.read([write(table.assign(reward=change(table.reward)), "parquet", tmp_path)])
        assert log.rewards == said
        assert log.successes.sum() == table.reward.sum()

    def test_more_rewards_need_a_threshold(self, table, tmp_path):
        graded = table.assign(reward=table.reward + 0.1 * (np.arange(len(table)) % 3))
        path = write(graded, "parquet", tmp_path)
        with pytest.raises(ValueError, match=r"log.parquet: expected rewards of two values.* got 0, .*--success"):
            readers.read([path])
        log = readers.read([path], success=1.0)
        assert log.successes.sum() == table.reward.sum()

    @pytest.mark.parametrize(("value", "share"), [(0.0, 0.0), (1.0, 1.0)])
    def test_only_zeros_or_only_ones(self, table, value, share, tmp_path):
        log = readers.read([write(table.assign(reward=value), "csv", tmp_path)])
        assert log.successes.sum() == share * len(table)
        with pytest.raises(ValueError, match=r"expected rewards of two values, got 0.5 only"):
            readers.read([write(table.assign(reward=0.5), "csv", tmp_path)])

    def test_named_columns_and_integer_prompts(self, table, tmp_path):
        other = pd.DataFrame({"id": table.prompt.astype("category").cat.codes, "it": table.step, "ok": table.reward})
        names = readers.Columns("id", "it", "ok")
        for kind in ("parquet", "csv"):
            log = readers.read([write(other, kind, tmp_path)], columns=names)
            assert log.attempts.sum() == len(table)
            assert set(log.prompts) == set(map(str, range(40)))

    def test_prompts_that_arrow_has_coded(self, table, tmp_path):
        coded = pa.Table.from_pandas(table.assign(prompt=table.prompt.astype("category")))
        pq.write_table(coded, tmp_path / "x.parquet")
        assert readers.read([tmp_path / "x.parquet"]).attempts.sum() == len(table)

    def test_trl_repeats_are_counted_once(self, table, tmp_path):
        log = readers.read([write_trl(table, tmp_path / "completions", repeated=(3,))])
        assert log.attempts.sum() == len(table)
        assert log.notes == (
            "completions_01003.parquet has the very completions of completions_00003.parquet; they are counted once.",
        )

    def test_trl_rewards_by_name(self, table, tmp_path):
        folder = write_trl(table, tmp_path / "completions")
        for path in folder.iterdir():
            pd.read_parquet(path).assign(format_reward=0.5).to_parquet(path)
        with pytest.raises(
            ValueError, match="expected one reward column beside TRL's own, got accuracy_reward, format_reward; name it"
        ):
            readers.read([folder])
        log = readers.read([folder], columns=readers.Columns(reward="accuracy_reward"))
        assert log.successes.sum() == table.reward.sum()

    def test_an_unfinished_last_line_of_our_record(self, table, tmp_path):
        folder = write_allocation(table, tmp_path / "run")
        path = folder / "allocation.jsonl"
        path.write_text(path.read_text()[:-20])
        assert readers.read([folder]).step.max() == table.step.max() - 1

    @pytest.mark.needs_verl
    def test_verls_own_writer(self, table, tmp_path):
        """Its dump of the same rollouts gives the same groups, and has the fields that are assumed here."""
        from verl.trainer.ppo.v1.trainer_base import PPOTrainer

        for step, rows in table.groupby("step"):
            inputs, size = rows.prompt.tolist(), len(rows)
            PPOTrainer._write_generations(
                inputs, ["é\n"] * size, ["4"] * size, rows.reward.tolist(), {"uid": inputs}, str(tmp_path / "v"), step
            )
        one, other = readers.read([tmp_path / "v"]), readers.read([write_verl(table, tmp_path / "w")])
        for name in ("step", "prompt", "attempts", "successes"):
            assert getattr(one, name).tolist() == getattr(other, name).tolist()


class TestRefusals:
    def refused(self, paths, message, **options):
        with pytest.raises(ValueError, match=message):
            readers.read(paths if isinstance(paths, list) else [paths], **options)

    @pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
    @pytest.mark.parametrize("column", ["prompt", "step", "reward"])
    def test_missing_columns(self, table, kind, column, tmp_path):
        path = write(table.drop(columns=column), kind, tmp_path)
        self.refused(path, rf"log.{kind}: expected .*{column}")

    @pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
    @pytest.mark.parametrize(
        ("column", "value", "message"),
        [
            ("step", "four", "step"),
            ("reward", "right", "reward"),
            ("reward", np.nan, r"reward.*(row|line) 8"),
            ("reward", np.inf, r"reward.*(row|line) 8"),
            ("step", 1.5, r"whole numbers in step, got 1.5 in (row|line) 8"),
            ("step", -1, r"steps >= 0 in step, got -1 in (row|line) 8"),
        ],
    )
    def test_wrong_values(self, table, kind, column, value, message, tmp_path):
        """Value 7, from 0: line 8 of the lines, and of the rows of a CSV file; Parquet's rows count from 0."""
        bad = table.astype({column: object})
        bad.loc[7, column] = value
        if kind == "parquet":
            message = message.replace("8", "7")
            bad[column] = bad[column].astype(str if isinstance(value, str) else float)
        self.refused(write(bad, kind, tmp_path), rf"log.{kind}: .*{message}")

    @pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
    def test_empty(self, table, kind, tmp_path):
        self.refused(write(table[:0], kind, tmp_path), rf"log.{kind}: expected .*(rollouts|header).*, got")
        (tmp_path / f"none.{kind}").write_text("")
        self.refused(tmp_path / f"none.{kind}", rf"none.{kind}: expected")

    def test_truncated_parquet(self, table, tmp_path):
        path = write(table, "parquet", tmp_path)
        path.write_bytes(path.read_bytes()[:-100])
        self.refused(path, "log.parquet: expected a readable Parquet file, got")

    def test_damaged_parquet_pages(self, table, tmp_path):
        path = write(table, "parquet", tmp_path)
        data = bytearray(path.read_bytes())
        data[4:1200] = b"\xff" * 1196
        path.write_bytes(bytes(data))
        self.refused(path, "log.parquet: expected")

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('{"input": "a", "score": 1', r"4.jsonl: expected JSON in line 3, got"),
            ("[1]", r"4.jsonl: expected a JSON object in line 3, got list"),
            ('{"input": "a", "step": 4}', r"4.jsonl: expected a number as score in line 3, got null"),
            ('{"input": "a", "score": true, "step": 4}', r"expected a number as score in line 3, got true"),
            ('{"input": "a", "score": "1", "step": 4}', r'expected a number as score in line 3, got "1"'),
            ('{"input": [1], "score": 1, "step": 4}', r"expected text as input in line 3, got \[1\]"),
            ('{"input": "a", "score": NaN, "step": 4}', r"expected a number as score in line 3, got NaN"),
            ('{"input": "a", "score": 1, "step": 4} {}', r"expected JSON in line 3, got Extra data"),
        ],
    )
    def test_damaged_line(self, table, line, message, tmp_path):
        folder = write_verl(table, tmp_path / "rollouts")
        lines = (folder / "4.jsonl").read_text().splitlines()
        lines[2] = line
        (folder / "4.jsonl").write_text("\n".join(lines) + "\n")
        self.refused(folder, message)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('{"step": 1, "keys": ["a"], "counts": [2]}', "line 17, got KeyError"),
            ('{"step": 99, "keys": ["a"], "counts": [2], "successes": [3]}', "line 17, got others"),
            ('{"step": 99, "keys": ["a", "a"], "counts": [2, 2], "successes": [1, 1]}', "line 17, got others"),
            ('{"step": 99, "keys": ["a"], "counts": [2.5], "successes": [1]}', "line 17, got others"),
            ('{"step": 3, "keys": ["a"], "counts": [2], "successes": [1]}', "line 17, got step 3 twice"),
            ("{", "expected JSON in line 17"),
        ],
    )
    def test_damaged_record(self, table, line, message, tmp_path):
        folder = write_allocation(table, tmp_path / "run")
        with (folder / "allocation.jsonl").open("a") as file:
            file.write(line + "\n")
        self.refused(folder, rf"allocation.jsonl: expected .*{message}|allocation.jsonl: {message}")

    @pytest.mark.parametrize("size", [50, 2000])
    def test_lines_are_numbered_through_the_blocks(self, table, size, tmp_path, monkeypatch):
        """Of which some are parsed ahead; the first damage is the one that is told."""
        whole = readers.read([write(table, "jsonl", tmp_path)])
        monkeypatch.setattr(readers, "BLOCK_BYTES", size)
        path = tmp_path / "log.jsonl"
        found = readers.read([path])
        for name in ("step", "prompt", "attempts", "successes"):
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
        lines = path.read_text().splitlines()
        lines[700], lines[900] = '{"prompt": "x", "step": 1, "reward": "no"}', "{"
        path.write_text("\n".join(lines))
        self.refused(path, "log.jsonl: expected a number as reward in line 701, got")

    def test_files(self, table, tmp_path):
        csv, parquet = (write(table, kind, tmp_path) for kind in ("csv", "parquet"))
        self.refused(
            [csv, parquet], r"log.parquet: expected the format of .*log.csv, csv, got parquet; one call reads one"
        )
        self.refused(tmp_path, r"expected files of one kind, .*, got .csv and .parquet")
        self.refused(tmp_path / "no.csv", "no.csv: expected a file or a folder, got nothing of that name")
        self.refused([csv, csv], "log.csv: expected every file once, got it 2 times")
        (tmp_path / "log.txt").write_text("x")
        self.refused(tmp_path / "log.txt", "log.txt: expected a file .csv, .parquet, .jsonl, got '.txt'")
        (tmp_path / "empty").mkdir()
        self.refused(tmp_path / "empty", "expected files of one kind, .csv, .parquet, .jsonl, got none")
        nested = pa.table({"prompt": [[{"role": "user"}]], "step": [1], "reward": [1.0]})
        pq.write_table(nested, tmp_path / "nested.parquet")
        self.refused(tmp_path / "nested.parquet", "nested.parquet: expected text or integers in prompt, got list")

    def test_two_runs(self, table, tmp_path):
        folders = [write_verl(table, tmp_path / name) for name in "ab"]
        self.refused(
            folders, r"b/1.jsonl: expected steps of its own, got step 1 of .*a/1.jsonl; one call reads one run"
        )


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
        log = readers.read([tmp_path / "x.csv"])
        found = replay_log.audit(log, 2, 6)
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
        log = readers.read([write(simulated(3, rule, steps=12), "parquet", tmp_path)])
        found = replay_log.audit(log, 4, 12)
        ours, own = found["rules"]["log"], found["rules"][rule]
        assert ours == own
        assert own["noise_against_log"]["grpo"]["interval"] == [1.0, 1.0]
        assert own["weight_moved_token_mean"] > 0.02
        assert not found["replay"]["uniform_log"]
        ratio = found["rules"]["uniform"]["noise_against_log"]["exact-baseline"]["point"][0]
        assert ratio == pytest.approx(1 / own["noise_against_uniform"]["exact-baseline"]["point"][0])

    def test_ratios_are_those_of_the_true_rates(self, tmp_path):
        """A long log with known p: the interval of each rule holds the exact ratio."""
        rng = np.random.default_rng(11)
        num, steps, n = 400, 40, 8
        p = rng.beta(0.8, 0.8, num)
        batches = np.concatenate([rng.permutation(num).reshape(4, 100) for _ in range(steps // 4)])
        step, prompt = np.repeat(np.arange(steps), 100), batches.reshape(-1)
        k = rng.binomial(n, p[prompt])
        log = readers.Log(
            "csv", (Path("x"),), tuple(map(str, range(num))), step, prompt, np.full(step.size, n), k, "", ()
        )
        found = replay_log.audit(log)
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
            low, high = found["rules"][name]["noise_against_uniform"]["exact-baseline"]["interval"]
            assert low < exact < high
            assert high - low < 0.1
            same = p[prompt[rows]] ** m + (1 - p[prompt[rows]]) ** m
            low, high = found["rules"][name]["degenerate_share"]
            assert low - 0.02 < same.mean() < high + 0.02
        assert found["rules"]["neyman"]["verdict"] == "less noise"

    def test_no_prompt_comes_back(self, tmp_path):
        log = readers.read([write(simulated(steps=4), "csv", tmp_path)])
        found = replay_log.audit(log)
        assert found["rules"] == {}
        assert found["cannot_say"][0].startswith("No prompt comes back in a later step")
        report.show(found, Console(quiet=True))

    def test_what_cannot_be_said(self, table, tmp_path):
        said = " ".join(replay_log.audit(readers.read([write(table, "csv", tmp_path)]))["cannot_say"])
        assert "uniform: 1 is in the interval." in said
        assert "does not hold the scores" in said
        kept = table.groupby(["step", "prompt"]).reward.transform("nunique") == 2
        said = " ".join(replay_log.audit(readers.read([write(table[kept], "parquet", tmp_path)]))["cannot_say"])
        assert "No group is all right or all wrong. If the log was filtered" in said

    def test_steps_are_thinned_evenly_and_slow_rules_further(self, table, tmp_path, monkeypatch):
        log = readers.read([write(table, "csv", tmp_path)])
        found = replay_log.audit(log, steps=7)
        assert found["replay"]["steps"] == 7
        assert found["replay"]["steps_with_history"] == 12
        monkeypatch.setattr(replay_log, "WORK", 10 * 10 * 10 * 8 * 9)
        found = replay_log.audit(log)
        assert found["rules"]["log-progress"]["steps"] == 10
        assert found["rules"]["neyman"]["steps"] == 12
        monkeypatch.setattr(replay_log, "WORK", 1)
        assert "would take too long" in replay_log.audit(log)["left_out"]["log-progress"]

    def test_bounds_that_do_not_fit(self, table, tmp_path):
        log = readers.read([write(table, "csv", tmp_path)])
        with pytest.raises(
            ValueError, match="--low, --high: expected bounds around 8, the mean of step 5, got 9 to 12"
        ):
            replay_log.audit(log, 9, 12)


class TestCommand:
    def test_prints_and_writes(self, table, tmp_path):
        path, out = write(table, "parquet", tmp_path), tmp_path / "out"
        printed = run(path, "--out", out, "--seed", 3)
        for text in (
            "1,280 rollouts of 40 prompts in 16 steps",
            "neyman",
            "What these data cannot say",
            "Left out: dars",
        ):
            assert text in printed
        names = {"audit.json", "audit.parquet", "audit.pdf", "audit.svg", "audit.png"}
        assert {x.name for x in out.iterdir()} == names
        result = json.loads((out / "audit.json").read_text())
        assert result["replay"]["seed"] == 3
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
from rich.console import Console
parser = argparse.ArgumentParser()
replay_log.add_arguments(parser)
replay_log.command(parser.parse_args([{str(path)!r}, "--out", {str(out)!r}]), Console(width=120))
"""
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "no plot: it needs matplotlib" in done.stdout
        assert {x.name for x in out.iterdir()} == {"audit.json", "audit.parquet"}
