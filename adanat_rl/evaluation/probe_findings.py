"""What a probe says: sentences for people, and the table on the terminal.

Both read `ProbeResult.as_dict()`, as it stands in probe.json. "Beyond chance" is 5 % over all places that were looked
at (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from adanat_rl.evaluation.fitting import fitted, left_out_note

SIGNIFICANCE = 0.05
PARTS = ("mean", "classes", "images", "noise")

Probe = Mapping[str, Any]
Site = Mapping[str, Any]


def place(site: Site, horizon: int) -> str:
    """Where a decision is taken, in words; steps count from 1."""
    return f"step {site['step'] + 1} of {horizon}, {site['decision'].replace('_', ' ')}"


def effect_size(part: Mapping[str, float]) -> tuple[float, float, float]:
    """Root of a part with its interval, in units of the reward; what is below 0 counts as 0."""
    value, low, high = (math.sqrt(max(0.0, part[key])) for key in ("value", "low", "high"))
    return value, low, high


def most(sites: Sequence[Site], gain: str) -> Site:
    """The place where a gain is largest, of those where it is beyond chance if there are any."""
    evident = [site for site in sites if is_evident(site, gain, len(sites))]
    return max(evident or sites, key=lambda site: float(site[gain]["value"]))


def is_evident(site: Site, gain: str, num_sites: int) -> bool:
    """Whether a gain is beyond chance."""
    return bool(site[gain]["p_value"] * num_sites < SIGNIFICANCE)


def sentences(probe: Probe) -> list[str]:
    """What to take home: the schedule, the class, the image, and what the estimates are worth."""
    sites = probe["sites"]
    if not sites:
        return ["There is no decision with an effect."]
    return [
        _on_schedule(probe),
        _on_classes(probe),
        _on_images(probe),
        _on_features(probe),
        _on_reward(probe),
        _on_method(probe),
    ]


def _on_schedule(probe: Probe) -> str:
    sites, horizon = probe["sites"], probe["horizon"]
    mean = probe["rewards"][0]["mean"]["value"]
    site = most(sites, "schedule")
    if not is_evident(site, "schedule", len(sites)):
        return (
            f"For all images alike: no single change of one decision beats the starting point, whose mean reward is "
            f"{mean:.3f}, beyond chance."
        )
    best = max(range(len(site["effects"])), key=lambda level: site["effects"][level]["value"])
    return (
        f"For all images alike: most is to be gained at {place(site, horizon)}: {site['values'][best]:.2f} instead of "
        f"{site['base_value']:.2f} adds {_with_interval(site['schedule'])} to a mean reward of {mean:.3f}."
    )


def _on_classes(probe: Probe) -> str:
    sites, horizon = probe["sites"], probe["horizon"]
    if probe["num_classes"] < 2:
        return "For each class: there is one class only."
    limit = max(sites, key=lambda site: float(site["per_class"]["at_most"]))
    at_most = f"at no place can it add more than {limit['per_class']['at_most']:.3f} ({place(limit, horizon)})"
    site = most(sites, "per_class")
    if not is_evident(site, "per_class", len(sites)):
        return f"For each class: a level of its own adds nothing beyond chance; {at_most}."
    return (
        f"For each class: a level of its own adds most at {place(site, horizon)}: {_with_interval(site['per_class'])}; "
        f"{at_most}."
    )


def _on_images(probe: Probe) -> str:
    sites, horizon = probe["sites"], probe["horizon"]
    if all(site["alike"] for site in sites):
        return "For each image: where decisions were changed, all images of a class look alike to a policy."
    differs = max(
        (site for site in sites if not site["alike"]), key=lambda site: float(site["split"]["images"]["value"])
    )
    spread, noise = (effect_size(differs["split"][part])[0] for part in ("images", "noise"))
    limit = max(sites, key=lambda site: float(site["per_image"]["at_most"]))
    text = (
        f"For each image: within a class the effect of a decision truly differs most at {place(differs, horizon)}: by "
        f"{spread:.3f} (sd between images) against {noise:.3f} of noise from one finish to the next. "
    )
    site = most(sites, "per_image")
    if is_evident(site, "per_image", len(sites)):
        where = "there" if site is differs else f"at {place(site, horizon)}"
        text += (
            f"Who knew each image's own effects would gain at least {_with_interval(site['per_image'])} over a choice "
            f"per class {where}"
        )
    else:
        text += "No gain over a choice per class can be shown, even for who knew each image's own effects"
    return f"{text}, and nowhere more than {limit['per_image']['at_most']:.3f} ({place(limit, horizon)})."


def _on_features(probe: Probe) -> str:
    sites, horizon = probe["sites"], probe["horizon"]
    site = most(sites, "features")
    if is_evident(site, "features", len(sites)):
        return (
            f"By the features: a level chosen by what they tell of an image adds {_with_interval(site['features'])} "
            f"to a choice per class at {place(site, horizon)}. There a policy per image has something to learn."
        )
    told = max(sites, key=lambda site: float(site["split"]["predicted"]["value"]))
    predicted, images = told["split"]["predicted"], told["split"]["images"]["value"]
    text = "By the features: they do not tell images apart well enough to gain beyond chance over a choice per class"
    if predicted["low"] > 0 and images > 0:
        share = min(1.0, predicted["value"] / images)
        text += f", though at {place(told, horizon)} they predict {share:.0%} of the variance between images"
    return f"{text}."


def _on_reward(probe: Probe) -> str:
    shares = []
    for row in probe["rewards"][:: max(1, -(-len(probe["rewards"]) // 8))]:
        settled, open_ = max(0.0, row["images"]["value"]), row["noise"]["value"]
        share = settled / (settled + open_) if settled + open_ > 0 else 0.0
        shares.append(f"{share:.0%} before step {row['step'] + 1}")
    return f"What is settled: of the reward's variance within a class the half-drawn image holds {', '.join(shares)}."


def _on_method(probe: Probe) -> str:
    count = probe["num_classes"] * probe["images_per_class"]
    below = sum(site["split"][part]["value"] < 0 for site in probe["sites"] for part in PARTS)
    total = len(PARTS) * len(probe["sites"])
    text = (
        f"Measured on {count} half-drawn images, {probe['num_repeats']} finishes each, at {len(probe['sites'])} "
        "places; one decision at a time, among the levels tried."
    )
    if below:
        text += (
            f" {below} of {total} parts came out below 0, as unbiased estimates of what is near 0 do; "
            "they are shown as 0."
        )
    return text


_GAINS = {
    "schedule": "gain\nbest for all",
    "per_class": "gain\nper class",
    "per_image": "per image\n(known)",
    "features": "per image\n(features)",
}
# What a reader needs first; the last of them goes first where there is no room
_IMPORTANCE = (
    "decision", "step", "features", "schedule", "per_class", "per_image", "share", "images", "noise", "value",
    "classes", "mean",
)  # fmt: skip


def probe_table(probe: Probe, width: int | None = None) -> Table:
    """One line for each decision of each step.

    Args:
        width: in characters that it has; columns that do not fit are left out and named. None: as wide as it needs.
    """
    titles = {"step": "step", "decision": "decision", "value": "value"}
    titles |= {part: f"effect\n{part}" for part in PARTS}
    titles |= {"share": "of images\npredicted", **_GAINS}
    rows = [_line(probe, site) for site in probe["sites"]]

    def build(kept: Sequence[str], left_out: Sequence[str]) -> Table:
        missing = [titles[name].replace("\n", " ") for name in titles if name in left_out]
        note = (
            "effect: root of each part of its mean square, over the levels. gain: of the best level tried, each over "
            "the one before; * beyond chance."
        )
        table = Table(
            title="What a change of one decision does to the reward",
            caption=" ".join(filter(None, (note, left_out_note(missing, "the probe's JSON file")))),
            title_justify="left",
            caption_justify="left",
        )
        for name, title in titles.items():
            if name in kept:
                table.add_column(title, justify="left" if name == "decision" else "right", no_wrap=True)
        step = None
        for row in rows:
            if step not in (None, row["step"]):
                table.add_section()
            step = row["step"]
            table.add_row(*(row[name] for name in titles if name in kept))
        return table

    return build(_IMPORTANCE, ()) if width is None else fitted(build, _IMPORTANCE, width)


def _line(probe: Probe, site: Site) -> dict[str, str]:
    sizes = {
        part: "–" if part == "images" and site["alike"] else f"{effect_size(site['split'][part])[0]:.3f}"
        for part in PARTS
    }
    return {
        "step": str(site["step"] + 1),
        "decision": site["decision"].replace("_", " "),
        "value": f"{site['base_value']:.2f}",
        **sizes,
        "share": _share(site),
        **{gain: _cell(site, gain, len(probe["sites"])) for gain in _GAINS},
    }


def _share(site: Site) -> str:
    predicted, images = site["split"]["predicted"], site["split"]["images"]
    if site["alike"] or images["low"] <= 0:  # no share of what may be nothing
        return "–"
    return f"{min(1.0, max(0.0, predicted['value'] / images['value'])):.0%}"


def _cell(site: Site, gain: str, num_sites: int) -> str:
    found = site[gain]
    if site["alike"] and gain in {"per_image", "features"}:
        return "–"
    number = f"{found['value']:+.3f}"
    text = f"{'0.000' if float(number) == 0 else number}{'*' if is_evident(site, gain, num_sites) else ''}"
    return text if found["at_most"] is None else f"{text} (≤ {found['at_most']:.3f})"


def _with_interval(gain: Mapping[str, float]) -> str:
    return f"{gain['value']:.3f} ({gain['low']:.3f} to {gain['high']:.3f})"
