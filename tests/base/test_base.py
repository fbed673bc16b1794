import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moir.base.errors import MoirError, OutputExistsError, UnknownNameError
from moir.base.files import atomic_path, write_bytes, write_text
from moir.base.names import TASK_OF_TYPE, TASKS, TYPE_OF_TASK, TYPES, check_name, near_misses


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "new" / "file.txt"
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        assert temporary.suffix == ".txt"
        raise RuntimeError
    assert list(target.parent.iterdir()) == []
    write_text(target, "whole")
    assert target.read_text() == "whole"
    assert target.stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_nothing_is_replaced_unless_asked(tmp_path):
    target = tmp_path / "file"
    write_bytes(target, b"one")
    with pytest.raises(OutputExistsError, match="exists already"):
        write_bytes(target, b"two")
    assert target.read_bytes() == b"one"
    write_bytes(target, b"two", overwrite=True)
    assert target.read_bytes() == b"two"


def test_a_file_that_appears_meanwhile_is_left_alone(tmp_path):
    target = tmp_path / "file"
    with pytest.raises(OutputExistsError, match="appeared"), atomic_path(target) as temporary:
        temporary.write_text("mine")
        target.write_text("theirs")
    assert target.read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@given(st.sampled_from(TASKS), st.data())
def test_a_slip_of_one_letter_is_recognised(task, draw):
    place = draw.draw(st.integers(0, len(task) - 1))
    slipped = task[:place] + task[place + 1 :]
    assert task in near_misses(slipped, TASKS, limit=6)


def test_names():
    assert check_name("rain", TYPES, "type") == "rain"
    with pytest.raises(UnknownNameError, match="unknown type 'xyzzy'; known: noise, rain") as raised:
        check_name("xyzzy", TYPES, "type")
    assert isinstance(raised.value, MoirError)
    assert {TYPE_OF_TASK[TASK_OF_TYPE[t]] for t in TYPES} == set(TYPES)


def _umask():
    current = os.umask(0)
    os.umask(current)
    return current
