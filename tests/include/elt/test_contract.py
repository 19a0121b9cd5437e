"""Contracts: the shape of the raw tables as dbt's sources say it, complete and unmistakable."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.elt.contract import TYPES, Column, Contract, read_contracts
from include.elt.errors import ContractError

SOURCE = """
sources:
  - name: shop
    schema: raw
    tables:
      - name: orders
        columns:
          - {name: id, data_type: bigint}
          - {name: total, data_type: "DECIMAL( 10, 2 )", description: text}
          - {name: note, data_type: String, data_tests: [not_null]}
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def read(models: Path, text: str | bytes, name: str = "sources.yml") -> dict[str, Contract]:
    file = models / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_contracts(models.parent)


def test_a_contract_is_read(models: Path) -> None:
    (contract,) = read(models, SOURCE, "staging/shop/sources.yml").values()
    assert (contract.table, contract.dbt_source) == ("raw.orders", "shop.orders")
    assert contract.columns == (Column("id", "bigint"), Column("total", "decimal(10,2)"), Column("note", "string"))
    assert contract.names == ("id", "total", "note")
    assert contract.file == models / "staging" / "shop" / "sources.yml"


def test_the_schema_is_the_source_s_name_and_the_table_has_its_identifier_where_given(models: Path) -> None:
    text = SOURCE.replace("    schema: raw\n", "").replace(
        "name: orders", "name: orders\n        identifier: orders_v2"
    )
    (contract,) = read(models, text).values()
    assert (contract.table, contract.dbt_source) == ("shop.orders_v2", "shop.orders")


def test_files_without_sources_do_not_matter(models: Path) -> None:
    (models / "models.yaml").write_text("models: [{name: x}]\n")
    (models / "empty.yml").write_text("# nothing\n")
    assert set(read(models, SOURCE)) == {"raw.orders"}


def test_yaml_may_end_in_yaml(models: Path) -> None:
    assert set(read(models, SOURCE, "a.yaml")) == {"raw.orders"}


@pytest.mark.parametrize(
    ("given", "data_type"),
    [
        *((name, name) for name in TYPES if "(" not in name),
        ("BIGINT", "bigint"),
        ("Decimal(38,38)", "decimal(38,38)"),
        ("decimal(1,0)", "decimal(1,0)"),
        ("varchar(1)", "varchar(1)"),
        ("VARCHAR ( 255 )", "varchar(255)"),
    ],
)
def test_types_have_one_spelling(models: Path, given: str, data_type: str) -> None:
    (contract,) = read(models, SOURCE.replace("bigint", f'"{given}"')).values()
    assert contract.columns[0].data_type == data_type


@pytest.mark.parametrize(
    "given",
    [
        *(
            "text",
            "float",
            "real",
            "numeric",
            "datetime",
            "timestamptz",
            "json",
            "",
            "decimal",
            "decimal(10)",
            "varchar",
        ),
        *(
            "decimal(39,0)",
            "decimal(0,0)",
            "decimal(5,6)",
            "varchar(0)",
            "varchar(x)",
            "array<int>",
            "int)",
            "bigint; drop",
        ),
    ],
)
def test_another_type_is_refused(models: Path, given: str) -> None:
    with pytest.raises(ContractError) as caught:
        read(models, SOURCE.replace("bigint", f'"{given}"'))
    message = str(caught.value)
    assert "sources.yml: raw.orders: column id has data_type" in message
    assert "decimal(p,s)" in message


FAULTS: dict[str, tuple[str, str, str]] = {
    "no data_type": (", data_type: bigint", "", "raw.orders: column id has no data_type; allowed: "),
    "column twice": ("name: note", "name: id", "raw.orders: column id is there twice"),
    "capitals": ("name: id", "name: Id", "column 'Id': a column name is lower case"),
    "space": ("name: id", 'name: "my id"', "column 'my id'"),
    "quote": ("name: id", "name: 'i\"d'", "a column name is lower case"),
    "digit first": ("name: id", "name: 1st", "column '1st'"),
    "no name": ("{name: id,", "{", "column ''"),
    "no columns": ("columns:", "data_tests:", "raw.orders: no columns"),
    "table without name": ("- name: orders", "- description: x", "not as dbt writes its sources"),
    "source without name": ("- name: shop", "- description: x", "not as dbt writes its sources"),
    "column as text": ("{name: id, data_type: bigint}", "id", "not as dbt writes its sources"),
    "not YAML": ("sources:", "sources: [", "not YAML"),
    "tab": ("  - name: shop", "\t- name: shop", "not YAML"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_contract_is_refused_where_it_is_faulty(models: Path, fault: str) -> None:
    old, new, message = FAULTS[fault]
    assert old in SOURCE
    with pytest.raises(ContractError) as caught:
        read(models, SOURCE.replace(old, new, 1))
    assert str(models / "sources.yml") in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["- a", "text", "sources: text", b"\xff\xfe\x00"], ids=repr)
def test_something_else_than_sources_is_refused(models: Path, text: str | bytes) -> None:
    with pytest.raises(ContractError, match=r"sources\.yml: not "):
        read(models, text)


def test_a_table_declared_twice_names_both_files(models: Path) -> None:
    (models / "a.yml").write_text(SOURCE)
    with pytest.raises(ContractError, match=r"b\.yml: raw\.orders: already declared in .*a\.yml"):
        read(models, SOURCE.replace("name: shop", "name: other"), "b.yml")


def test_a_table_declared_twice_in_one_file(models: Path) -> None:
    with pytest.raises(ContractError, match=r"raw\.orders: already declared in .*sources\.yml"):
        read(models, SOURCE + SOURCE.replace("\nsources:\n", ""))


def test_the_schema_hash_follows_names_types_and_order(models: Path) -> None:
    def digest(text: str) -> str:
        return read(models, text)["raw.orders"].schema_hash

    same, *others = [
        digest(SOURCE.replace("description: text", "description: other")),
        digest(SOURCE.replace("name: note", "name: notes")),
        digest(SOURCE.replace("bigint", "int")),
        digest(
            SOURCE.replace("name: id", "name: x").replace("name: note", "name: id").replace("name: x", "name: note")
        ),
    ]
    assert same == digest(SOURCE)
    assert len({same, *others}) == 4
    assert len(same) == 16


def test_the_shipped_contracts_are_right() -> None:
    contracts = read_contracts()
    assert {"raw.raw_customers", "raw.raw_orders", "raw.raw_payments"} <= set(contracts)
    assert contracts["raw.raw_orders"].names == ("id", "user_id", "order_date", "status")
