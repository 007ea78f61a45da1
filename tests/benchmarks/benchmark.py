"""How fast registration and meta-training are, beside the plain path in the same run.

    python tests/benchmarks/benchmark.py                        # table, and benchmark.json
    python tests/benchmarks/benchmark.py --channels 8 --out runs/benchmark.json
    python tests/benchmarks/benchmark.py --growth               # how time and memory grow

The plain path is what one would write with MONAI's parts: float32, weights in their usual layout, MONAI's losses. Every
number of either path comes from a process of its own, so that its peak memory is its own, too.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import subprocess
import sys
import time
from functools import partial
from itertools import repeat
from pathlib import Path

import monai.losses
import numpy as np
import torch

from bundle.api import read_configuration
from bundle.registration import adapt
from bundle.system import written_whole

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (96, 128, 96)  # of a TRUS pair at 0.8 mm
PLAIN_WINDOW = 27  # voxels, as window_mm at 0.8 mm
STEPS = 5
MAPS = 3
LOCALNET = ("inference.yaml", "localnet.yaml")
LINE = "{:42s} {:>9s} {:>9s} {:>6s} {:>12s}"
GROWTH = {  # argument of ``registration`` -> its values; edges are those of padded grids, 64^3 to 320^3 voxels before
    "edge": [72, 96, 144, 192, 264, 336],
    "steps": [1, 5, 10, 20, 50],
    "channels": [8, 16, 32, 64],
    "pairs": [1, 2, 4, 8],
}


class Unmasked(torch.nn.Module):
    """A similarity of MONAI, for pairs whose masks are full."""

    def __init__(self, similarity):
        super().__init__()
        self.similarity = similarity

    def forward(self, warped, fixed, mask=None):
        return self.similarity(warped, fixed)


def smooth_pair(multiple, device, maps=0, shape=SHAPE):
    """Two smooth random images, padded to a multiple; with maps also their masks, of ones, and maps."""
    size = [-(-length // multiple) * multiple for length in shape]
    channels = 2 + maps if maps else 1
    noise = torch.rand(1, 2 * channels, *[length // 8 for length in size], generator=torch.Generator().manual_seed(0))
    if maps:
        noise[:, 1::channels] = 1
    return torch.nn.functional.interpolate(noise, size=size, mode="trilinear").to(device)


def parts(plain, channels, downsampling, device, files=("inference.yaml",), maps=False):
    """Network, loss and optimiser of inference, in the plain or the fast way."""
    settings = {"channels": channels, "downsampling": downsampling, "precision": "float32" if plain else "auto"}
    parser = read_configuration(list(files), settings if maps else {**settings, "map_weights": None})
    network = parser.get_parsed_content("registration_network").to(device)
    loss = parser.get_parsed_content("adaptation_loss").to(device)
    if plain:
        similarity = monai.losses.LocalNormalizedCrossCorrelationLoss(kernel_size=PLAIN_WINDOW)
        loss.similarity = Unmasked(similarity).to(device)
        loss.regularisation = monai.losses.BendingEnergyLoss()
        for parameter in network.parameters():
            parameter.data = parameter.data.contiguous()
    return network, loss, parser.get_parsed_content("inner_optimizer")


def seconds(call, repetitions, device):
    """Median of the seconds of some calls, after one to warm up."""

    def once():
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once()
    return statistics.median(once() for _ in range(repetitions))


def registration(
    plain, downsampling, repetitions, device, files, maps, results, *, channels=8, edge=None, steps=STEPS, pairs=1
):
    """Five steps and the prediction on a pair, or on several in turn; the network alone; peak memory."""
    network, loss, optimizer = parts(plain, channels, downsampling, device, files, maps)
    pair = smooth_pair(8 * downsampling, device, MAPS if maps else 0, (edge,) * 3 if edge else SHAPE)

    def register():
        for _ in range(pairs):
            adapted = adapt(network, loss, optimizer, repeat((pair, None), steps)).network
            with torch.no_grad():
                adapted(pair)

    def predict():
        with torch.no_grad():
            network(pair)

    calls = {"registration": register, "network": predict}
    found = {name: seconds(call, repetitions, device) for name, call in calls.items()}
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    results.put({**found, "peak_gib": resident if device.type == "cpu" else torch.cuda.max_memory_allocated() / 2**30})


def meta_iteration(repetitions, device, results):
    """A meta-iteration's inner loop with its augmentation, beside the bare loop on tensors that are there already."""
    parser = read_configuration("train.yaml", {"map_weights": None})
    network = parser.get_parsed_content("registration_network").to(device)
    loss = parser.get_parsed_content("loss").to(device)
    augmentation = parser.get_parsed_content("train::augmentation")
    optimizer = parser.get_parsed_content("inner_optimizer")
    pair = smooth_pair(24, device)

    def bare():
        adapt(network, loss, optimizer, repeat((pair, None), STEPS))

    def whole():
        adapt(network, loss, optimizer, (augmentation(pair, None, (0, step)) for step in range(STEPS)))

    results.put({"bare": seconds(bare, repetitions, device), "whole": seconds(whole, repetitions, device)})


