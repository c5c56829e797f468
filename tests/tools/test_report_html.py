"""The HTML page: complete, self-contained, deaf to what names try to do; looked at through a real browser."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fretsaw.backends.artifact import write_container
from fretsaw.ir import parse
from fretsaw.tools import cli
from fretsaw.tools.report.layout import layered
from fretsaw.tools.report.page import render
from fretsaw.tools.report.source import Source
from tests.tools.test_inspect import RECORD, manifest_of

EVIL = "</script></style><script>document.title='planted'</script><img src=x onerror=document.title='planted'>"
LAYER = """
  %n{i}: f32[S, 8] = rms_norm(%x{i}, %g{i}) {{eps = 1e-05}}  // model.layers.{i}.norm <raise_rms_norm>
  %l{i}: f32[S, 8] = linear(%n{i}, %w{i})  // model.layers.{i}.mlp
  %x{j}: f32[S, 8] = add(%x{i}, %l{i})  // model.layers.{i}"""


def model(layers: int, *, path: str = "head", phase: str = "canonical") -> str:
    consts = "".join(f"\n  const %g{i}: f32[8]\n  const %w{i}: f32[8, 8]" for i in range(layers))
    nodes = "".join(LAYER.format(i=i, j=i + 1) for i in range(layers))
    head = f"\n  %y: f32[S, 8] = silu(%x{layers})  // {path}"
    told = "" if phase == "captured" else f"\n  phase {phase}"
    return f"graph @m(%x0: f32[S, 8]) -> (%y) {{{told}\n  dim S in [1, 64]{consts}{nodes}{head}\n}}\n"


def artifact(folder: Path, text: str, **record: object) -> Path:
    path = folder / "m.fsaw"
    mine = {**RECORD, **record}
    sections = [("ir/captured", [text.replace("  phase canonical\n", "").encode()]), ("ir/canonical", [text.encode()]),
                ("evidence.json", [json.dumps({"passes": [mine]}).encode()]),
                ("program", [b"{}"]),
                ("code/llvm-x86-64-v3", [b"x"]), ("weights", [bytes(64)])]  # fmt: skip
    write_container(path, manifest_of([mine]), sections)
    return path


def page(path: Path) -> Path:
    out = path.with_suffix(".html")
    assert cli.run(["inspect", str(path), "--html", str(out)]) == 0
    return out


