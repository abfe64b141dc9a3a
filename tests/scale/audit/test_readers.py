"""Readers of every format, what they have in common and what they refuse; real files throughout."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scale.audit import FORMATS, Columns, audit, log as groups, read_log, readers
from scale.audit.log import blind_order
from tests.scale.audit.logs import write, write_allocation, write_trl, write_verl
from theory.base.files import json_line


class TestReaders:
    @pytest.mark.parametrize("kind", FORMATS)
    def test_every_format_gives_the_same_groups(self, table, kind, tmp_path, monkeypatch):
        """Counts by pandas; batches and blocks small, so that groups straddle them."""
        monkeypatch.setattr(readers, "BATCH_ROWS", 37)
        monkeypatch.setattr(groups, "MERGED_ROWS", 4 * 37)
        monkeypatch.setattr(readers, "BLOCK_BYTES", 1500)
        log = read_log([write(table, kind, tmp_path)])
        assert log.format == kind
        expected = table.groupby(["step", "prompt"]).reward.agg(["size", "sum"])
        found = {
            (t, log.prompts[i]): (n, k)
            for t, i, n, k in zip(log.step, log.prompt, log.attempts, log.successes, strict=True)
        }
        assert found == {at: (int(n), int(k)) for at, n, k in zip(expected.index, *expected.to_numpy().T, strict=True)}
        assert list(log.step) == sorted(log.step)
        assert list(log.prompts) == sorted(set(table.prompt), key=blind_order)

    @pytest.mark.parametrize("kind", FORMATS)
    def test_order_of_rows_is_immaterial(self, table, kind, tmp_path):
        """To the bit: verl sorts the rows of a step by length, which goes with the reward."""
        orders = [
            table,
            table.sample(frac=1.0, random_state=1),
            table.sort_values(["step", "reward"], ascending=[True, False], kind="stable"),
            table.sort_values(["step", "reward"], kind="stable"),
        ]

        def audited(rows, kind, name):
            (tmp_path / name).mkdir()
            log = read_log([write(rows, kind, tmp_path / name)])
            found = audit(log)
            for of_the_format in ("files", "format", "rewards"):
                del found["log"][of_the_format]
            return log.prompts, found

        expected = audited(table, "csv", "table")
        assert [audited(rows, kind, str(number)) for number, rows in enumerate(orders)] == [expected] * 4

    def test_prompts_of_a_code_that_no_row_has(self, table, tmp_path):
        coded = table.assign(prompt=table.prompt.astype("category"))
        pq.write_table(pa.Table.from_pandas(coded[coded.step < 3]), tmp_path / "x.parquet")
        assert sorted(read_log([tmp_path / "x.parquet"]).prompts) == sorted(set(table.prompt[table.step < 3]))

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
        log = read_log([write(table.assign(reward=change(table.reward)), "parquet", tmp_path)])
        assert log.rewards == said
        assert log.successes.sum() == table.reward.sum()

    def test_steps_from_zero(self, table, tmp_path):
        for kind in ("csv", "parquet"):
            log = read_log([write(table.assign(step=table.step - table.step.min()), kind, tmp_path)])
            assert log.step.min() == 0

    def test_more_rewards_need_a_threshold(self, table, tmp_path):
        graded = table.assign(reward=table.reward + 0.1 * (np.arange(len(table)) % 3))
        path = write(graded, "parquet", tmp_path)
        with pytest.raises(ValueError, match=r"log.parquet: expected rewards of two values.* got 0, .*--success"):
            read_log([path])
        log = read_log([path], success=1.0)
        assert log.successes.sum() == table.reward.sum()

    @pytest.mark.parametrize(("value", "share"), [(0.0, 0.0), (1.0, 1.0)])
    def test_only_zeros_or_only_ones(self, table, value, share, tmp_path):
        log = read_log([write(table.assign(reward=value), "csv", tmp_path)])
        assert log.successes.sum() == share * len(table)
        with pytest.raises(ValueError, match=r"expected rewards of two values, got 0.5 only"):
            read_log([write(table.assign(reward=0.5), "csv", tmp_path)])

    def test_named_columns_and_integer_prompts(self, table, tmp_path):
        other = pd.DataFrame({"id": table.prompt.astype("category").cat.codes, "it": table.step, "ok": table.reward})
        names = Columns("id", "it", "ok")
        for kind in ("parquet", "csv"):
            log = read_log([write(other, kind, tmp_path)], columns=names)
            assert log.attempts.sum() == len(table)
            assert set(log.prompts) == set(map(str, range(40)))

    def test_a_path_or_several(self, table, tmp_path):
        path = write(table, "csv", tmp_path)
        sizes = [read_log(x).attempts.tolist() for x in (path, str(path), [path], (str(path),))]
        assert sizes == [sizes[0]] * 4

    def test_prompts_that_arrow_has_coded(self, table, tmp_path):
        coded = pa.Table.from_pandas(table.assign(prompt=table.prompt.astype("category")))
        pq.write_table(coded, tmp_path / "x.parquet")
        assert read_log([tmp_path / "x.parquet"]).attempts.sum() == len(table)

    def test_trl_repeats_are_counted_once(self, table, tmp_path):
        log = read_log([write_trl(table, tmp_path / "completions", repeated=(3,))])
        assert log.attempts.sum() == len(table)
        assert log.notes == (
            "completions_01003.parquet has the very completions of completions_00003.parquet; they are counted once.",
        )

    def test_trl_rewards_by_name(self, table, tmp_path):
        folder = write_trl(table, tmp_path / "completions")
        for path in folder.iterdir():
            pd.read_parquet(path).assign(format_reward=0.5).to_parquet(path)
        with pytest.raises(
            ValueError,
            match="expected one reward column besides TRL's own, got accuracy_reward, format_reward; name it",
        ):
            read_log([folder])
        log = read_log([folder], columns=Columns(reward="accuracy_reward"))
        assert log.successes.sum() == table.reward.sum()

    def test_an_unfinished_last_line_of_our_record(self, table, tmp_path):
        folder = write_allocation(table, tmp_path / "run")
        path = folder / "allocation.jsonl"
        path.write_text(path.read_text()[:-20])
        assert read_log([folder]).step.max() == table.step.max() - 1

    @pytest.mark.needs_verl
    def test_verls_own_writer(self, table, tmp_path):
        """Its dump of the same rollouts gives the same groups, and has the fields that are assumed here."""
        from verl.trainer.ppo.v1.trainer_base import PPOTrainer

        for step, rows in table.groupby("step"):
            inputs, size = rows.prompt.tolist(), len(rows)
            PPOTrainer._write_generations(
                inputs, ["é\n"] * size, ["4"] * size, rows.reward.tolist(), {"uid": inputs}, str(tmp_path / "v"), step
            )
        one, other = read_log([tmp_path / "v"]), read_log([write_verl(table, tmp_path / "w")])
        for name in ("step", "prompt", "attempts", "successes"):
            assert getattr(one, name).tolist() == getattr(other, name).tolist()

    def test_a_last_line_without_an_end_is_told(self, table, tmp_path):
        """It may be cut off: 0.75 would be 0.7."""
        path = write(table, "csv", tmp_path)
        assert not read_log([path]).notes
        path.write_text(path.read_text().removesuffix("\n"))
        assert read_log([path]).notes == (
            "The last line of log.csv has no end; if the file was cut off, its reward is wrong.",
        )


class TestRefusals:
    def refused(self, paths, message, **options):
        with pytest.raises(ValueError, match=message):
            read_log(paths if isinstance(paths, list) else [paths], **options)

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
    @pytest.mark.parametrize("column", ["prompt", "step", "reward"])
    def test_two_columns_of_one_name(self, table, kind, column, tmp_path):
        path = write(table.assign(other=table[column]), kind, tmp_path)
        if kind == "parquet":
            found = pq.read_table(path)
            pq.write_table(found.rename_columns([column if x == "other" else x for x in found.column_names]), path)
        else:
            path.write_text(path.read_text().replace("other", column))
        self.refused(path, rf"log.{kind}: expected .*({column}, got 2|twice)")

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
            ({"keys": ["a"], "counts": [2], "step": 99}, "expected keys, counts and successes of one length"),
            ({"step": 99, "keys": ["a"], "counts": [2], "successes": [3]}, "expected whole numbers"),
            ({"step": 99, "keys": ["a", "a"], "counts": [2, 2], "successes": [1, 1]}, "expected different texts"),
            ({"step": 99, "keys": ["a"], "counts": [2.5], "successes": [1]}, "expected whole numbers"),
            ({"step": 3, "keys": ["a"], "counts": [2], "successes": [1]}, "expected a step after 16, got 3"),
            ({}, "expected JSON that ends with its checksum"),
        ],
    )
    def test_damaged_record(self, table, line, message, tmp_path):
        folder = write_allocation(table, tmp_path / "run")
        with (folder / "allocation.jsonl").open("a") as file:
            file.write(json_line(line) if line else "{\n")
        self.refused(folder, rf"allocation.jsonl: line 17: {message}")

    @pytest.mark.parametrize("size", [50, 2000])
    def test_lines_are_numbered_through_the_blocks(self, table, size, tmp_path, monkeypatch):
        """Of which some are parsed ahead; the first damage is the one that is told."""
        whole = read_log([write(table, "jsonl", tmp_path)])
        monkeypatch.setattr(readers, "BLOCK_BYTES", size)
        path = tmp_path / "log.jsonl"
        found = read_log([path])
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
        other = tmp_path / "other.csv"
        other.write_bytes(csv.read_bytes())
        self.refused([csv, other, csv, other, csv], "log.csv: expected every file once, got it 3 times")
        (tmp_path / "log.txt").write_text("x")
        self.refused(tmp_path / "log.txt", "log.txt: expected a file .csv, .parquet, .jsonl, got '.txt'")
        (tmp_path / "empty").mkdir()
        self.refused(tmp_path / "empty", "expected files of one kind, .csv, .parquet, .jsonl, got none")
        for kind in ("csv", "parquet", "jsonl"):  # a pipe that nobody writes, and a device without an end
            path = tmp_path / f"odd.{kind}"
            os.mkfifo(path)
            self.refused(path, f"odd.{kind}: expected a regular file, which is read twice, got another kind")
            path.unlink()
            path.symlink_to("/dev/zero")
            self.refused(path, f"odd.{kind}: expected a regular file, which is read twice, got another kind")
            path.unlink()
        nested = pa.table({"prompt": [[{"role": "user"}]], "step": [1], "reward": [1.0]})
        pq.write_table(nested, tmp_path / "nested.parquet")
        self.refused(tmp_path / "nested.parquet", "nested.parquet: expected text or integers in prompt, got list")

    def test_two_runs(self, table, tmp_path):
        folders = [write_verl(table, tmp_path / name) for name in "ab"]
        self.refused(
            folders, r"b/1.jsonl: expected steps of its own, got step 1 of .*a/1.jsonl; one call reads one run"
        )
