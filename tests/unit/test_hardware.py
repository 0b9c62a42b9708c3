import pytest

from grpo_cli import hardware
from grpo_cli.hardware import GPUS, find_gpu, measure_cpu


@pytest.mark.parametrize(
    ("reported", "name"),  # as torch.cuda.get_device_name() and nvidia-smi report it
    [
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe"),
        ("NVIDIA A100-PCIE-40GB", "A100 PCIe 40GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
    ],
)
def test_a_gpu_is_recognised_by_its_drivers_name_for_it(reported, name):
    assert find_gpu(reported).name == name


@pytest.mark.parametrize("name", ["NVIDIA A10G", "Tesla V100-SXM2-32GB", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", ""])
def test_a_gpu_that_is_not_in_the_table_is_not_guessed(name):
    assert find_gpu(name) is None


def test_each_gpu_of_the_table_is_found_by_its_name_and_has_plausible_figures():
    for gpu in GPUS:
        assert find_gpu(gpu.name) == gpu
        assert 30 < gpu.peak_flops / gpu.bandwidth < 1000
        assert gpu.link < gpu.bandwidth


def test_a_cpu_is_measured():
    cpu = measure_cpu(2, threads=1)
    assert cpu.peak_flops > 0
    assert 0 < cpu.link < cpu.bandwidth
    assert cpu.name.startswith("1 of ") or cpu.name.startswith("0.5 of 1 ")


@pytest.mark.parametrize(("init", "count"), [(0, 3), (100, 0)])  # 100: CUDA_ERROR_NO_DEVICE
def test_gpus_are_counted_by_the_driver(init, count, monkeypatch):
    class Driver:
        cuInit = staticmethod(lambda flags: init)
        cuDeviceGetCount = staticmethod(lambda found: setattr(found._obj, "value", 3) or 0)

    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: Driver)
    assert hardware.num_gpus() == count


def test_without_a_driver_there_is_no_gpu(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(hardware.ctypes, "CDLL", missing)
    assert hardware.num_gpus() == 0
