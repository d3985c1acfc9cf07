"""The project's own benchmarks: one file each, one line here."""

from postgrad.bench.base import Benchmark
from postgrad.registry import Registry

BENCHMARKS: Registry[Benchmark] = Registry(
    "benchmark",
    "postgrad.benchmarks",
    {
        "bad-cases": "postgrad.bench.badcases:BadCases",
        "chaos": "postgrad.bench.chaos.benchmark:Chaos",
        "engines": "postgrad.bench.engines:Engines",
        "failures": "postgrad.bench.failures.benchmark:Failures",
        "ftbench": "postgrad.bench.ftbench:FtBench",
        "hint3": "postgrad.bench.hint3:Hint3",
        "ledger": "postgrad.bench.ledger:Ledger",
        "lessons": "postgrad.bench.lessons:Lessons",
        "noise": "postgrad.bench.noise:Noise",
        "overhead": "postgrad.bench.overhead:Overhead",
        "overlaps": "postgrad.bench.overlaps:Overlaps",
        "record": "postgrad.bench.record:Record",
        "researchers": "postgrad.bench.researchers:Researchers",
        "scale": "postgrad.bench.scale:Scale",
        "scale-loop": "postgrad.bench.scale_loop:ScaleLoop",
        "scripts": "postgrad.bench.scripts:Scripts",
        "search": "postgrad.bench.search:Search",
        "stages": "postgrad.bench.stages:Stages",
        "throughput": "postgrad.bench.throughput:Throughput",
    },
)
