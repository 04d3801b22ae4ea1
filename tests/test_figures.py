"""Figures in documents are those of the JSON that stands beside them: rounded, and not remembered."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from benchmarks import accuracy_tables, instance_table
from benchmarks.report import RESULTS

DOCS = Path(__file__).resolve().parents[1] / "docs"


@cache
def text_of(name: str) -> str:
    """A document, its lines joined: a sentence may go on in the next one."""
    return " ".join((DOCS / name).read_text(encoding="utf-8").split())


@cache
def results(name: str) -> Any:
    return json.loads((RESULTS / name).with_suffix(".json").read_text(encoding="utf-8"))


@cache
def rows(name: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in results(name)["rows"]}


def test_tables_of_accuracy_are_those_of_its_json() -> None:
    document = (DOCS / "accuracy.md").read_text(encoding="utf-8")
    tables = list(accuracy_tables.tables())
    assert len(tables) == 22
    missing = [line for _, lines in tables for line in lines if line not in document]
    assert missing == []


def of_accuracy() -> Iterator[str]:
    """Sentences of accuracy.md beside its tables."""
    sets = results("bundle_scores")["sets"]
    val, held = sets["val"], sets["held_out"]
    outlines = [100 * val[way]["boundary_miou"] for way in ("semantic", "fused")]
    yield "The mean boundary IoU on val rises from {:.1f} to {:.1f}".format(*outlines)
    gains = []
    for scores in (held, val):
        errors = scores["errors"]
        for key, relative in (("aupr", True), ("auroc", False)):
            best = max(baseline[key] for baseline in errors["baselines"].values())
            gains.append(100 * (errors[key] / best - 1) if relative else errors[key] - best)
    yield f"AUPR +{gains[0]:.0f} % held out and +{gains[2]:.0f} % on val (the bar was +10 %)"
    yield f"AUROC +{gains[1]:.3f} and +{gains[3]:.3f} (the bar, +0.02, is missed"
    yield f"error probability is off by {100 * val['errors']['ece']:.1f} points on val"
    yield from _of_the_label_you_get()


def _of_the_label_you_get() -> Iterator[str]:
    found = results("final_errors")
    held, val = (found[name]["as shipped"] for name in ("held_out", "val"))
    read = found["val"]["P_ep's map, read for the final label"]

    def off(scores: Any) -> float:
        return 100 * (scores["expected"] - scores["true"])

    tenths = [100 * each["flagged"]["worst_decile"] for each in (held, val, read)]

    yield f"where flagged it is off by {abs(off(held['flagged'])):.1f} points (the aim was 2)"
    yield f"in its worst tenth by {tenths[0]:.1f} (3)"
    yield f"by class by {100 * held['class_error']:.2f} (1.2), over all pixels by {100 * held['all']['ece']:.2f} (0.2)"
    yield f"too low by {-off(val['flagged']):.1f} points, in its worst tenth by {tenths[1]:.1f}"
    yield f"by class by {100 * val['class_error']:.2f} and over all pixels by {-off(val['all']):.2f}."
    yield f"too high by {off(read['flagged']):.1f} and in its worst tenth by {tenths[2]:.1f}"
    yield f"so that by class ({100 * read['class_error']:.2f})"
    rendered = results("bundle_scores")["sets"]["rendered"]["label_errors"]["final"]["flagged"]
    yield f"says {100 * rendered['expected']:.1f} % of the flagged pixels and {100 * rendered['true']:.1f} % are wrong"
    other = {
        name: {t: round(off(each), 2) + 0.0 for t, each in by_t.items()} for name, by_t in found["other_t"].items()
    }
    least, low, high = ([other[name][t] for name in ("held_out", "val")] for t in ("0.3", "0.5", "0.9"))
    yield f"is off by {least[0]:+.2f} points held out (where it was fitted) and {least[1]:+.2f} on val"
    yield f"of what 0.5 flags by {low[0]:+.2f} and {low[1]:+.2f},"
    yield f"of what 0.9 flags by {high[0]:+.2f} and {high[1]:+.2f}."
    for name in ("held_out", "val"):
        scores = found[name]["as shipped"]["flagged"]["brier"], found[name]["P_ep's map, read for the final label"]
        assert scores[0] < scores[1]["flagged"]["brier"]


def of_benchmarks() -> Iterator[str]:
    """Rows and sentences of benchmarks.md."""
    report, precision = rows("report"), rows("precision")
    for name, unit in (("vs_torch_eager", 0), ("vs_numpy_cv2", 1)):
        row = report[f"fuse_labels/{name}"]
        low, _, high = row["quantiles"]
        yield f"times faster ({low:.{unit}f} to {high:.{unit}f})"
    yield f"{report['fuse_labels/vs_torch_eager']['ratio']:.0f} times faster"
    yield f"{report['fuse_labels/vs_numpy_cv2']['ratio']:.2f} times faster"
    yield f"`fuse_labels/extra_memory` | {report['fuse_labels/extra_memory']['value']:.1f} MB"
    shares = [f"{report[f'refine/share_of_ideal@{share}%']['value']:.0f}" for share in (3, 5, 10, 20)]
    yield f"{', '.join(shares)} % of the dense stage's time over the share of work"
    small = [f"{report[f'refine/share_of_ideal@{share}%/boundary/C=32']['value']:.0f}" for share in (3, 5, 10, 20)]
    yield f"in `/boundary/C=32` | {', '.join(small)} %"
    for size, words in (("360x480", "same modules, default memory layout"), ("1024x2048", "the same at `1024x2048`")):
        row = report[f"front/onnxruntime_vs_torch_eager@{size}"]
        low, middle, high = row["quantiles"]
        yield f"{words} | {middle:.1f} times faster ({low:.1f} to {high:.1f})"
    for size in ("480x360", "1024x2048"):
        low, middle, high = report[f"cascade/overhead@{size}"]["quantiles"]
        yield f"{middle:.0f} % ({low:.0f} to {high:.0f})"
    yield f"| {report['frame_time/deadline_met@480x360']['value']:.0f} % of 200 frames | 95 % |"
    peaks = [report[f"memory/peak@{size}"]["value"] for size in ("360x480", "1025x2049")]
    yield "{:.0f} MB, {:.0f} MB".format(*peaks)
    for where in ("deeplabv3plus-resnet50", "embedded"):
        row = precision[f"front/int8_vs_fp32_{where}@1024x2048"]
        yield f"`front/int8_vs_fp32_{where}@1024x2048` | {row['ratio']:.2f} times faster"
    yield f"| {precision['labels/int8_vs_fp32@embedded']['value']:.2f} % of the fused labels equal"
    low = rows("precision_avx2")
    yield f"the front graph is {low['front/int8_vs_fp32_embedded@1024x2048']['ratio']:.2f} times as fast as in fp32"
    yield f"{low['labels/int8_vs_fp32@embedded']['value']:.2f} % of the labels of each branch are equal at least"
    yield from _of_the_cascade()
    yield from _of_long_runs()
    yield from _of_branch_shapes()
    yield from _of_others_networks()
    yield from _of_large_frames()


def _of_the_cascade() -> Iterator[str]:
    """Of two runs, the second's rows are kept."""
    table = rows("cascade")
    small, large = (table[f"cascade/overhead@{size}"]["value"] for size in ("480x360", "1024x2048"))
    yield f"gave 31 and {small:.0f} % and 24 and {large:.0f} % with AVX2"
    for way in ("torch", "numpy_cv2"):
        for size in ("480x360", "1024x2048"):
            share = table[f"cascade/vs_plain_network/{way}@{size}"]["value"]
            yield f" and {share:.2f} | 0.9"


