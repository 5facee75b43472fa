"""`tinprep report`, from raw files to the page in a browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import amazon, finished, refused, tinprep, write_raw
from tests.oracle import Review
from trainer.training.config import NOTHING, ORDER, ROUNDING, moving

EVIL = '<script>document.title = "broken in"</script>'
FORMULA = '$x^2$ & "quotes" --> 美妆'
LONG = "A category whose name is far too long to stand anywhere near a bar or a row of cells"
CONTROL = "=1+1\x1b[31m\x07\t"  # what a terminal obeys, XML forbids, and a spreadsheet runs
DAY = 86_400
pytestmark = [
    pytest.mark.filterwarnings(f"error::{kind}") for kind in ("UserWarning", "RuntimeWarning")
]
CHROMIUM_FLAGS = [
    "--headless",
    "--window-size=390,844",
    "--hide-scrollbars",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
    "--v=0",
    "--dump-dom",
]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FIGURES = {
    "lengths", "intervals", "popularity", "categories", "ctc", "ctc-share", "learned-0",
    "learned-1", "results-gauc", "results-auc", "curve-train_loss", "curve-logloss",
    "curve-gauc",
}  # fmt: skip


def prepared(folder: Path, users: int = 60) -> Path:
    """A small data set whose categories have the names above."""
    rng = np.random.default_rng(0)
    items = [f"B{i:09d}" for i in range(30)]
    names = [EVIL, FORMULA, LONG, CONTROL]
    reviews = [
        Review(f"A{user:04d}", items[item], DAY * int(rng.integers(10_000, 11_000)))
        for user in range(users)
        for item in rng.choice(30, 6 + user % 5, replace=False)
    ]
    meta = [(item, names[i % 4]) for i, item in enumerate(items)]
    out = folder / "out"
    finished(amazon(write_raw(folder / "raw", reviews, meta), out, "--bins", 4))
    return out


def trained(out: Path, run: Path, model: str, seed: int) -> Path:
    few = ("--batch-size", 64, "--dim", 4, "--hidden", 4, "--epochs", 1, "--threads", 1)
    finished(tinprep("train", out, "--run", run, "--model", model, "--seed", seed, *few))
    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path], Path]:
    """A data set, runs on it, and their report."""
    folder = tmp_path_factory.mktemp("report")
    out = prepared(folder)
    runs = [trained(out, folder / f"{m}-{s}", m, s) for m, s in (("tin", 0), ("tin", 1))]
    runs += [trained(out, folder / "din-0", "din", 0), trained(out, folder / "dien", "dien", 0)]
    for run in runs[1:3]:
        result = json.loads((run / "metrics.json").read_text())
        result["config"] |= dict.fromkeys(moving(NOTHING, ROUNDING, ORDER) - {"data"})
        # A run may be older than a setting, or than a metric.
        result["metrics"]["test"].pop("pair_accuracy")
        (run / "metrics.json").write_text(json.dumps(result, indent=1))
    path = runs[3] / "metrics.json"
    result = json.loads(path.read_text())
    result["metrics"]["test"]["auc"] = 0.99
    path.write_text(json.dumps(result, indent=1))
    page = folder / "report.html"
    finished(tinprep("report", out, *runs, "--out", page, "--category", FORMULA))
    return out, runs, page


class Page(HTMLParser):
    """What the tests look at: elements with their attributes, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_all_there_is(made: tuple[Path, list[Path], Path]) -> None:
    out, runs, path = made
    page = Page(path)
    manifest = json.loads((out / "manifest.json").read_text())
    for rows in manifest["rows"].values():
        assert f"{rows:,}" in page.text
    headings = (
        *("Results", "leads: GAUC", "How sure:", "Training", "Correlation of", "The data"),
        *("Settings of", "How the data"),
    )
    assert [page.text.index(h) for h in headings] == sorted(page.text.index(h) for h in headings)
    test = [json.loads((run / "metrics.json").read_text())["metrics"]["test"] for run in runs]
    scores = [one["gauc"] for one in test]
    leads = scores[3] > max(scores[2], np.mean(scores[:2]))
    assert ("AUC puts dien first (0.9900)" in page.text) != leads
    assert f"paired test over {manifest['rows']['test'] // 2} users" in page.text
    assert f"{np.mean(scores[:2]):.4f} ± {np.std(scores[:2], ddof=1):.4f}" in page.text
    assert f"{scores[2]:.4f}" in page.text
    assert "No learned map, which is of behaviours and the target alone: dien" in page.text
    assert "Synthetic data" not in page.text
    assert "threads" in page.text
    assert "None" not in page.text
    assert not any((run / "test_scores.parquet").exists() for run in runs)  # it only reads


