"""Engines: one file each, one line here."""

from postgrad.engines.base import Engine
from postgrad.registry import Registry

ENGINES: Registry[Engine] = Registry(
    "engine",
    "postgrad.engines",
    {
        "local": "postgrad.engines.local:LocalEngine",
        "ray": "postgrad.engines.ray:RayEngine",
        "slurm": "postgrad.engines.slurm:SlurmEngine",
    },
)
