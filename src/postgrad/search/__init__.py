"""Search policies: one file each, one line here."""

from postgrad.registry import Registry
from postgrad.search.base import Policy

POLICIES: Registry[Policy] = Registry(
    "search policy",
    "postgrad.policies",
    {
        "sequential": "postgrad.search.sequential:Sequential",
        "greedy": "postgrad.search.greedy:Greedy",
        "posterior": "postgrad.search.posterior:Posterior",
        "best_of_n": "postgrad.search.best_of_n:BestOfN",
        "random": "postgrad.search.random:RandomSearch",
        "uct": "postgrad.search.uct:UCT",
        "autoresearch": "postgrad.search.autoresearch:Autoresearch",
        "evolution": "postgrad.search.evolution:Evolution",
        "tpe": "postgrad.search.tpe:TPE",
        "cma_es": "postgrad.search.cma_es:CMAES",
    },
)