def test_every_figure_is_there_once_and_says_what_it_shows(
    made: tuple[Path, list[Path], Path],
) -> None:
    page = Page(made[2])
    drawings = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert all(a["role"] == "img" and len(a["aria-label"] or "") > 20 for a in drawings)
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {str(i).removesuffix("-figure_1") for i in ids if str(i).endswith("-figure_1")} == (
        FIGURES
    )
    # Every link inside the page has its target.
    text = made[2].read_text(encoding="utf-8")
    assert {*re.findall(r'(?:url\(|href=")#([^")]+)', text)} <= {*ids}


def test_nothing_of_strangers_is_taken_for_markup(made: tuple[Path, list[Path], Path]) -> None:
    page = Page(made[2])
    assert not [tag for tag, _ in page.elements if tag == "script"]
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    for name in (EVIL, FORMULA):
        assert name in page.text
    assert "mathdefault" not in page.text


def test_nothing_is_asked_of_any_network(made: tuple[Path, list[Path], Path]) -> None:
    page = Page(made[2])
    text = made[2].read_text(encoding="utf-8")
    # The colour bars are pictures, given as data.
    text = re.sub(r'"data:image/png;base64,[^"]*"', '""', text)
    assert not re.findall(r"(?:https?:)?//[a-z]|@import|\burl\((?!#)", text)
    links = [a.get(k) or "" for _, a in page.elements for k in ("src", "href") if k in a]
    assert all(link.startswith(("#", "data:")) for link in links)


def test_synthetic_data_is_said_loudly(tmp_path: Path, made: tuple[Path, list[Path], Path]) -> None:
    out = tmp_path / "out"
    shutil.copytree(made[0], out)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | {"synthetic": True}))
    finished(tinprep("report", out, "--out", tmp_path / "r.html"))
    page = Page(tmp_path / "r.html")
    assert [a for _, a in page.elements if a.get("class") == "synthetic"]
    assert "Synthetic data." in page.text
    assert "(synthetic data)" in page.text
    assert "Results" not in page.text
    ended = tinprep("report", out, made[1][0], "--out", tmp_path / "r.html")
    assert ended.code == 4
    assert "of another data set" in ended.said


def test_the_same_again_is_the_same_file(
    made: tuple[Path, list[Path], Path], tmp_path: Path
) -> None:
    out, runs, page = made
    again = tmp_path / "again.html"
    finished(tinprep("report", out, *runs, "--out", again, "--category", FORMULA))
    assert again.read_bytes() == page.read_bytes()


def test_no_numbers_of_a_run_make_a_library_warn(
    tmp_path: Path, made: tuple[Path, list[Path], Path]
) -> None:
    """As weights too large for e^z, and a GAUC that is chance for all."""
    run = tmp_path / "run"
    shutil.copytree(made[1][0], run)
    kept = torch.load(run / "best.pt", weights_only=True)
    kept["weights"] = {name: 1e3 * weight for name, weight in kept["weights"].items()}
    torch.save(kept, run / "best.pt")
    result = json.loads((run / "metrics.json").read_text())
    for metrics in result["metrics"].values():
        metrics.update(gauc=0.5, auc=0.5)
    (run / "metrics.json").write_text(json.dumps(result, indent=1))
    page = tmp_path / "page.html"
    finished(tinprep("report", made[0], run, "--out", page, "--category", FORMULA))
    assert "Pearson not defined" in Page(page).text


def test_runs_that_do_not_belong_are_refused_and_the_file_stays(
    made: tuple[Path, list[Path], Path], tmp_path: Path
) -> None:
    out, runs, _ = made
    page = tmp_path / "report.html"
    page.write_text("before")
    unfinished = tmp_path / "unfinished"
    shutil.copytree(runs[0], unfinished)
    (unfinished / "metrics.json").unlink()
    damaged = tmp_path / "damaged"
    shutil.copytree(runs[0], damaged)
    (damaged / "log.csv").write_text("step,epoch\nx,y\n")
    other = trained(prepared(tmp_path / "other", users=50), tmp_path / "elsewhere", "tin", 0)
    for wanted, code, said in (
        ([unfinished], 2, "not finished"),
        ([runs[0], runs[0]], 2, "given twice"),
        ([other], 4, "is not like the one"),
        ([damaged], 3, "cannot be read"),
        ([tmp_path / "nowhere"], 3, "no run here"),
    ):
        ended = tinprep("report", out, *wanted, "--out", page)
        assert (ended.code, said in ended.said) == (code, True), ended.said
    head, *lines = (runs[0] / "log.csv").read_text().splitlines()
    for left in ([], lines[:-1], lines[1:] + lines[:1]):
        (damaged / "log.csv").write_text("\n".join([head, *left]) + "\n")
        refused(tinprep("report", out, damaged, "--out", page), 3, "A file of this run cannot")
    best = json.loads((runs[0] / "metrics.json").read_text())["best_step"]
    left = [line for line in lines if not line.startswith(f"{best},")]
    (damaged / "log.csv").write_text("\n".join([head, *left]) + "\n")
    refused(tinprep("report", out, damaged, "--out", page), 3, f"no line of step {best}")
    assert tinprep("report", out, "--out", tmp_path / "no" / "r.html").code == 2
    assert tinprep("report", tmp_path / "no", "--out", page).code == 3
    assert page.read_text() == "before"
    assert not list(tmp_path.glob(".*"))


