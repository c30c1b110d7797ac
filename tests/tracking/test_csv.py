from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srpo.tracking import CsvLogger, read_csv
from srpo.types import SrpoError

_NUMBERS = st.one_of(st.integers(-(10**12), 10**12), st.floats(allow_nan=False), st.none())
_ROWS = st.lists(st.dictionaries(st.sampled_from(["loss", "a,b", 'say "hi"', "näme"]), _NUMBERS), max_size=8)


@settings(deadline=None, max_examples=60)
@given(rows=_ROWS, step=st.integers(0, 9))
def test_round_trip_and_resume_with_columns_that_come_and_go(rows: list[dict], step: int) -> None:
    numbered = [{"step": k, **row} for k, row in enumerate(rows, start=1)]
    columns = dict.fromkeys(name for row in numbered for name in row)
    expected = [{name: row.get(name) for name in columns} for row in numbered]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.csv"
        for row in numbered:
            CsvLogger(path).log(row)  # a new logger each time: nothing may be kept in memory alone
        assert CsvLogger(path).rows() == expected
        CsvLogger(path).resume(step)
        assert CsvLogger(path).rows() == expected[:step]
        if numbered:
            CsvLogger(path).log({"step": 100})
            assert CsvLogger(path).rows()[-1]["step"] == 100
        assert [p.name for p in Path(folder).iterdir()] == (["metrics.csv"] if numbered else [])


def test_the_file_is_plain_csv(tmp_path: Path) -> None:
    logger = CsvLogger(tmp_path / "new" / "metrics.csv")
    logger.log({"step": 1, "rate": np.float32(0.5), "fine": True})
    logger.log({"step": np.int64(2), "note": "a, b"})
    assert logger.path.read_text() == 'step,rate,fine,note\n1,0.5,1,\n2,,,"a, b"\n'


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,rate\n1,0.25\n2,0.")
    logger = CsvLogger(path)
    logger.log({"step": 2, "rate": 0.5})
    assert logger.rows() == [{"step": 1, "rate": 0.25}, {"step": 2, "rate": 0.5}]


def test_not_a_number_survives(tmp_path: Path) -> None:
    logger = CsvLogger(tmp_path / "metrics.csv")
    logger.log({"step": 1, "kl": math.nan, "ratio": math.inf})
    (row,) = logger.rows()
    assert math.isnan(row["kl"]) and row["ratio"] == math.inf


def test_bad_input_gets_a_sentence(tmp_path: Path) -> None:
    logger = CsvLogger(tmp_path / "metrics.csv")
    with pytest.raises(SrpoError, match="one line"):
        logger.log({"step": 1, "note": "two\nlines"})
    with pytest.raises(SrpoError, match="at least one column"):
        logger.log({})
    with pytest.raises(SrpoError, match="no metrics"):
        read_csv(tmp_path / "absent.csv")
    (tmp_path / "odd.csv").write_text("step,rate\n1,2,3\n")
    with pytest.raises(SrpoError, match="line 2 has 3 cells"):
        read_csv(tmp_path / "odd.csv")
    logger.log({"rate": 1.0})
    with pytest.raises(SrpoError, match="no column 'step'"):
        logger.resume(3)
