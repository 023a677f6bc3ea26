"""The watchdog's judgement on made-up signs of life, and the pulse that carries them."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

from gnnbench_runtime.pulse import Beat, Pulse, PulseReader
from gnnbench_runtime.watchdog import MemoryHint, Verdict, cause, died, hung

GIB = 2**30


def beat(time_s: float, *, collective: int = -1, stage: str = "train", step: str = "spmm") -> Beat:
    return Beat(time_s, 10, 3, collective, stage, "forward", step)


def test_ranks_that_move_are_left_alone() -> None:
    assert hung({0: beat(95), 1: beat(99)}, now_s=100, timeout_s=10) is None


def test_a_silent_rank_outside_of_collectives_is_to_blame() -> None:
    verdict = hung({0: beat(50, collective=4, step="halo"), 1: beat(40)}, 100, 10)
    assert verdict is not None
    assert (verdict.rank, verdict.phase) == (1, "forward")
    assert "rank 1 hung" in verdict.reason
    assert "period 3, last step 'spmm'" in verdict.reason
    assert "rank 0 waits in 'halo'" in verdict.reason


def test_waiting_for_a_rank_that_still_works_is_no_hang() -> None:
    assert hung({0: beat(40, collective=4), 1: beat(99)}, 100, 10) is None


def test_of_ranks_that_all_wait_those_behind_are_to_blame() -> None:
    waits = {0: beat(50, collective=5), 1: beat(50, collective=4), 2: beat(50, collective=5)}
    verdict = hung(waits, 100, 10)
    assert verdict is not None
    assert verdict.rank == 1


def test_ranks_that_all_wait_in_one_collective_blame_the_network() -> None:
    verdict = hung({0: beat(50, collective=5), 1: beat(50, collective=5)}, 100, 10)
    assert verdict is not None
    assert "network" in verdict.reason


def test_setting_up_may_take_longer_than_a_step() -> None:
    assert hung({0: beat(0, stage="setup")}, now_s=299, timeout_s=10) is None
    assert hung({0: beat(0, stage="setup")}, now_s=301, timeout_s=10) is not None


def test_a_kill_with_little_memory_left_is_told_with_sizes() -> None:
    memory = MemoryHint(3 * GIB, GIB // 10, 16 * GIB, oom_kills=0)
    reason = died(2, -signal.SIGKILL, beat(0), None, memory).reason
    assert "SIGKILL" in reason
    assert "likely by the out-of-memory killer: it held 3.00 GiB, 0.10 GiB were left" in reason


def test_a_kill_with_memory_to_spare_blames_no_one() -> None:
    memory = MemoryHint(GIB, 10 * GIB, 16 * GIB)
    assert "out-of-memory" not in died(0, -signal.SIGKILL, beat(0), None, memory).reason


def test_a_crash_names_its_signal() -> None:
    assert died(0, -signal.SIGSEGV, beat(0), None, MemoryHint()).reason.startswith(
        "killed by SIGSEGV"
    )


def test_an_exit_without_a_word_quotes_the_last_line_printed() -> None:
    verdict = died(0, 3, beat(0), None, MemoryHint(), "loading\nno such library\n")
    assert verdict.reason == "ended with code 3: no such library"


def test_a_lost_peer_is_a_consequence_and_never_the_cause() -> None:
    lost, broken = Verdict("failed", "lost a peer", 0), Verdict("failed", "a bug", 1)
    assert cause([(lost, "peer"), (broken, "error")]) is broken
    assert cause([(lost, "peer")]) is lost


def test_a_pulse_is_read_back_from_its_file(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path / "pulse")
    reader = PulseReader(tmp_path / "pulse")
    pulse.stage("train", 7)
    pulse.beat("spmm_1", "forward", False)
    pulse.beat("halo_1", "fetch", True)
    seen = reader.read()
    assert (seen.stage, seen.period, seen.phase, seen.step) == ("train", 7, "fetch", "halo_1")
    assert (seen.steps, seen.in_collective, seen.collective) == (2, True, 0)
    pulse.leave()
    assert not reader.read().in_collective


def test_a_pulse_not_yet_written_reads_as_a_start(tmp_path: Path) -> None:
    assert PulseReader(tmp_path / "pulse").read() == Beat()


def test_other_threads_show_life_and_leave_the_place_of_the_main_one(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path / "pulse")
    reader = PulseReader(tmp_path / "pulse")
    pulse.beat("wait_for_batch", "fetch", False)
    before = reader.read()
    thread = threading.Thread(target=pulse.beat, args=("draw", "sample", False))
    thread.start()
    thread.join()
    after = reader.read()
    assert after.time_s > before.time_s
    assert after.step == "wait_for_batch"
