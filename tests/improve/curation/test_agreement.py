import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.improve.curation.agreement import (
    KeptNeighbours,
    agreement,
    nearest_of_others,
    time_blocks,
)

DAY = 86_400_000_000


def directions(rng, size, topics=6, width=8):
    """Messages around one of some topics."""
    topic = rng.integers(0, topics, size)
    return topic, (np.eye(width)[topic] + 0.1 * rng.normal(size=(size, width))).astype(np.float32)


@given(
    st.lists(st.integers(0, 40 * DAY) | st.sampled_from([5 * DAY, 7 * DAY]), max_size=200),
    st.integers(1, 30),
)
def test_blocks_hold_every_row_once_in_order_and_are_bounded(moments, most):
    blocks = time_blocks(np.sort(np.array(moments, dtype=np.int64)), most)
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(
        range(len(moments))
    )
    assert all(0 < block.stop - block.start <= 2 * most for block in blocks)


def test_few_rows_are_one_block_wherever_in_time_they_lie():
    # 2^60 microseconds are in the year 2506, where the second largest cut is
    moments = np.arange(-50, 50, dtype=np.int64) * DAY + (1 << 60)
    assert time_blocks(moments, 100) == [slice(0, 100)]


def test_rows_of_the_same_microsecond_are_cut_by_number():
    sizes = [block.stop - block.start for block in time_blocks(np.full(1_000, 7), 100)]
    assert sizes == [100] * 10


def test_new_and_late_rows_leave_all_other_blocks_as_they_are():
    rng = np.random.default_rng(0)
    old = np.sort(rng.integers(0, 300 * DAY, 20_000)) + 20_000 * DAY

    def contents(moments):
        return {tuple(moments[block].tolist()) for block in time_blocks(moments, 500)}

    before = contents(old)
    assert len(before) > 30
    new = np.concatenate([old, 20_300 * DAY + np.sort(rng.integers(0, DAY, 100))])
    assert len(before - contents(new)) <= 2
    late = np.sort(np.append(old, 20_100 * DAY + 12_345))
    assert len(before - contents(late)) <= 2


def test_neighbours_of_one_block_are_those_that_a_full_sort_finds():
    rng = np.random.default_rng(1)
    users, (_, vectors) = rng.integers(0, 40, 1_500), directions(rng, 1_500)
    found = nearest_of_others(users, np.arange(1_500), vectors.__getitem__, neighbours=7)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = np.where(users[:, None] == users[None, :], -2.0, unit @ unit.T)
    by_sorting = np.argsort(-cosines, axis=1)[:, :7]
    assert (np.sort(found, axis=1) == np.sort(by_sorting, axis=1)).mean() > 0.999  # ties


def test_a_user_has_no_neighbours_where_nobody_else_speaks():
    vectors = np.ones((3, 2), dtype=np.float32)
    users = np.zeros(3, dtype=np.int64)
    found = nearest_of_others(users, np.arange(3), vectors.__getitem__, neighbours=2)
    assert (found == -1).all()
    right, total = agreement(found, users, np.zeros(3, dtype=np.int64), np.ones(1))
    assert (right.tolist(), total.tolist()) == ([0.0], [0.0])


@pytest.mark.parametrize("size", [0, 1])
def test_no_or_one_word_has_nobody_to_agree_with(size):
    users = np.zeros(size, dtype=np.int64)
    vectors = np.ones((size, 2), dtype=np.float32)
    found = nearest_of_others(users, users, vectors.__getitem__, neighbours=3)
    assert found.shape == (size, 3)
    assert (found == -1).all()


def test_counts_of_blocks_add_up_to_those_of_all():
    rng = np.random.default_rng(2)
    size, block = 4_000, 300
    users, (topic, vectors) = rng.integers(0, 50, size), directions(rng, size)
    moments = np.sort(rng.integers(0, 30 * DAY, size))
    trust = rng.random(50)
    everything = nearest_of_others(users, moments, vectors.__getitem__, neighbours=5, block=block)
    together = agreement(everything, users, topic, trust)
    parts = []
    for rows in time_blocks(moments, block):
        alone = nearest_of_others(
            users[rows], moments[rows], vectors[rows].__getitem__, neighbours=5, block=2 * block
        )
        parts.append(agreement(alone, users[rows], topic[rows], trust))
    np.testing.assert_array_equal(together, np.sum(parts, axis=0))


