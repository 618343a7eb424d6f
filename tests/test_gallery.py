"""The gallery: its pages are what the script writes just now, its figures draw, and the command prints the same."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from gallery_pages import page, pages

from gradkern.cli import main
from gradkern.lecture import lecture, topics

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docs/gallery.py"
needs_checkout = pytest.mark.skipif(not SCRIPT.is_file(), reason="not a source checkout")
COLUMNS = 98  # of a block in a terminal of 100


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("gallery_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_checkout
@pytest.mark.parametrize("topic", topics())
def test_pages_are_what_the_script_writes(script, topic):
    assert (script.FOLDER / f"{topic}.md").read_text(encoding="utf-8") == script.text(page(topic))


@needs_checkout
def test_the_folder_holds_the_pages_and_their_figures(script):
    assert (script.FOLDER / "index.md").read_text(encoding="utf-8") == script.index(pages())
    expected = {"index.md"} | {f"{topic}.{ending}" for topic in topics() for ending in ("md", "png")}
    assert {path.name for path in script.FOLDER.iterdir()} == expected
    for topic in topics():
        assert (script.FOLDER / f"{topic}.png").read_bytes()[:4] == b"\x89PNG"
        assert f"]({topic}.png)" in page(topic).markdown


@pytest.mark.parametrize("topic", topics())
def test_figures_draw(topic, tmp_path):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    found = page(topic)
    axes = figure.subplots()
    assert found.plot(axes) is axes
    assert axes.get_xlabel() and axes.get_ylabel() and axes.get_title(loc="left") == found.caption
    assert axes.lines or axes.collections
    found.plot().get_figure(root=True).savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


@pytest.mark.parametrize("topic", topics())
def test_a_page_is_a_question_code_numbers_and_claims(topic):
    found = page(topic)
    assert found.question.endswith("?") or "? " in found.question
    assert found.code.startswith("import gradkern as gk\n") and found.output and found.claims
    for part in (found, *found.claims):
        assert part.output
        assert all(len(line) <= COLUMNS for line in (*part.code.splitlines(), *part.output))
    assert all(claim.said and claim.right for claim in found.claims)


def test_results_travel(tmp_path):
    found = page("formats")
    assert repr(found) == found.markdown
    assert json.loads(json.dumps(found.to_dict()))["claims"][0]["rows"] == [12]
    found.save(tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == found.markdown
    frame = pytest.importorskip("pandas") and found.to_frame()
    assert list(frame["title"]) == [claim.title for claim in found.claims]


def test_unknown_topic():
    with pytest.raises(ValueError, match=r"lecture: topic must be one of powers, .* got 'weather'"):
        lecture("weather")


def test_command_lists_the_topics(capsys):
    assert main(["lecture"]) == 0
    out = capsys.readouterr().out
    assert all(name in out and title in out for name, title in topics().items())
    assert main(["lecture", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"topics": topics()}


def test_command_prints_the_page(capsys, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("COLUMNS", "110")  # code is wrapped in narrower terminals
    assert main(["lecture", "formats", "--plot", str(tmp_path / "formats.svg")]) == 0
    out = capsys.readouterr().out
    found = page("formats")
    for part in (found, *found.claims):
        for line in (*part.code.splitlines(), *part.output):
            assert line.rstrip() in out
    assert "formats.png" not in out and (tmp_path / "formats.svg").stat().st_size > 0
    assert main(["lecture", "formats", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.to_dict()))


@pytest.mark.parametrize("arguments", [["weather"], ["--plot", "figure.png"], ["formats", "--plot", "figure.txt"]])
def test_wrong_usage_is_one_line(capsys, arguments):
    assert main(["lecture", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("gradkern: error: ") and captured.err.count("\n") == 1


@needs_checkout
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("mkdocs", "material")),
    reason="needs pip install 'gradkern[docs]'",
)
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(ROOT / "mkdocs.yml")]
    done = subprocess.run(
        [*command, "--site-dir", str(tmp_path)], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "pages exist in the docs directory" not in done.stderr
    for topic in topics():
        assert (tmp_path / f"gallery/{topic}/index.html").is_file()
        assert (tmp_path / f"gallery/{topic}.png").is_file()
