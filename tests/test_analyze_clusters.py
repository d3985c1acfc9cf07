"""Clusters of bad cases: planted topics come apart, one topic does not, and the same texts give the same clusters."""

from __future__ import annotations

import numpy as np

from postgrad.analyze.clusters import class_terms, clusters_of

TOPICS = {
    "refund": ("money back", "refund of my order", "return and refund please", "when is my refund paid"),
    "password": ("password forgotten", "reset my password", "password does not work", "new password please"),
    "delivery": ("parcel is late", "delivery of the parcel", "where is my parcel", "parcel delivery address"),
}
TAILS = ("today", "at once", "for my sister", "again", "since monday", "and quickly")


def texts() -> tuple[list[str], list[str]]:
    found = [(f"{text} {tail}", topic) for topic, of in TOPICS.items() for text in of for tail in TAILS]
    order = np.random.default_rng(0).permutation(len(found))
    return [found[i][0] for i in order], [found[i][1] for i in order]


def test_planted_topics_come_apart_and_are_named() -> None:
    """Embeddings with a direction for each topic; the words of a topic name it."""
    said, topics = texts()
    random = np.random.default_rng(1)
    base = np.eye(16)[[list(TOPICS).index(topic) for topic in topics]]
    found = clusters_of(said, base + random.normal(0, 0.08, base.shape))
    assert len(found) == 3
    for cluster in found:
        inside = {topics[i] for i in cluster.members}
        assert len(inside) == 1
        word = "parcel" if inside == {"delivery"} else inside.pop()
        assert word in cluster.name.split(", ")
        assert cluster.silhouette > 0.5


def test_without_an_encoder_words_tell_topics_apart() -> None:
    said, topics = texts()
    found = clusters_of(said)
    pure = sum(max(sum(topics[i] == topic for i in each.members) for topic in TOPICS) for each in found)
    print(f"TF-IDF: {len(found)} clusters, purity {pure / len(said):.2f}")
    assert len(found) >= 2
    assert pure / len(said) >= 0.8
    assert sorted(i for each in found for i in each.members) == list(range(len(said)))


def test_noise_is_one_cluster() -> None:
    points = np.random.default_rng(0).normal(size=(80, 30))
    assert len(clusters_of([f"text {n}" for n in range(80)], points)) == 1


def test_the_same_texts_give_the_same_clusters() -> None:
    said, _ = texts()
    assert clusters_of(said) == clusters_of(said)


def test_few_empty_and_wordless_texts_are_clustered_too() -> None:
    assert clusters_of([]) == ()
    assert len(clusters_of(["one text"])) == 1
    assert len(clusters_of(["the same"] * 30)) == 1
    assert clusters_of(["?!", "...", "--"])[0].name == "(no words)"
    assert clusters_of(["我的订单在哪里", "密码忘记了", ""])[0].members


def test_terms_of_a_class_are_those_that_others_lack() -> None:
    first, second = class_terms(["the refund the refund the order", "the password the login the order"])
    assert first[0] == "refund"
    assert {"password", "login"} <= set(second)
    assert "refund" not in second
