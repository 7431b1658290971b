"""Draw the idea of MixSKD as docs/figures/idea.svg:  python docs/figures/idea.py"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

BLUE, ORANGE, BOTH, TEACH, GREY, INK = "#2f6db5", "#d9822b", "#8a6d9e", "#7a3fa0", "#8a8a8a", "#222222"
TOP, BOTTOM, MIDDLE = 105, 345, 225


def text(x: float, y: float, line: str, size: int = 14, colour: str = INK, anchor: str = "middle") -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="{anchor}">{line}</text>'


def lines(x: float, y: float, words: Iterable[str], size: int = 14, colour: str = INK, anchor: str = "middle") -> str:
    return "".join(text(x, y + i * (size + 4), line, size, colour, anchor) for i, line in enumerate(words))


def rect(x: float, y: float, width: float, height: float, fill: str, more: str = "") -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}" {more}/>'


def box(x: float, y: float, width: float, height: float, colour: str, dashed: bool = False) -> str:
    dash = 'stroke-dasharray="6 4"' if dashed else ""
    return rect(x, y, width, height, "white", f'rx="8" stroke="{colour}" stroke-width="2" {dash}')


def arrow(path: str, colour: str, both: bool = False) -> str:
    tip = f"url(#h{colour[1:]})"
    tips = f'marker-end="{tip}"' + (f' marker-start="{tip}"' if both else "")
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2" {tips}/>'


def image(x: float, y: float, disc: float, triangle: float) -> str:
    """An image of a blue disc, an orange triangle, or both at the opacities given."""
    frame = rect(x, y, 64, 64, "#f4f4f0", f'rx="4" stroke="{GREY}"')
    round_one = f'<circle cx="{x + 28}" cy="{y + 28}" r="19" fill="{BLUE}" opacity="{disc}"/>'
    pointed = f"M{x + 38} {y + 16} l20 40 h-40 z"
    return frame + round_one + f'<path d="{pointed}" fill="{ORANGE}" opacity="{triangle}"/>'


def operator(x: float, y: float) -> str:
    ring = f'<circle cx="{x}" cy="{y}" r="20" fill="#fff6d8" stroke="{INK}" stroke-width="1.5"/>'
    return ring + text(x, y + 5, "mix")


def maps(x: float, y: float) -> str:
    """Three feature maps in a stack, centred at (x, y)."""
    stack = ""
    for i in range(3):
        left, top = x - 34 + 10 * i, y - 34 + 10 * i
        stack += rect(left, top, 48, 48, "#ece6f2", f'stroke="{BOTH}" stroke-width="1.5"')
    return (
        stack
        + f'<circle cx="{x + 5}" cy="{y + 8}" r="9" fill="{BLUE}" opacity="0.55"/>'
        + (f'<path d="M{x + 20} {y + 4} l10 20 h-20 z" fill="{ORANGE}" opacity="0.55"/>')
    )


def logits(x: float, y: float, heights: tuple[int, ...]) -> str:
    bars = (rect(x - 32 + 17 * i, y + 30 - h, 11, h, c) for i, (h, c) in enumerate(zip(heights, COLOURS, strict=True)))
    return "".join(bars) + f'<path d="M{x - 38} {y + 31} h76" stroke="{INK}"/>'


COLOURS = (GREY, BLUE, GREY, ORANGE)


def picture() -> str:
    parts = [
        # the two images, and their mix
        image(20, 35, 1, 0), image(20, 120, 0, 1), text(52, 30, "two images"), operator(52, 240),
        arrow("52 186 V216", INK), image(20, 300, 0.6, 0.5), arrow("52 261 V296", INK), text(52, 382, "their mix"),
        # the network, the same for all three
        box(160, 35, 150, 350, INK),
        text(235, 62, "one network", 16), lines(235, 105, ["backbone", "(kept at the end)"]),
        box(175, 165, 120, 80, GREY, True), lines(235, 192, ["branches from", "earlier stages", "(training only)"]),
        lines(235, 290, ["every classifier", "learns from the", "labels, too", "L_cls"]),
        arrow("88 67 H154", BLUE), arrow("88 152 H154", ORANGE), arrow("88 332 H154", BOTH),
        # first the network, then the mix; first the mix, then the network
        arrow(f"312 75 L370 {TOP - 9}", BLUE), arrow(f"312 135 L370 {TOP + 9}", ORANGE),
        operator(392, TOP), arrow(f"413 {TOP} H446", BOTH), arrow(f"312 {BOTTOM} H446", BOTH),
        maps(490, TOP), maps(490, BOTTOM), text(490, 44, "mix of their maps"), text(490, 408, "maps of their mix"),
        arrow(f"540 {TOP} H622", BOTH), arrow(f"540 {BOTTOM} H622", BOTH),
        logits(670, TOP, (8, 44, 5, 34)), logits(670, BOTTOM, (14, 36, 10, 26)),
        text(670, 44, "mix of their logits"), text(670, 408, "logits of their mix"),
        # what agrees with what
        arrow("472 156 V292", TEACH, True), lines(462, 218, ["made equal", "L_feature"], 14, TEACH, "end"),
        box(500, 190, 120, 72, TEACH, True), lines(560, 214, ["discriminators", "tell them apart", "L_dis"], 13, TEACH),
        arrow("515 156 V186", TEACH), arrow("515 292 V266", TEACH),
        arrow("670 152 V292", TEACH, True), lines(680, 208, ["teach each", "other", "L_b_logit"], 14, TEACH, "start"),
        box(800, 165, 140, 120, TEACH, True), text(870, 192, "self-teacher", 16, TEACH),
        lines(870, 218, ["sees all the maps,", "learns the labels", "L_cls_h"], 14, TEACH),
        arrow(f"580 {TOP} V18 H870 V160", BOTH), arrow(f"580 {BOTTOM} V436 H870 V290", BOTH),
        arrow(f"800 180 L722 {TOP + 10}", TEACH), arrow(f"800 270 L722 {BOTTOM - 10}", TEACH),
        lines(800, 98, ["soft labels,", "crosswise", "L_f_logit"], 14, TEACH), text(795, 330, "soft labels", 14, TEACH),
    ]  # fmt: skip
    heads = "".join(
        f'<marker id="h{c[1:]}" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="5" markerHeight="5" '
        f'orient="auto-start-reverse"><path d="M0 0 L8 4 L0 8 z" fill="{c}"/></marker>'
        for c in (BLUE, ORANGE, BOTH, TEACH, INK)
    )
    body = "\n".join([f"<defs>{heads}</defs>", rect(0, 0, 960, 450, "white"), *parts])
    name = "Two images and their mix pass one network; maps and logits of both ways are compared"
    style = 'viewBox="0 0 960 450" font-family="Helvetica, Arial, sans-serif"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {style}>\n<title>{name}</title>\n{body}\n</svg>\n'


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(picture(), encoding="utf-8")
