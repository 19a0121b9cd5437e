"""The sample data: what is committed is what the generator writes, and it is a consistent, varied history."""

import csv
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "include" / "sample_data"
FILES = ("raw_customers.csv", "raw_orders.csv", "raw_payments.csv")
METHODS = {"credit_card", "coupon", "bank_transfer", "gift_card"}
STATUSES = {"placed", "shipped", "completed", "return_pending", "returned"}


def generate(out: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "include.sample_data.generate", "--out", str(out), *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def read(folder: Path) -> list[list[dict[str, str]]]:
    tables = []
    for name in FILES:
        with (folder / name).open(encoding="utf-8", newline="") as file:
            tables.append(list(csv.DictReader(file)))
    return tables


def test_the_committed_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    assert generate(tmp_path).returncode == 0
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (COMMITTED / name).read_bytes(), name


def test_lines_end_in_lf_and_the_last_one_too() -> None:
    for name in FILES:
        content = (COMMITTED / name).read_bytes()
        assert b"\r" not in content
        assert content.endswith(b"\n")
        assert not content.endswith(b"\n\n")


@pytest.mark.parametrize("args", [(), ("--customers", "1", "--orders", "40"), ("--orders", "3000", "--seed", "7")])
def test_every_key_is_unique_and_every_reference_exists(tmp_path: Path, args: tuple[str, ...]) -> None:
    assert generate(tmp_path, *args).returncode == 0
    customers, orders, payments = read(tmp_path)
    for table in (customers, orders, payments):
        assert [int(row["id"]) for row in table] == list(range(1, len(table) + 1))
    assert {row["user_id"] for row in orders} <= {row["id"] for row in customers}
    assert {row["order_id"] for row in payments} <= {row["id"] for row in orders}
    assert {row["status"] for row in orders} <= STATUSES
    assert {row["payment_method"] for row in payments} <= METHODS
    assert all(int(row["amount"]) >= 0 for row in payments)


def test_rows_are_as_many_as_asked_for(tmp_path: Path) -> None:
    assert generate(tmp_path, "--customers", "7", "--orders", "1234").returncode == 0
    customers, orders, _ = read(tmp_path)
    assert (len(customers), len(orders)) == (7, 1234)


def test_the_default_history_has_every_case_a_model_must_cope_with() -> None:
    customers, orders, payments = read(COMMITTED)
    assert (len(customers), len(orders), len(payments)) == (100, 500, 638)
    assert {row["status"] for row in orders} == STATUSES
    assert {row["payment_method"] for row in payments} == METHODS

    by_order = defaultdict(list)
    for row in payments:
        by_order[row["order_id"]].append((row["payment_method"], int(row["amount"])))
    assert len(by_order) < len(orders), "an order without a payment"
    assert any(len({method for method, _ in paid}) == 3 for paid in by_order.values()), "an order paid in three ways"
    assert any(max(Counter(method for method, _ in paid).values()) > 1 for paid in by_order.values()), (
        "one method used twice"
    )
    assert any(sum(amount for _, amount in paid) == 0 for paid in by_order.values()), "an order for free"

    buyers = Counter(row["user_id"] for row in orders)
    assert 20 <= len(customers) - len(buyers) <= 40, "customers who never ordered"
    assert max(buyers.values()) >= 15, "a regular"


def test_orders_come_by_date_and_grow() -> None:
    _, orders, _ = read(COMMITTED)
    dates = [row["order_date"] for row in orders]
    assert dates == sorted(dates)
    assert "2024-01" <= dates[0] < "2024-02"
    assert "2025-12-30" <= dates[-1] <= "2025-12-31"
    years = Counter(day[:4] for day in dates)
    assert years["2025"] > 1.2 * years["2024"]


def test_what_is_recent_is_under_way_and_what_is_old_is_done() -> None:
    _, orders, _ = read(COMMITTED)
    for row in orders:
        if row["order_date"] < "2025-11-01":
            assert row["status"] in {"completed", "returned"}
        if row["order_date"] > "2025-12-28":
            assert row["status"] in {"placed", "shipped"}


def test_names_hold_what_breaks_naive_csv_and_sql() -> None:
    names = " ".join(row["first_name"] + row["last_name"] for row in read(COMMITTED)[0])
    assert {"'", ",", '"', "ß", "ễ", "美"} <= set(names)


@pytest.mark.parametrize("args", [("--customers", "0"), ("--orders", "-5"), ("--orders", "many")])
def test_a_count_that_makes_no_sense_is_refused(tmp_path: Path, args: tuple[str, ...]) -> None:
    result = generate(tmp_path, *args)
    assert result.returncode == 2
    assert args[0] in result.stderr
    assert not list(tmp_path.iterdir())
