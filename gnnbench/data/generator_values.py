"""What values of options a generator can draw from: one sentence for each that it cannot.

Pure functions of the options, so that a suite is checked when it is read and nothing is drawn.
"""

from __future__ import annotations

from typing import Any

MOST_NODES = 2**31 - 1
"""Ids of nodes are int32."""
_LAST_TIME = 2**62


def planted_problems(
    *,
    num_nodes: int,
    mean_degree: float,
    num_classes: int,
    num_features: int,
    homophily: float,
    degree_exponent: float | None,
    feature_noise: float,
    train_fraction: float,
    val_fraction: float,
    **_: Any,
) -> list[str]:
    """Of a graph of planted classes."""
    problems = degree_problems(num_nodes=num_nodes, mean_degree=mean_degree)
    if not 1 <= num_classes <= max(num_nodes, 1):
        problems.append(f"num_classes: found {num_classes}, allowed 1..num_nodes")
    if num_features < 1:
        problems.append(f"num_features: found {num_features}, allowed >= 1")
    if not 0 <= homophily <= 1:
        problems.append(f"homophily: found {homophily}, allowed 0..1")
    elif num_classes == 1 and homophily < 1:
        problems.append(f"homophily: found {homophily}, allowed only 1 with one class")
    if degree_exponent is not None and degree_exponent <= 2:
        problems.append(
            f"degree_exponent: found {degree_exponent}, allowed > 2 (finite mean) or none"
        )
    if feature_noise < 0:
        problems.append(f"feature_noise: found {feature_noise}, allowed >= 0")
    if not (train_fraction >= 0 and val_fraction >= 0 and train_fraction + val_fraction <= 1):
        problems.append(
            f"train_fraction: found {train_fraction} and val_fraction {val_fraction}, "
            "allowed >= 0 with sum <= 1"
        )
    if not problems:
        wanted = round(homophily * round(num_nodes * mean_degree / 2))
        small, larger = divmod(num_nodes, num_classes)
        room = num_classes * small * (small - 1) // 2 + larger * small
        if wanted > room:
            problems.append(
                f"homophily: {wanted} distinct edges within classes asked for, and there is "
                f"room for {room}; lower the mean degree or the homophily, or use fewer classes"
            )
    return problems


def rmat_problems(
    *,
    scale: int,
    edge_factor: float,
    a: float,
    b: float,
    c: float,
    num_features: int = 0,
    num_classes: int = 0,
    **_: Any,
) -> list[str]:
    """Of an R-MAT graph."""
    problems = task_problems(num_features, num_classes)
    if not 0 <= scale <= 30:
        problems.append(f"scale: found {scale}, allowed 0..30")
    if edge_factor < 0:
        problems.append(f"edge_factor: found {edge_factor}, allowed >= 0")
    if min(a, b, c) < 0 or a + b + c > 1:
        problems.append(f"a, b, c: found {a}, {b} and {c}, allowed >= 0 with sum <= 1")
    return problems


def uniform_problems(
    *,
    num_nodes: int,
    mean_degree: float,
    num_features: int = 0,
    num_classes: int = 0,
    **_: Any,
) -> list[str]:
    """Of a uniform graph."""
    problems = degree_problems(num_nodes=num_nodes, mean_degree=mean_degree)
    return problems + task_problems(num_features, num_classes)


def pattern_problems(
    *,
    num_nodes: int,
    mean_degree: float,
    num_features: int = 0,
    num_classes: int = 0,
    **_: Any,
) -> list[str]:
    """Of a graph of `patterns`."""
    problems = []
    if not 2 <= num_nodes <= MOST_NODES:
        problems.append(f"num_nodes: found {num_nodes}, allowed 2..{MOST_NODES}")
    elif not 0 < mean_degree < num_nodes:
        problems.append(f"mean_degree: found {mean_degree:g}, allowed above 0 and below num_nodes")
    return problems + task_problems(num_features, num_classes)


def stream_problems(
    *,
    num_nodes: int,
    num_edges: int,
    num_communities: int,
    repeat: float,
    burst: float,
    hub_exponent: float,
    bipartite: bool,
    mean_gap: float,
    **_: Any,
) -> list[str]:
    """Of a stream."""
    problems = []
    if not (3 if bipartite else 2) <= num_nodes <= MOST_NODES:
        problems.append(f"num_nodes: found {num_nodes}, allowed at least 2 (bipartite: 3)")
    if num_edges < 1:
        problems.append(f"num_edges: found {num_edges}, allowed >= 1")
    if num_communities < 1:
        problems.append(f"num_communities: found {num_communities}, allowed >= 1")
    for name, share in (("repeat", repeat), ("burst", burst)):
        if not 0 <= share <= 1:
            problems.append(f"{name}: found {share}, allowed 0..1")
    if not 0 <= hub_exponent <= 100:
        problems.append(f"hub_exponent: found {hub_exponent}, allowed 0..100")
    if mean_gap < 0 or mean_gap * max(num_edges, 1) > _LAST_TIME:
        problems.append(f"mean_gap: found {mean_gap}, allowed 0..{_LAST_TIME:.3g} / num_edges")
    return problems


def triples_problems(
    *,
    num_entities: int,
    num_relations: int,
    num_triples: int,
    spread: int,
    noise: float,
    train: float,
    val: float,
    **_: Any,
) -> list[str]:
    """Of triples."""
    problems = []
    if not 2 <= num_entities <= MOST_NODES:
        problems.append(f"num_entities: found {num_entities}, allowed 2..{MOST_NODES}")
    if not 1 <= num_relations <= MOST_NODES:
        problems.append(f"num_relations: found {num_relations}, allowed >= 1")
    if spread < 0:
        problems.append(f"spread: found {spread}, allowed >= 0")
    if not 0 <= noise <= 1:
        problems.append(f"noise: found {noise}, allowed 0..1")
    if not (train >= 0 and val >= 0 and train + val <= 1):
        problems.append(f"train: found {train} and val {val}, allowed >= 0 with sum <= 1")
    room = num_entities * num_relations * min(spread + 1, num_entities)
    if not problems and not 1 <= num_triples <= room:
        problems.append(f"num_triples: found {num_triples}, allowed 1..{room}")
    return problems


def degree_problems(*, num_nodes: int, mean_degree: float) -> list[str]:
    """Of a number of nodes and a mean degree that a simple graph can have."""
    problems = []
    if not 1 <= num_nodes <= MOST_NODES:
        problems.append(f"num_nodes: found {num_nodes}, allowed 1..{MOST_NODES}")
    if not 0 <= mean_degree <= max(num_nodes - 1, 0):
        problems.append(f"mean_degree: found {mean_degree}, allowed 0..num_nodes - 1")
    return problems


def task_problems(num_features: int, num_classes: int) -> list[str]:
    """Of a synthetic task, which has features and classes."""
    if bool(num_features) == bool(num_classes):
        return []
    return [
        f"num_features, num_classes: found {num_features} and {num_classes}, give both or neither"
    ]
