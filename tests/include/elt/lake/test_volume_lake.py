"""A lake in a volume of Unity Catalog, through the Files API."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from include.elt.errors import LakeRefusedError, LoadError
from include.elt.lake import MANIFEST, open_lake
from include.elt.settings import load_settings
from tests.support.databricks_standin.running import StandIn
from tests.support.elt import Bench

pytestmark = pytest.mark.databricks_standin


def lake_of(standin: StandIn, folder: Path, login: str = "principal", volume: str = "files", **fields: Any) -> Any:
    place = f"/Volumes/main/lake/{volume}/{folder.name}"
    settings = load_settings(_env_file=None, lake=place, scratch=folder / "scratch")
    return open_lake(settings, lambda _: standin.connection(login, **fields))


@pytest.mark.parametrize("login", ["principal", "token"])
def test_an_extraction_comes_back_as_it_was(workspace: StandIn, tmp_path: Path, login: str) -> None:
    lake = lake_of(workspace, tmp_path, login)
    manifest, location = Bench(tmp_path).publish_to(lake, "SELECT 1::BIGINT AS id, 'é' AS a")
    assert location.startswith(f"/Volumes/main/lake/files/{tmp_path.name}/shop/orders/")
    assert lake.read_manifest(location) == manifest
    with lake.fetch(location, manifest) as folder:
        assert (folder / manifest.files[0].name).stat().st_size == manifest.bytes
    file = workspace.folder / location.lstrip("/") / manifest.files[0].name
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(LoadError, match="is not the file that was extracted"), lake.fetch(location, manifest):
        pass
    (workspace.folder / location.lstrip("/") / MANIFEST).unlink()
    with pytest.raises(LoadError, match="is not there; clear the extract task"):
        lake.read_manifest(location)


def test_old_extractions_go_and_their_folders_too(workspace: StandIn, tmp_path: Path) -> None:
    lake, bench = lake_of(workspace, tmp_path), Bench(tmp_path)
    locations = []
    for number in range(3):
        locations.append(bench.publish_to(lake, f"SELECT {number}::BIGINT AS id, 'x' AS a")[1])
        time.sleep(0.02)
    assert set(lake.prune("shop", "orders", 2)) == {locations[0]}
    there = workspace.folder / f"Volumes/main/lake/files/{tmp_path.name}/shop/orders"
    assert sorted(str(path) for path in there.iterdir()) == sorted(
        str(workspace.folder / each.lstrip("/")) for each in locations[1:]
    )


def test_it_is_refused_before_the_source_is_read(workspace: StandIn, tmp_path: Path) -> None:
    cases = [
        (lake_of(workspace, tmp_path, volume="nowhere"), "does not exist"),
        (lake_of(workspace, tmp_path, "token", password="dapi-wrong"), "Invalid access token"),
    ]
    for lake, says in cases:
        with pytest.raises(LakeRefusedError, match=says) as caught, lake.workplace("shop", "orders"):
            pass
        text = str(caught.value)
        assert "databricks_default" in text
        assert "\n" not in text
        assert not any(secret in text for secret in ("dapi-wrong", workspace.token, workspace.secret))
    workspace.order(files_denied=True)
    with pytest.raises(LakeRefusedError, match="WRITE VOLUME"):
        Bench(tmp_path).publish_to(lake_of(workspace, tmp_path), "SELECT 1::BIGINT AS id, 'x' AS a")
