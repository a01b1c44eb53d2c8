"""The page of a study, as a browser without a network shows it."""

import base64
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_study import planned

from critical_periods.cli import main
from critical_periods.studies.worker import work

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
# What a visitor does: it looks at the last epoch, then at the first one, and at another run.
VISIT = """
<script>
window.addEventListener("load", () => {
  const shares = () => [...document.querySelectorAll("#histogram rect")].map(b => +b.dataset.share);
  const seen = {last: [shown.value, shares()]};
  epoch.value = 0;
  epoch.dispatchEvent(new Event("input"));
  seen.first = [shown.value, shares()];
  run.selectedIndex = 1;
  run.dispatchEvent(new Event("change"));
  seen.other = [run.value, shares()];
  seen.pictures = [...document.images].map(image => image.naturalWidth > 0);
  seen.files = [...document.querySelectorAll("a[download]")].map(a => [a.download, a.href]);
  seen.requests = performance.getEntriesByType("resource").map(entry => entry.name);
  const output = document.createElement("output");
  output.id = "seen";
  output.textContent = JSON.stringify({...seen, errors});
  document.body.append(output);
});
</script>
"""
ERRORS = "<script>const errors = []; window.onerror = text => { errors.push(text); };</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of which one segment has failed, with its page."""
    root = tmp_path_factory.mktemp("page")
    rsv = {"layers": ["trunk.conv"], "samples": 16, "pairs": 2, "every_n_epochs": 1}
    fields = {"windows": {"removal": [0, 2], "epochs_after": 1}, "seeds": [0, 1]}
    study, plan = planned(root, fields, {"trainer.callbacks.0.init_args": rsv})
    stem = max(plan.segments.values(), key=lambda one: one.stop * (one.window == (0, 2)))
    broken = study.segment(stem.name)
    broken.path.mkdir(parents=True)
    broken.error.write_text("a <b>reason</b> & its way out\n")
    work(study)
    command = ["study", "report", str(root / "small.yaml"), "--output", str(study.path)]
    assert main([*command, "--html"]) == 0
    return study.path


def test_it_holds_everything_and_asks_for_nothing(folder: Path):
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page) and "@import" not in page
    assert "a &lt;b&gt;reason&lt;/b&gt; &amp; its way out" in page
    assert "[failed]" in page and "[done]" in page
    for key in ("val/accuracy", "train/loss", "rsv/trunk.conv/mean"):
        assert f"<summary>{key}</summary>" in page
    files = dict(re.findall(r'download="([^"]+)" href="data:text/csv;base64,([^"]+)"', page))
    assert {"results.csv", "curve.csv", "rsv.csv"} <= set(files)
    for name, content in files.items():
        assert base64.b64decode(content) == (folder / name).read_bytes()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_visit(folder: Path, tmp_path: Path):
    page = (folder / "report.html").read_text(encoding="utf-8")
    visited = tmp_path / "visited.html"
    visited.write_text(page.replace("<head>", f"<head>{ERRORS}").replace("</body>", VISIT))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path}", "--virtual-time-budget=5000", visited.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    (text,) = re.findall(r'<output id="seen">(.*?)</output>', shown)
    seen: dict[str, Any] = json.loads(unescape(text))
    assert seen["errors"] == [] and seen["requests"] == []
    assert len(seen["pictures"]) > 5 and all(seen["pictures"])
    (table,) = re.findall(r'id="histograms">(.*?)</script>', page, re.DOTALL)
    histograms = json.loads(table)
    first, second, *_ = histograms
    of = histograms[first]["trunk.conv"]
    assert seen["last"] == [str(of["epochs"][-1]), of["shares"][-1]]
    assert seen["first"] == ["0", of["shares"][0]] and seen["first"][1] != seen["last"][1]
    assert seen["other"] == [second, histograms[second]["trunk.conv"]["shares"][-1]]
    np.testing.assert_allclose(np.sum(of["shares"], axis=1), 1, atol=1e-4)
    for name, source in seen["files"]:
        assert base64.b64decode(source.partition(",")[2]) == (folder / name).read_bytes()


def test_a_study_without_a_finished_run_has_a_page_too(tmp_path: Path, capsys: Any):
    study, _ = planned(tmp_path, {"windows": {"removal": [1], "epochs_after": 1}})
    page = tmp_path / "here.html"
    command = ["study", "report", str(tmp_path / "small.yaml"), "--output", str(study.path)]
    assert main([*command, "--html", str(page)]) == 0
    assert capsys.readouterr().out == f"Wrote {page}, which opens without a network.\n"
    assert "0 of 2 runs" in page.read_text() and "[missing]" in page.read_text()
    for name, sentence in (
        ("small.yaml", "must end in .html, as it is written over."),
        ("none/here.html", f"{tmp_path / 'none'} is no folder that can be written to."),
    ):
        assert main([*command, "--html", str(tmp_path / name)]) == 2
        assert capsys.readouterr().err.endswith(f"{sentence}\n")
