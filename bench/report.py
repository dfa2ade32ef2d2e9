"""The report of a run: medians with their spread, and ratios within each round, as a table, JSON and a plot."""

import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from bench.load import Result

Rounds = Mapping[str, Sequence[Result]]
"""Each contender's result in each round. Compare only within a round, because the machine is noisy."""


def ratio(rounds: Rounds, name: str, to: str) -> float | None:
    """Returns the median over the rounds of the CPU per call relative to another contender's."""
    if name not in rounds or to not in rounds:
        return None
    pairs = zip(rounds[name], rounds[to], strict=True)
    return statistics.median(ours.cpu_us / theirs.cpu_us for ours, theirs in pairs)


def table(rounds: Rounds, baselines: Sequence[str]) -> str:
    """Returns a Markdown table with a row for each contender."""
    headings = ["server", "CPU µs/call", "spread", *(f"× {name}" for name in baselines)]
    headings += ["calls/s", "p50 ms", "p95 ms", "p99 ms", "RSS MiB", "threads", "switches/call", "errors"]
    rows = [headings, ["---"] * len(headings)]
    for name, results in rounds.items():
        cpu = [result.cpu_us for result in results]
        ratios = [ratio(rounds, name, baseline) for baseline in baselines]
        rows.append(
            [
                name,
                f"{statistics.median(cpu):.0f}",
                f"{min(cpu):.0f} to {max(cpu):.0f}",
                *("" if value is None else f"{value:.2f}" for value in ratios),
                f"{median(results, 'rate'):,.0f}",
                *(f"{median(results, field):.1f}" for field in ("p50_ms", "p95_ms", "p99_ms")),
                f"{median(results, 'resident_mib'):.0f}",
                f"{median(results, 'threads'):.0f}",
                f"{median(results, 'switches'):.1f}",
                str(sum(result.errors for result in results)),
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def write_json(path: Path, found: Mapping[str, object]) -> None:
    """Writes all measurements, with a description of the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), **found}, indent=1, default=asdict) + "\n")


def machine() -> dict[str, str]:
    """Returns the properties of the machine and the software that the figures depend on."""
    cpus = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in cpus.splitlines() if line.startswith("model name")), "?")
    packages = ("grpcio", "protobuf", "couchbase", "pydantic", "fastapi", "uvicorn", "uvloop", "httptools")
    return {
        "cpu": f"{cpus.count('processor')} × {model}",
        "system": platform.platform(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def plot_contenders(path: Path, rounds: Rounds) -> None:
    """Plots each contender's CPU per call. Leaves out the slowest one if it would flatten the others."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    shown = {name: [result.cpu_us for result in results] for name, results in rounds.items()}
    limit = 5 * statistics.median(map(statistics.median, shown.values()))
    shown = {name: values for name, values in shown.items() if statistics.median(values) < limit}
    figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(shown) + 1), layout="constrained")
    names = list(reversed(shown))
    middles = [statistics.median(shown[name]) for name in names]
    low = [middle - min(shown[name]) for name, middle in zip(names, middles, strict=True)]
    high = [max(shown[name]) - middle for name, middle in zip(names, middles, strict=True)]
    bars = axes.barh(
        names, middles, xerr=[low, high], color=["#3b6ea5" if "userprofile" in n else "#b0b7bf" for n in names]
    )
    axes.bar_label(bars, fmt="%.0f", padding=4)
    axes.set_xlabel("server CPU, µs per call: median and spread")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def plot_growth(path: Path, label: str, points: Mapping[str, Sequence[tuple[float, Sequence[Result]]]]) -> None:
    """Plots calls/s and CPU per call over the value that grows, as medians of the rounds."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    figure, (rate, cpu) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for name, series in points.items():
        steps = [step for step, _ in series]
        rate.plot(steps, [median(results, "rate") for _, results in series], marker="o", label=name)
        cpu.plot(steps, [median(results, "cpu_us") for _, results in series], marker="o", label=name)
    for axes, title in ((rate, "calls/s"), (cpu, "server CPU, µs per call")):
        axes.set_xscale("log")
        axes.set_xticks(steps, [f"{step:,}" for step in steps])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel(label)
        axes.set_title(title)
        axes.spines[["top", "right"]].set_visible(False)
    rate.legend(frameon=False, loc="lower left")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def plot_memory(path: Path, sizes: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """Plots each server's memory, in MiB, over the number of calls served."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    for name, series in sizes.items():
        axes.plot([calls for calls, _ in series], [size for _, size in series], marker="o", label=name)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("calls served")
    axes.set_title("resident memory, MiB")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower left")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def median(results: Sequence[Result], field: str) -> float:
    """Returns the median of one field of the results."""
    return float(statistics.median(getattr(result, field) for result in results))
