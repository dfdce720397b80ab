"""Files that only their names make images or videos: no program is started and no connection made for them."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import make_rows, run_djsb, write_jsonl
from tests.engine.data.test_images import EPS
from tests.engine.data.test_videos import video

MANIFEST = """<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"
 mediaPresentationDuration="PT2S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>
<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1" width="48" height="32" codecs="avc1.42c00c">
<BaseURL>{url}</BaseURL><SegmentBase indexRange="0-100"/></Representation></AdaptationSet></Period></MPD>"""


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """(its address, the paths that were asked for)."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(video())

        def log_message(self, *_: object) -> None:
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_address[1]}/a.mp4", asked
    made.shutdown()
    made.server_close()


def test_a_manifest_named_mp4_is_quarantined_and_fetches_nothing(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    url, asked = server
    (tmp_path / "ok.mp4").write_bytes(video())
    (tmp_path / "net.mp4").write_text(MANIFEST.format(url=url))
    (tmp_path / "hls.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{url}\n#EXT-X-ENDLIST\n")
    media = {3: "net.mp4", 5: "hls.mp4"}
    rows = [{"id": i, "text": f"clip {i} " + "word " * (i % 9), "videos": [media.get(i, "ok.mp4")]} for i in range(60)]
    write_jsonl(tmp_path / "d.jsonl", rows)
    fields = {"path": "../d.jsonl", "text": "text", "videos": "videos", "images": None, "id": "id"}
    ops = {"video_duration_filter": {}, "video_motion_score_filter": {}, "text_length_filter": {}}
    (tmp_path / "st").mkdir()
    study = {"name": "st", "dataset": fields, "task": None, "ops": ops}
    (tmp_path / "st" / "study.yaml").write_text(yaml.safe_dump(study))
    done = run_djsb("check", tmp_path / "st", "--workers", 1, "--json")
    assert done.returncode == 0, done.stderr
    bad = {row["row"]: row["reason"] for row in json.loads(done.stdout)["bad_rows"]}
    assert sorted(bad) == [3, 5] and all(reason.startswith("not a video file") for reason in bad.values())
    assert run_djsb("pools", tmp_path / "st", "--workers", 1).returncode == 0
    assert asked == []


def test_postscript_named_jpg_is_quarantined_and_starts_no_program(tmp_path: Path) -> None:
    rows = make_rows(tmp_path, "i", 40, 0)
    (tmp_path / "i" / "eps.jpg").write_bytes(EPS)
    rows[7]["images"] = ["i/eps.jpg"]
    write_jsonl(tmp_path / "d.jsonl", rows)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("process:\n- image_shape_filter: {min_width: 1}\n- image_aspect_ratio_filter: {min_ratio: 0.1}\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    out = tmp_path / "out.jsonl"
    done = run_djsb("apply", recipe, "--data", tmp_path / "d.jsonl", "--out", out, env=environment)
    assert done.returncode == 0, done.stderr
    assert len(out.read_text().splitlines()) == 39
    assert not (tmp_path / "started").exists()