def _of_large_frames() -> Iterator[str]:
    table, sizes = rows("large_frames"), ("1440x2560", "2160x3840", "3000x4000")
    for limit, words in ((0, "none"), (4_000_000, "4,000,000"), (2_800_000, "2,800,000"), (2_100_225, "**2,100,225**")):
        named = f"up_to_{limit}" if limit else "no_limit"
        cells = []
        for where in ("", "val/", "cityscapes/"):
            found = [table.get(f"large_frames/miou@{size}/{where}{named}") for size in sizes]
            cells.append(", ".join("-" if row is None else f"{row['value']:.1f}" for row in found))
        flagged = table[f"large_frames/flagged@2160x3840/{named}"]["value"]
        yield f"| {words} | {' | '.join(cells)} | {flagged:.1f} % |"
        peaks = [table[f"large_frames/memory@{size}/{named}"]["value"] for size in sizes[1:]]
        yield "| {:.0f} MB, {:.0f} MB |".format(*peaks)


def _of_others_networks() -> Iterator[str]:
    taken, ways = rows("user_networks"), rows("post_processing")
    for name in ("efficientvit-b0", "twinlitenet", "wnet", "sinet", "sinet_softmax", "deeplab_dm05"):
        score = taken[f"user_networks/labels@{name}"]
        yield f"| {score['value']:.2f} | {score['baseline']:.2f} |"
        (equal,) = re.findall(r"([\d.]+) % of labels equal", score["note"])
        yield f"| {float(equal):.2f} % | {taken[f'user_networks/first_minute@{name}']['value']:.1f} s |"
    named = {
        "torch": "torch, as usual",
        "numpy_cv2": "NumPy and cv2, as usual",
        "torch_softmax_first": "torch, softmax first",
        "numpy_cv2_softmax_first": "NumPy and cv2, softmax first",
        "yolo_predictor": "YOLO's predictor",
    }
    for key, words in named.items():
        cells = []
        for where in ("network", "street", "noise"):
            low, middle, high = (f"{each:.3g}" for each in ways[f"post_processing/vs_{key}@{where}"]["quantiles"])
            cells.append(f"{middle} times ({low} to {high})")
        yield f"| {words} | {' | '.join(cells)} |"


