import json
import struct
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from ratchet.cli import app
from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.store import EventStore
from tests.analyze.monitoring import charted_store

TIMES = ("--since", "2026-06-01", "--until", "2026-07-01")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    store = EventStore.open(f"sqlite:///{folder / 'store.db'}")
    charted_store.fill(store)
    store.close()
    return folder


@pytest.fixture
def ratchet(home, tmp_path, monkeypatch):
    """Run `ratchet chart` in an empty folder and return what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_HOME", str(home))

    def run(*arguments):
        done = CliRunner().invoke(app, ["chart", *arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    return run


def test_a_chart_says_center_limits_points_signals_and_releases(ratchet, tmp_path):
    said = ratchet("thumbs-down", *TIMES)
    lines = {line.split("  ")[0]: line for line in said.splitlines()}
    assert "thumbs_down_rate: thumbs down, Laney's p' chart, a point a day" in said
    assert "22.81 %" in lines["center"]  # (7 * 10 + 7 * 11 + 6 * 12) of 20 * 48 = 219 of 960
    assert "from the first 20 points" in lines["limits"]
    assert "a false alarm about every 370 points" in said
    assert "30 from 2026-06-01 00:00 to 2026-06-30 00:00, 1,440 observations" in lines["points"]
    assert (
        "signals  above, outside the limits: 5 points from 2026-06-21 00:00 to 2026-06-25 00:00; "
        "since 2026-06-21 00:00"
    ) in said
    assert "release  2026-06-21 00:00  router/2" in said
    assert "release  2026-06-26 00:00  back to router/1" in said
    png = (tmp_path / "thumbs-down-rate.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert struct.unpack(">II", png[16:24])[0] == 1_500


def test_json_holds_every_point_with_its_limits(ratchet, tmp_path):
    found = json.loads(ratchet("thumbs-down", *TIMES, "--json", "--out", "chart.svg"))
    (chart,) = found["charts"]
    assert (found["signal"], found["unit"], found["points"]) == ("thumbs_down_rate", "share", "day")
    assert found["file"] == "chart.svg"
    assert chart["center"] == pytest.approx(219 / 960)
    assert len(chart["points"]) == 30
    assert chart["points"][21]["value"] == pytest.approx(30 / 48)
    assert chart["points"][0]["start"] == "2026-06-01T00:00:00+00:00"
    assert [one["at"][:10] for one in chart["signals"]] == [f"2026-06-{21 + n}" for n in range(5)]
    for point in chart["points"]:
        outside = not point["lower"] <= point["value"] <= point["upper"]
        assert outside == (point["start"] in {one["at"] for one in chart["signals"]})
    assert [one["version"] for one in found["releases"]] == [
        "router/1", "router/2", "back to router/1",
    ]  # fmt: skip
    ElementTree.parse(tmp_path / "chart.svg")


@pytest.mark.mostly_slow("p", "cusum")
@pytest.mark.parametrize("kind", ["p", "laney-p", "u", "xmr", "ewma", "cusum"])
def test_every_kind_finds_the_bad_release(ratchet, kind):
    found = json.loads(ratchet("copy", *TIMES, "--kind", kind, "--json"))
    (chart,) = found["charts"]
    assert chart["kind"] == kind
    assert chart["signals"][0]["at"][:10] in ("2026-06-21", "2026-06-22")
    assert chart["signals"][0]["side"] == "below"


def test_a_longer_run_length_makes_wider_limits(ratchet):
    limits = [
        json.loads(ratchet("copy", *TIMES, "--json", "--run-length", wanted))["charts"][0][
            "limit_sigmas"
        ]
        for wanted in ("50", "370", "20000")
    ]
    assert limits == sorted(limits)
    assert limits[0] < limits[2] - 0.5


def test_each_segment_is_charted_and_a_version_with_little_data_says_what_is_missing(ratchet):
    segments = ratchet("copy", *TIMES, "--by", "segment")
    assert segments.count("center ") == 2
    assert "\napp\n" in segments
    assert "\nweb\n" in segments
    versions = ratchet("copy", *TIMES, "--by", "version")
    assert "\nrouter/1\n" in versions
    assert "no chart of router/2: a chart of copy_rate of router/2 needs at least 8" in versions


def test_what_clients_said_tells_charts_apart(ratchet):
    def observed(by):
        found = json.loads(ratchet("copy", *TIMES, "--by", by, "--json"))
        return {
            one["of"]: sum(point["observations"] for point in one["points"])
            for one in found["charts"]
        }

    # half of 48 answers a day for 30 days; without an application it is the segment
    assert observed("prompt-version") == {"v1": 720, "(none)": 720}
    assert observed("application") == {"shop": 720, "app": 720}


def test_one_version_alone_can_be_charted(ratchet):
    found = json.loads(ratchet("copy", *TIMES, "--version", "router/1", "--json"))
    assert len(found["charts"][0]["points"]) == 25


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["thumb-down"], InvalidInputError, "did you mean thumbs_down_rate? The signals are"),
        (["copy", *TIMES, "--out", "x.pdf"], InvalidInputError, "a .png or a .svg file"),
        (["copy", *TIMES, "--out", "no/x.png"], InvalidInputError, "a folder that exists"),
        (["copy", "--since", "2026-07-01", "--until", "2026-06-01"], InvalidInputError, "swap"),
        (["judge", *TIMES], InsufficientDataError, "at least 8 days of 20 observations"),
        (["quality", *TIMES, "--kind", "u"], InvalidInputError, "take xmr, ewma or cusum"),
        (["copy", *TIMES, "--baseline", "3"], InvalidInputError, "17 points or more"),
    ],
)
def test_what_cannot_be_charted_is_refused_with_the_way_out(ratchet, arguments, error, message):
    with pytest.raises(error) as refused:
        ratchet(*arguments)
    assert message in str(refused.value)


def test_a_home_without_a_store_is_refused_and_none_is_made(ratchet, tmp_path, monkeypatch):
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "empty"))
    with pytest.raises(InvalidInputError, match="got none in 'empty'"):
        ratchet("copy")
    assert not (tmp_path / "empty").exists()
