import torch

from pipelines.benchmark.machine import best_seconds, measure_machine


def test_the_fastest_turn_counts() -> None:
    turns: list[int] = []

    def work() -> None:
        turns.append(len(turns))
        if len(turns) != 3:
            torch.rand(2**20).sum()

    quick = best_seconds(work, 1e-9)
    assert turns == [0, 1, 2]  # one to warm up, then two
    assert 0 < quick < 0.1


def test_this_machine_has_a_name_and_rates() -> None:
    machine = measure_machine("cpu", torch.float32, 1e-9)
    assert machine.name
    assert machine.cores >= 1
    assert machine.threads == torch.get_num_threads()
    assert machine.matmul_flops > 1e8
    assert machine.copy_bytes > 1e7