def _of_long_runs() -> Iterator[str]:
    paper, many, video = rows("paper_cascade"), rows("many_frames"), rows("video")
    kills, loss, instances = rows("video_kills"), rows("video_loss"), rows("instances")
    for clock, words in (("processor", "in processor time"), ("wall", "the same in wall time")):
        low, middle, high = paper[f"paper_cascade/overhead_{clock}@deeplabv3plus-xception65@1025x2049"]["quantiles"]
        yield f"{words} | {middle:.0f} % ({low:.0f} to {high:.0f})"
    yield f"{paper['paper_cascade/memory@deeplabv3plus-xception65@1025x2049']['value'] / 1000:.1f} GB"
    yield f"and {many['many_frames/memory']['value']:.0f} MB"
    yield f"{many['many_frames/memory_growth']['value']:.1f} % more than after the first thousand"
    low, middle, high = video["video/throughput/ideal"]["quantiles"]
    yield f"{middle:.2f} of the ideal ({low:.2f} to {high:.2f}), {video['video/throughput/ideal']['value']:.0f} frames"
    yield f"{video['video/throughput/plain_loop']['ratio']:.2f} times as fast"
    yield f"{video['video/latency/p95']['value']:.2f} times a frame's time of segmenting"
    yield f"last minute of five over the first | {video['video/latency/growth']['value']:.2f} |"
    yield f"| {video['video/soak/memory_growth']['value']:.1f} %, threads and handles equal"
    missing = kills["video/kills/missing"]
    yield f"at most {missing['value']:.2f} s"
    yield f"half of the times {missing['quantiles'][1]:.2f} s at most"
    yield f"({loss['video/loss/udp_1%/wrong']['value']:.1f} %, bar: 2 %"
    for size, objects in (("1024x2048", "_100_objects"), ("520x696", "_300_nuclei"), ("1024x2048", "_noise")):
        row = instances[f"instances/vs_numpy@{size}{objects}"]
        low, middle, high = row["quantiles"]
        yield f"{middle:.0f} times faster ({low:.0f} to {high:.0f}), {row['value']:.0f} ms"


def _of_branch_shapes() -> Iterator[str]:
    table = rows("branch_shapes")
    for name in {row.rpartition("/")[2] for row in table if "over_semantic" in row}:
        cells = []
        for size in ("545x721", "1025x2049"):
            low, middle, high = table[f"branch_shapes/over_semantic@{size}/{name}"]["quantiles"]
            cells.append(f"{middle:.0f} % ({low:.0f} to {high:.0f})")
        yield f"| {' | '.join(cells)} |"
    for kernels in ("1,3,3", "1,3,1", "3,1,1", "1,1,1"):
        shares = [table[f"branch_shapes/refinement@{share}%/{kernels}"]["value"] for share in (3, 5, 10, 20)]
        yield f"| {kernels.replace(',', ', ')} | {', '.join(f'{share:.0f}' for share in shares)} % |"