PROBE = """<script>
document.documentElement.style.width = "390px";
const wide = [...document.querySelectorAll("table, th, td, figure, p, h1, h2, h3")].filter(
  (one) => one.getBoundingClientRect().right > 391).map((one) => one.outerHTML.slice(0, 99));
const boxes = [...document.querySelectorAll("figure > svg")].map((svg) => {
  const box = svg.getBoundingClientRect();
  return [svg.querySelector("g").id, box.width, box.height, box.right];
});
document.body.textContent = "PROBE" + JSON.stringify({
  boxes, wide, title: document.title,
}) + "END";
</script>"""


def browse(page: Path, profile: Path) -> tuple[str, list[str], set[str]]:
    """Load a page in Chromium.

    Returns:
        The document afterwards, what the console said, and the addresses the page asked for.
    """
    assert CHROMIUM is not None
    ended = subprocess.run(
        [
            CHROMIUM,
            *CHROMIUM_FLAGS,
            # Whoever asks for a host finds none, and is written down.
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--log-net-log={profile}.json",
            f"--user-data-dir={profile}",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    said = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    log = Path(f"{profile}.json").read_text(encoding="utf-8")
    asked = set(re.findall(r'"url":"((?:http|ws)[^"]*)"', log))
    # Chromium asks its maker for this and that on its own account; it gets no answer here.
    own = re.compile(r"https?://([a-z0-9-]+\.)*(google|googleapis|gvt1|gstatic)\.com(/|$)")
    return ended.stdout, said, {address for address in asked if not own.match(address)}


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_draws_every_figure_and_asks_for_nothing(
    made: tuple[Path, list[Path], Path], tmp_path: Path
) -> None:
    page = made[2]
    _, said, asked = browse(page, tmp_path / "profile")
    assert (said, asked) == ([], set())
    text = page.read_text(encoding="utf-8")
    policy = re.search(r"<meta http-equiv=[^>]*>", text)
    assert policy is not None
    probed = tmp_path / "probed.html"
    # The page's own policy lets no script run, not even this one.
    probed.write_text(text.replace(policy[0], "").replace("</body>", PROBE + "</body>"))
    found, said, asked = browse(probed, tmp_path / "probed")
    assert (said, asked) == ([], set())
    answer = re.search(r"PROBE(.*)END", found, re.DOTALL)
    assert answer is not None
    probe = json.loads(html.unescape(answer[1]))
    assert not probe["wide"]
    assert probe["title"].startswith("amazon-Beauty")
    assert {name.removesuffix("-figure_1") for name, *_ in probe["boxes"]} == FIGURES
    for name, width, height, right in probe["boxes"]:
        assert width > 300, name
        assert height > 50, name
        assert right <= 390, name


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_an_error_and_a_request_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text('<img src="http://tinprep.invalid/x.png"><script>console.error("x")</script>')
    _, said, asked = browse(page, tmp_path / "profile")
    assert len(said) == 1
    assert asked == {"http://tinprep.invalid/x.png"}


def test_a_name_is_shown_and_never_obeyed(
    made: tuple[Path, list[Path], Path], tmp_path: Path
) -> None:
    out, _, page = made
    for words in (["inspect", out], ["correlate", out, "--category", CONTROL, "--out", tmp_path]):
        ended = tinprep(*words)
        finished(ended)
        assert not set(ended.out + ended.err) & set("\x1b\x07\t")
    text = page.read_text(encoding="utf-8")
    assert not set(text) & set("\x1b\x07\t")
    assert "=1+1\\x1b[31m" in text
    rows = (tmp_path / "fig1.csv").read_text(encoding="utf-8").splitlines()
    assert any(",'=1+1\\x1b[31m" in row for row in rows)
    assert not any(re.search("(^|,)[=+@]", row) for row in rows)