class Reader(html.parser.HTMLParser):
    """All elements with their attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def count(self, tag: str, name: str = "") -> int:
        return sum(t == tag and (not name or name in (a.get("class") or "").split()) for t, a in self.elements)


def test_one_drawing_for_alike_layers_and_a_mark_for_each(tmp_path: Path) -> None:
    read = Reader(page(artifact(tmp_path, model(30))).read_text())
    assert read.count("section", "phase") == 2
    assert read.count("details", "group") == 2 * 2  # layers 0-29 and the head, in two phases
    assert read.count("g", "op") == 2 * (3 + 1)
    strip = [a for t, a in read.elements if t == "a" and (a.get("title") or "").startswith("layer ")]
    assert len(strip) == 2 * 30 and strip[7]["title"] == "layer 7: layers 0-29"
    boxes = [a for t, a in read.elements if t == "g" and "op" in (a.get("class") or "").split()]
    assert boxes[0]["data-rules"] == "raise_rms_norm" and boxes[0]["data-module"] == "model.layers.0.norm"
    assert all(box["tabindex"] == "0" for box in boxes), "the keyboard reaches every box"


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    text = page(artifact(tmp_path, model(2))).read_text()
    read = Reader(text)
    assert not {t for t, _ in read.elements} & {"link", "img", "iframe", "object", "embed", "base", "form"}
    sources = [a[k] for _, a in read.elements for k in ("src", "href", "action", "xlink:href") if k in a]
    assert all((s or "").startswith("#") for s in sources)
    assert not re.search(r"url\(|@import|https?://", text)
    policy = next(a["content"] or "" for t, a in read.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy
    assert not any("style" in a or any(k.startswith("on") for k in a) for _, a in read.elements)


def test_names_are_text_wherever_they_stand(tmp_path: Path) -> None:
    # Every string that a file brings is planted: module path, rule, site, reason, option, origin, check.
    evil = {"sites": [EVIL], "declined": [[EVIL] * 4], "options": {EVIL: EVIL}, "origin": EVIL, "phase": EVIL,
            "check": {"status": EVIL, EVIL: 1.0}, "keeps": EVIL}  # fmt: skip
    plain, planted = (
        Reader(page(artifact(tmp_path, model(2, path=path), **record)).read_text())
        for path, record in (
            ("head", {"phase": "x", "sites": ["a"], "declined": [["a"] * 4]}),
            (EVIL.replace(" ", ""), evil),
        )
    )
    assert planted.count("script") == plain.count("script") == 1
    assert planted.count("style") == plain.count("style") == 1 and planted.count("img") == 0


def test_94_different_and_94_alike_layers_stay_small(tmp_path: Path) -> None:
    """Under 2 MB, also where no two layers are alike: drawings are limited, and the page says so."""
    alike = tmp_path / "alike.fir"
    alike.write_text(model(94))
    assert len(render(Source.open(alike))) < 200_000
    odd = tmp_path / "odd.fir"
    text = model(94)
    for i in range(94):
        text = text.replace("eps = 1e-05", f"eps = {1e-6 * (i + 1)!r}", 1)
    odd.write_text(text)
    shown = render(Source.open(odd))
    assert len(shown) < 2_000_000
    assert shown.count('class="group"') == 95 and shown.count("Not drawn") == 95 - 40


def test_a_layout_has_no_overlap_and_no_crossing_where_none_is_needed() -> None:
    """A residual layer with three branches: boxes of a rank keep their distance, arrows go down."""
    edges = [(0, 1), (1, 2), (1, 3), (1, 4), (2, 5), (3, 5), (4, 5), (5, 6), (0, 6)]
    layout = layered([176.0] * 7, edges)
    ranks: dict[float, list[float]] = {}
    for x, rank in layout.places:
        ranks.setdefault(rank, []).append(x)
    assert sorted(len(xs) for xs in ranks.values()) == [1, 1, 1, 1, 3]
    for xs in ranks.values():
        assert all(b - a >= 176 for a, b in zip(sorted(xs), sorted(xs)[1:], strict=False))
    for route in layout.routes:
        assert all(b[1] - a[1] == 1 for a, b in zip(route, route[1:], strict=False))
    assert layout.ranks == 5 and all(88 <= x <= layout.width - 88 for x, _ in layout.places)


def chromium(tmp_path: Path, *args: str) -> str:
    """Headless, without network; what it writes to stdout."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("chromium is not installed (Debian package chromium)")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=4000",
             f"--user-data-dir={tmp_path / 'profile'}"]  # fmt: skip
    return subprocess.run([found, *flags, *args], capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.browser
def test_in_a_browser_the_script_runs_and_planted_ones_do_not(tmp_path: Path) -> None:
    written = page(artifact(tmp_path, model(3, path=EVIL.replace(" ", "")), origin=EVIL, options={EVIL: EVIL}))
    dom = chromium(tmp_path, "--dump-dom", written.as_uri())
    assert 'data-ready="8"' in dom, "our script ran: 4 boxes in each of two phases"
    assert "<title>m.fsaw: what Fretsaw did</title>" in dom
    assert dom.count('<section class="phase"') == 2 and dom.count('hidden=""') >= 1
    read = Reader(dom)
    assert [a["data-phase"] for t, a in read.elements if t == "section" and "hidden" in a] == ["0"]
    assert read.count("img") == 0 and read.count("script") == 1


@pytest.mark.browser
def test_in_a_browser_the_policy_stops_a_script_that_was_not_escaped(tmp_path: Path) -> None:
    """The second lock: with the escaping undone, the planted script is in the page and still does not run. Without
    the policy it would, which shows that the test can fail."""
    written = page(artifact(tmp_path, model(2)))
    text = written.read_text().replace("</main>", EVIL + "</main>")
    written.write_text(text)
    assert "<title>planted" not in chromium(tmp_path, "--dump-dom", written.as_uri())
    written.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text))
    assert "<title>planted" in chromium(tmp_path, "--dump-dom", written.as_uri())


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_in_a_browser_nothing_is_wider_than_the_screen(tmp_path: Path, width: int) -> None:
    """Measured by a script that this test adds, with its digest in the policy taken out."""
    written = page(
        artifact(tmp_path, model(3), sites=["a" * 300], declined=[["%" + "b" * 200, "add", "c" * 200, "d" * 200]])
    )
    probe = (
        "<script>document.querySelectorAll('details').forEach(d => d.open = true);"
        "document.title = 'wide ' + document.documentElement.scrollWidth + ' of ' + innerWidth</script></body>"
    )
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", written.read_text())
    frame = tmp_path / "frame.html"
    inner = text.replace("</body>", probe).replace("document.title =", "parent.document.title =")
    escaped = inner.replace("&", "&amp;").replace('"', "&quot;")
    frame.write_text(f'<iframe width="{width}" height="900" srcdoc="{escaped}"></iframe>')
    dom = chromium(tmp_path, "--dump-dom", "--window-size=1600,1200", frame.as_uri())
    found = re.search(r"<title>wide (\d+) of (\d+)</title>", dom)
    assert found is not None, dom[:300]
    assert int(found[2]) == width and int(found[1]) <= width


def test_the_model_above_is_well_formed() -> None:
    assert len(parse(model(3)).nodes) == 10