def of_networks() -> Iterator[str]:
    """The vessels of networks.md."""
    found = results("vessels")
    before, after = (found[when]["errors"] for when in ("before", "after"))
    more = 100 * (after["aupr"] / before["aupr"] - 1)
    yield f"best 1 | {before['aupr']:.4f} | **{after['aupr']:.4f}**, {more:.0f} % more |"
    yield f"best 1 | {before['auroc']:.4f} | {after['auroc']:.4f} |"
    yield f"best 0 | {100 * before['fpr95']:.1f} % | {100 * after['fpr95']:.1f} % |"
    labels = [100 * found["after"][way]["miou"] for way in ("semantic", "fused")]
    yield "(mean IoU {:.2f} to {:.2f})".format(*labels)


def of_providers() -> Iterator[str]:
    """The table of providers.md."""
    table = rows("providers")
    for kind, words in (("labels_as_fp32_on_cpu", "16 frames"), ("miou", "mIoU of them, %")):
        cells = []
        for precision in ("fp32", "int8"):
            row = table[f"providers/{kind}@{precision}/OpenVINOExecutionProvider"]
            cells.append(f"{row['value']:.2f}, on the CPU provider {row['baseline']:.2f}")
        yield f"{words} | {' | '.join(cells)} |"
    for size in ("360x480", "1024x2048"):
        for kind, words in (("frame", "faster at {}, by the clock"), ("processor_time", "less processor time at {}")):
            cells = []
            for precision in ("fp32", "int8"):
                row = table[f"providers/{kind}_vs_cpu@{precision}/OpenVINOExecutionProvider@{size}"]
                low, middle, high = row["quantiles"]
                cells.append(f"{middle:.2f} times ({low:.2f} to {high:.2f})")
            yield f"{words.format(size)} | {' | '.join(cells)} |"


def of_instances() -> Iterator[str]:
    """The tables of instances.md."""
    names = {
        "bundle": "boxes of the localization head",
        "components": "connected pieces",
        "watershed": "watershed",
        "components, true labels": "pieces of the true class map",
        "watershed, true labels": "watershed of the true class map",
    }
    for found, (key, words) in [
        *itertools.product([results("instance_methods")], names.items()),
        *itertools.product([results("instance_methods_touching")], list(names.items())[:3]),
        *itertools.product([results("instance_streets")], names.items()),
    ]:
        scores = found["methods"][key]
        figures = [*(scores[name] for name in ("map_r_0.5", "map_r_0.7", "map_r_vol", "map"))]
        cells = [f"{100 * each:.1f}" for each in [*figures, scores["panoptic"]["things"]["pq"]]]
        yield f"| {words} | {' | '.join(cells)} |"
        if key != "bundle":
            yield f"{100 * found['bundle_minus'][key]['map_r_0.5']:+.1f}"
    for name in ("instance_table_nuclei", "instance_table_pedestrians"):
        yield from map(instance_table.line, results(name)["rows"])


WRITTEN = {
    "accuracy.md": of_accuracy,
    "benchmarks.md": of_benchmarks,
    "networks.md": of_networks,
    "providers.md": of_providers,
    "instances.md": of_instances,
}


@pytest.mark.parametrize("document", WRITTEN)
def test_sentences_and_rows_are_those_of_their_json(document) -> None:
    wanted = list(WRITTEN[document]())
    assert len(wanted) > 3
    assert [sentence for sentence in wanted if " ".join(sentence.split()) not in text_of(document)] == []


def test_every_table_of_accuracy_has_figures_that_are_made() -> None:
    """No row of a table of accuracy.md is written by hand, but for what the paper says."""
    made = {line for _, lines in accuracy_tables.tables() for line in lines}
    document = (DOCS / "accuracy.md").read_text(encoding="utf-8")
    lines = [line for line in document.splitlines() if re.match(r"\|.*\d", line)]
    assert [line for line in lines if line not in made] == []
