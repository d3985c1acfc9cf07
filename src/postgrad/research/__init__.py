"""Researchers: choice -> proposal. One line each."""

from postgrad.registry import Registry
from postgrad.research.base import Researcher

RESEARCHERS: Registry[Researcher] = Registry(
    "researcher",
    "postgrad.researchers",
    {"playbook": "postgrad.research.playbook:Playbook"},
)