def in_a_process(function, *arguments):
    """What a function puts into its queue, from a fresh process."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=function, args=(*arguments, results))
    process.start()
    found = results.get()
    process.join()
    return found


def growth(device, repetitions, table=GROWTH):
    """Print and return how the shipped network's time and memory grow with each thing, the others as they are.

    The exponent b of ``seconds = a * value^b`` is fitted to the logarithms of the values above the first.
    """
    report = {}
    for what, values in table.items():
        rows = []
        for value in values:
            measure = partial(registration, **{what: value})
            found = in_a_process(measure, False, 3, repetitions, device, ("inference.yaml",), True)
            rows.append({"value": value, "seconds": found["registration"], "peak_gib": found["peak_gib"]})
            print(f"{what} {value}: {found['registration']:.2f} s, {found['peak_gib']:.2f} GiB", flush=True)
        logs = np.log([[row["value"], row["seconds"]] for row in rows[1:]])
        report[what] = {"rows": rows, "exponent": float(np.polyfit(*logs.T, 1)[0])}
        print(f"seconds grow with {what} to the power of {report[what]['exponent']:.2f}", flush=True)
    return report


def start_up(device):
    """Seconds from an empty shell to the end of `register()` on a small pair."""
    code = (
        "import numpy as np; from bundle import register; r = np.random.default_rng(0).random((2, 40, 40, 40));"
        f"register((r[0], np.eye(4)), (r[1], np.eye(4)), device='{device}')"
    )
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    return time.perf_counter() - start


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--channels", type=int, nargs="*", default=[8, 16, 32], help="of LocalNet, seeing 0.8 mm")
    arguments.add_argument("--repetitions", type=int, default=1)
    arguments.add_argument("--growth", action="store_true", help="measure growth instead")
    arguments.add_argument("--out", type=Path, default=Path("benchmark.json"))
    chosen = arguments.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if chosen.growth:
        return write(growth(device, chosen.repetitions), chosen.out)
    shipped = ("inference.yaml",)
    cases = {
        "shipped: 8 channels, sees 2.4 mm, maps": (8, 3, shipped, True),
        "the same without maps": (8, 3, shipped, False),
        "LocalNet, 8 channels, sees 2.4 mm": (8, 3, LOCALNET, False),
    }
    cases |= {f"LocalNet, {channels} channels": (channels, 1, LOCALNET, False) for channels in chosen.channels}
    report = {"machine": platform.machine(), "device": str(device), "threads": torch.get_num_threads()}
    print(LINE.format("five steps and prediction, 96 x 128 x 96", "plain s", "fast s", "ratio", "GiB"), flush=True)
    for name, (channels, downsampling, *network) in cases.items():
        measure = partial(registration, channels=channels)
        settings = (downsampling, chosen.repetitions, device, *network)
        plain, fast = (in_a_process(measure, kind, *settings) for kind in (True, False))
        memory = f"{plain['peak_gib']:.1f} -> {fast['peak_gib']:.1f}"
        for key, title, peak in (("registration", name, memory), ("network", "  the network alone", "")):
            ratio = plain[key] / fast[key]
            print(LINE.format(title, f"{plain[key]:.2f}", f"{fast[key]:.2f}", f"{ratio:.1f}", peak), flush=True)
        report[name] = {"plain": plain, "fast": fast, "ratio": plain["registration"] / fast["registration"]}
    report["meta_iteration"] = found = in_a_process(meta_iteration, chosen.repetitions, device)
    bare, whole = found["bare"], found["whole"]
    print(f"meta-iteration of {STEPS} steps: {whole:.2f} s, bare loop {bare:.2f} s (+{100 * (whole / bare - 1):.0f} %)")
    report["start_up_s"] = start_up(device)
    print(f"start-up to the first result: {report['start_up_s']:.1f} s")
    return write(report, chosen.out)


def write(report, path):
    """Write what was measured as JSON."""
    with written_whole(path) as file:
        file.write(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
