"""MixSKD's equations 5 to 13 in plain Python floats, from the paper, sharing nothing with the package.

Maps are nested lists ``F[k][i][c][y][x]``; weights of heads, teacher and discriminators are nested lists too.
"""

from __future__ import annotations

import math

Vector = list[float]


def softmax(z: Vector, temperature: float = 1.0) -> Vector:
    top = max(z)
    e = [math.exp((v - top) / temperature) for v in z]
    return [v / sum(e) for v in e]


def affine(weight: list[Vector], bias: Vector | None, x: Vector) -> Vector:
    out = [sum(w * v for w, v in zip(row, x, strict=True)) for row in weight]
    return out if bias is None else [o + b for o, b in zip(out, bias, strict=True)]


def pool(feature_map: list) -> Vector:
    return [sum(sum(row) for row in channel) / (len(channel) * len(channel[0])) for channel in feature_map]


def interpolate(a: list | float, b: list | float, lam: float) -> list | float:
    if isinstance(a, float):
        return lam * a + (1 - lam) * b
    return [interpolate(x, y, lam) for x, y in zip(a, b, strict=True)]


def cross_entropy(z: Vector, label: int) -> float:
    return -math.log(softmax(z)[label])


def soft_cross_entropy(z: Vector, target: Vector) -> float:
    return -sum(t * math.log(p) for t, p in zip(target, softmax(z), strict=True))


def kl(student: Vector, teacher: Vector, temperature: float) -> float:
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    return temperature**2 * sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))


def binary_cross_entropy(z: Vector, target: Vector) -> float:
    p = [1 / (1 + math.exp(-v)) for v in z]
    return -sum(t * math.log(q) + (1 - t) * math.log(1 - q) for t, q in zip(target, p, strict=True))


def binary_kl(student: Vector, teacher: Vector, temperature: float) -> float:
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        p, q = 1 / (1 + math.exp(-t / temperature)), 1 / (1 + math.exp(-s / temperature))
        total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    return temperature**2 * total


def squared_distance(a: list | float, b: list | float) -> tuple[float, int]:
    if isinstance(a, float):
        return (a - b) ** 2, 1
    parts = [squared_distance(x, y) for x, y in zip(a, b, strict=True)]
    return sum(p[0] for p in parts), sum(p[1] for p in parts)


def discriminate(tower: tuple, x: Vector) -> float:
    w1, b1, w2, b2 = tower
    hidden = [max(v, 0.0) for v in affine(w1, b1, x)]
    return 1 / (1 + math.exp(-affine(w2, b2, hidden)[0]))


def terms(
    originals: list, mixed: list, labels: list, lam: float, permutation: list[int],
    heads: list[tuple[list[Vector], Vector]], teacher: tuple, towers: list[tuple], temperature: float,
) -> dict[str, float]:  # fmt: skip
    """Every term of Eq. 13, unweighted; the last head is the backbone's. A label may be a list, a number a class."""
    stages, batch, classes = len(originals), len(labels), len(heads[0][1])
    out = dict.fromkeys(
        ["cls", "cls_mix", "feature", "discriminator", "branch_logit", "teacher_cls", "teacher_logit"], 0.0
    )
    projection, weight, bias = teacher
    several = isinstance(labels[0], list)
    loss, divergence = (binary_cross_entropy, binary_kl) if several else (soft_cross_entropy, kl)
    rows = labels if several else [[float(n == label) for n in range(classes)] for label in labels]
    for i in range(batch):
        j = permutation[i]
        target = interpolate(rows[i], rows[j], lam)
        interpolated = [interpolate(originals[k][i], originals[k][j], lam) for k in range(stages)]
        maps_m = [mixed[k][i] for k in range(stages)]
        for k in range(stages):
            z_i = affine(*heads[k], pool(originals[k][i]))
            z_j = affine(*heads[k], pool(originals[k][j]))
            z_tilde, z_m = interpolate(z_i, z_j, lam), affine(*heads[k], pool(maps_m[k]))
            out["cls"] += loss(z_i, rows[i])
            out["cls_mix"] += loss(z_m, target)
            total, count = squared_distance(interpolated[k], maps_m[k])
            out["feature"] += total / count
            out["discriminator"] -= math.log(discriminate(towers[k], pool(interpolated[k])))
            out["discriminator"] -= math.log(1 - discriminate(towers[k], pool(maps_m[k])))
            if k < stages - 1:
                out["branch_logit"] += divergence(z_tilde, z_m, temperature) + divergence(z_m, z_tilde, temperature)
        h_i = affine(weight, bias, affine(projection, None, [v for m in interpolated for v in pool(m)]))
        h_m = affine(weight, bias, affine(projection, None, [v for m in maps_m for v in pool(m)]))
        out["teacher_cls"] += loss(h_i, target) + loss(h_m, target)
        out["teacher_logit"] += divergence(z_tilde, h_m, temperature) + divergence(z_m, h_i, temperature)
    return {name: value / batch for name, value in out.items()}