def test_a_vote_counts_by_the_trust_in_who_gives_it():
    # two neighbours of user 0 contradict with trust 0.1 each, one agrees with trust 0.5
    nearest = np.array([[1, 2, 3]] + [[-1] * 3] * 3, dtype=np.int32)
    users, answers = np.arange(4), np.array([7, 8, 8, 7])
    right, total = agreement(nearest, users, answers, np.array([1.0, 0.1, 0.1, 0.5]))
    assert (right[0], total.tolist()) == (1.0, [1.0, 0.0, 0.0, 0.0])
    right, _ = agreement(nearest, users, answers, np.ones(4))
    assert right[0] == 0.0


def test_memory_is_that_of_a_block_and_not_of_all_words():
    rng = np.random.default_rng(3)
    size, block = 16_000, 1_000
    users, moments = rng.integers(0, 500, size), np.sort(rng.integers(0, 90 * DAY, size))

    def vectors_of(places):
        return rng.normal(size=(len(places), 8)).astype(np.float32)

    tracemalloc.start()
    nearest_of_others(users, moments, vectors_of, neighbours=10, block=block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 512 rows at a time: cosines twice (4 bytes), their order (8), who is the same user (1)
    assert peak < 512 * 2 * block * 17 + 2 * size * 10 * 4
    assert peak < 512 * size * 4  # one row of cosines with all words would be larger


class Kept:
    """Traffic whose neighbours are kept in a folder, and which counts the rows that it computes."""

    def __init__(self, folder, size):
        rng = np.random.default_rng(4)
        self.folder = folder
        self.users = rng.integers(0, 50, size)
        self.moments = np.sort(rng.integers(0, 60 * DAY, size)) + 20_000 * DAY
        _, self.vectors = directions(rng, size)
        self.messages = rng.integers(0, 2**62, size).astype(np.uint64)

    def run(self, size, *, kept=True):
        self.computed = 0

        def vectors_of(places):
            self.computed += len(places)
            return self.vectors[places]

        return nearest_of_others(
            self.users[:size], self.moments[:size], vectors_of, neighbours=5, block=300,
            messages=self.messages[:size], kept=KeptNeighbours(self.folder) if kept else None,
        )  # fmt: skip


def test_only_blocks_that_changed_are_computed_again_and_the_result_is_that_of_a_fresh_run(
    tmp_path,
):
    traffic = Kept(tmp_path / "neighbours", 4_000)
    traffic.run(3_800)
    assert traffic.computed == 3_800
    found = traffic.run(4_000)
    assert 200 <= traffic.computed <= 200 + 4 * 300
    np.testing.assert_array_equal(found, traffic.run(4_000, kept=False))
    traffic.run(4_000)
    assert traffic.computed == 0


def test_a_block_in_which_a_user_was_forgotten_is_computed_again(tmp_path):
    traffic = Kept(tmp_path, 2_000)
    traffic.run(2_000)
    traffic.users[7] = 60  # another user than before
    found = traffic.run(2_000)
    assert 0 < traffic.computed <= 600
    np.testing.assert_array_equal(found, traffic.run(2_000, kept=False))
    traffic.messages[8] += np.uint64(1)
    traffic.run(2_000)
    assert 0 < traffic.computed <= 600


def test_users_with_other_numbers_are_the_same_users(tmp_path):
    traffic = Kept(tmp_path, 1_000)
    before = traffic.run(1_000)
    traffic.users = 100 - traffic.users
    np.testing.assert_array_equal(traffic.run(1_000), before)
    assert traffic.computed == 0


def test_damaged_files_are_computed_again_and_files_of_blocks_that_changed_are_deleted(tmp_path):
    traffic = Kept(tmp_path, 2_000)
    before = traffic.run(2_000)
    files = sorted(tmp_path.iterdir())
    files[0].write_bytes(b"")
    files[1].write_bytes(files[1].read_bytes()[:-7])
    np.save(files[2], np.zeros((3, 5), dtype=np.int32))
    (tmp_path / "left.1.new").write_bytes(b"half")
    np.testing.assert_array_equal(traffic.run(2_000), before)
    assert sorted(tmp_path.iterdir()) == files
    traffic.run(900)
    assert len(list(tmp_path.iterdir())) < len(files)
