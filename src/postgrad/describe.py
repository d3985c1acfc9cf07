"""At the end of the search, before anything is certified: a language model of the task words the champion's bad cases.

One question for a champion, where the task names models and lets them see rows (`researcher.examples`). It gets texts
of the search split and of no other, its words are kept in the log, and nothing is decided by them. Where nothing comes
of it, the analysis stands with its own names. A report only reads them: keys and money are the run's.
"""

from __future__ import annotations

from typing import Mapping, Sequence

from postgrad.analyze.causes import Cause
from postgrad.analyze.findings import Topic
from postgrad.erring import read_findings
from postgrad.errors import PostgradError, UserError
from postgrad.events import BadCasesDescribed
from postgrad.quoting import inlined
from postgrad.records import ResearcherSpec, Row
from postgrad.research.assemble import LEAST_S, RECORD, providers
from postgrad.research.describing import TEXT, TEXTS, Group, Writer
from postgrad.research.language_model import patient
from postgrad.session import Session

#: Clusters and causes that words are asked for; a report shows no more clusters.
CLUSTERS, CAUSES = 5, 5
# Of a budget of time, what a reply may take: certifying comes after it.
SHARE = 0.02


def describe(session: Session) -> None:
    """Ask once for the champion of the search, and record what came back. Fails no run."""
    spec, champion = session.task.researcher, session.tree.champion
    if not isinstance(spec, ResearcherSpec) or not spec.models or champion is None:
        return
    if not spec.bad_cases or not spec.examples or session.task.script is not None:
        return
    before = session.bodies.get("bad_cases_described")
    if isinstance(before, BadCasesDescribed) and before.experiment == champion:
        return
    try:
        found = read_findings(session.store, champion)
        writer = _writer(session, spec)
    except (UserError, PostgradError):
        return
    topics, causes = found.topics[:CLUSTERS], found.causes[:CAUSES]
    if not topics and not causes:
        return
    groups = _groups(topics, causes, session.rows("search"))
    asked, words = writer.describe(groups, session.task.objective, f"bad cases of {champion}")
    session.append(
        BadCasesDescribed(
            experiment=champion,
            asked=asked,
            topics={topic.name: words[at] for at, topic in enumerate(topics) if at in words},
            causes={cause.kind: words[at] for at, cause in enumerate(causes, len(topics)) if at in words},
        )
    )


def _writer(session: Session, spec: ResearcherSpec) -> Writer:
    """The first of the task's models.

    Raises:
        UserError: a key, a library or a price is missing.
    """
    wall = session.task.budget.wall_s
    wait = spec.timeout_s if wall is None else min(spec.timeout_s, max(LEAST_S, SHARE * wall))
    hasty = spec.model_copy(update={"models": spec.models[:1], "timeout_s": wait})
    (provider,) = providers(session.task, hasty)
    left, record = session.remaining().usd, session.store.folder / RECORD
    return Writer(spec.models[0], provider, record, patient(wait), spec.max_tokens, left)


def _groups(topics: Sequence[Topic], causes: Sequence[Cause], rows: Mapping[str, Row]) -> list[Group]:
    clusters = [
        Group(f"{topic.size} texts, set apart by the words {inlined(topic.name, TEXT)}", topic.texts)
        for topic in topics
    ]
    return [*clusters, *(Group(f"{cause.kind}: {cause.known.meaning}", _texts(cause, rows)) for cause in causes)]


def _texts(cause: Cause, rows: Mapping[str, Row]) -> tuple[str, ...]:
    """Some search items that a cause is about; none where it is about the whole training."""
    return tuple(rows[key.split("/", 1)[1]].text for key in cause.keys[:TEXTS])
