"""The whole pipeline with S3 as the lake, and from files in S3: the same tables, and the secret key nowhere."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TABLES = ("raw_customers", "raw_orders", "raw_payments")


@pytest.fixture
def keys(s3: Any) -> tuple[str, str]:
    return s3.user()  # type: ignore[no-any-return]


@pytest.fixture
def bucket(deployment: Any, s3: Any) -> str:
    """A bucket with the shop's files, and a scratch folder to look into."""
    name = s3.bucket()
    for table in TABLES:
        s3.client().upload_file(str(deployment.files / f"{table}.csv"), name, f"in/shop/{table}.csv")
    (deployment.folder / "scratch").mkdir()
    deployment.settings |= {"SCRATCH": str(deployment.folder / "scratch"), "NO_PROXY": "127.0.0.1"}
    return str(name)


def assert_nowhere(secret: str, deployment: Any, log: str) -> None:
    """Neither the log nor any file, the metadata database with its XComs among them, holds the secret."""
    places = [path for path in deployment.folder.rglob("*") if path.is_file()]
    assert {"airflow.db", "warehouse.duckdb"} <= {path.name for path in places}
    for spelling in {secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]}:
        assert spelling not in log
        assert not [path for path in places if spelling.encode() in path.read_bytes()], "the secret was written down"


def test_the_shop_through_s3_is_the_shop_through_local_files(
    deployment: Any, s3: Any, bucket: str, keys: tuple[str, str], first_run: Any
) -> None:
    deployment.settings |= {
        "LAKE": f"s3://{bucket}/lake",
        "LAKE_CONNECTION": "our_lake",
        "AIRFLOW_CONN_OUR_LAKE": s3.variable(keys),
    }
    first = deployment.run()

    assert first.state == "success"
    assert deployment.checksums() == first_run[0].checksums()

    deployment.settings |= {
        "SHOP_SOURCE": "s3",
        "SHOP_S3": f"s3://{bucket}/in/shop/",
        "AIRFLOW_CONN_SHOP_S3": s3.variable(keys),
    }
    second = deployment.run()

    assert second.state == "success"
    assert deployment.checksums() == first_run[0].checksums()
    assert second.assets["raw.raw_orders"]["rows_read"] == 500
    assert not (deployment.folder / "lake").exists()
    assert not list((deployment.folder / "scratch").glob("*/*")), "something was left on the way"
    manifests = [key for key in s3.keys(bucket) if key.endswith("/manifest.json")]
    assert [key.split("/")[:3] for key in manifests] == [
        ["lake", replication, table] for replication in ("shop_files", "shop_s3") for table in TABLES
    ]
    written = [s3.object(bucket, key).value for key in s3.keys(bucket)]
    assert not [value for value in written if keys[1].encode() in value]
    assert_nowhere(keys[1], deployment, first.log + second.log)


def test_a_lake_that_lets_nobody_in_is_not_tried_again(
    deployment: Any, s3: Any, bucket: str, keys: tuple[str, str]
) -> None:
    deployment.settings |= {
        "LAKE": f"s3://{bucket}",
        "AIRFLOW_CONN_AWS_DEFAULT": s3.variable((keys[0], "wr0ng/key+of=mine")),
    }
    outcome = deployment.run(streams=["raw_orders"])

    assert outcome.tasks["shop.raw_orders.extract"] == "failed"  # and not up_for_retry
    url = f"s3://{bucket}/shop_files/raw_orders/"
    assert f"{url} through the connection aws_default: SignatureDoesNotMatch" in outcome.log
    assert "wr0ng" not in outcome.log
