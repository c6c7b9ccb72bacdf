"""The files of other projects are those that were stated, and nothing else lies beside them."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

from tests import vendor


def test_each_file_has_the_digest_that_is_stated():
    told = {
        name: file["sha256"] for one in vendor.packages() for name, file in one["files"].items()
    }
    lying = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in vendor.FOLDER.iterdir()
        if path != vendor.INDEX
    }
    assert lying == told


def test_each_package_states_version_licence_and_its_own_licence_text():
    for package in vendor.packages():
        assert package["version"]
        assert package["licence"]
        assert any("LICENSE" in name for name in package["files"])


def test_a_package_with_another_digest_is_refused_and_nothing_is_written(tmp_path, monkeypatch):
    archive = tmp_path / "x.tgz"
    with tarfile.open(archive, "w:gz") as opened:
        entry = tarfile.TarInfo("package/x.js")
        entry.size = 3
        opened.addfile(entry, io.BytesIO(b"bad"))
    package = {
        "package": "x", "version": "1", "licence": "MIT", "integrity": "sha512-other",
        "files": {"x.js": {"from": "package/x.js", "sha256": "0" * 64}},
    }  # fmt: skip
    before = sorted(path.name for path in vendor.FOLDER.iterdir())
    with pytest.raises(SystemExit, match="must have the digest"):
        vendor.take(package, archive)
    package["integrity"] = vendor.integrity_of(archive.read_bytes())
    with pytest.raises(SystemExit, match=r"x\.js of x@1"):
        vendor.take(package, archive)
    assert sorted(path.name for path in vendor.FOLDER.iterdir()) == before
