"""The views of information_schema that our clients ask, made from the catalog when they are asked for."""

from __future__ import annotations

import re

from tests.support.databricks_standin.engine import Session, quoted

_EMPTY = {
    "table_tags": "catalog_name schema_name table_name tag_name tag_value",
    "column_tags": "catalog_name schema_name table_name column_name tag_name tag_value",
    "column_masks": "catalog_name schema_name table_name column_name mask_name using_columns table_catalog table_schema"
    " mask_col_usage",
    "row_filters": "table_catalog table_schema table_name filter_name target_columns",
    "key_column_usage": "constraint_catalog constraint_schema constraint_name table_catalog table_schema table_name"
    " column_name ordinal_position position_in_unique_constraint",
    "table_constraints": "constraint_catalog constraint_schema constraint_name table_catalog table_schema table_name"
    " constraint_type",
    "referential_constraints": "constraint_catalog constraint_schema constraint_name unique_constraint_catalog"
    " unique_constraint_schema unique_constraint_name",
}
"""Views that hold what the stand-in does not know; they are there and empty."""

_NAME = re.compile(r"(`?\w+`?\.)?`?information_schema`?\.(`?\w+`?)", re.I)


def replaced(session: Session, sql: str) -> str:
    """The statement with a temporary view in the place of each view of information_schema."""

    def view(found: re.Match[str]) -> str:
        catalog = (found[1] or "").strip("`.").lower() or session.path("x.y")[0]
        return _view(session, catalog, found[2].strip("`").lower())

    return _NAME.sub(view, sql)


def mentioned(sql_without_literals: str) -> bool:
    """Whether a statement asks information_schema."""
    return bool(_NAME.search(sql_without_literals))


def _view(session: Session, catalog: str, name: str) -> str:
    engine = session.engine
    catalogs = engine.catalogs if catalog == "system" else [catalog]
    relations = [(each, *relation) for each in catalogs for relation in engine.relations(each)]
    if name in _EMPTY:
        frame = session.rows([], ", ".join(f"{column} string" for column in _EMPTY[name].split()))
    elif name == "tables":
        rows = [
            (where, schema, table, kind, None if kind == "VIEW" else provider.upper(), "standin", comment)
            for where, schema, table, kind, provider, comment in relations
        ]
        frame = session.rows(
            rows,
            "table_catalog string, table_schema string, table_name string, table_type string,"
            " data_source_format string, table_owner string, comment string",
        ).selectExpr(
            "*",
            "current_timestamp() AS created",
            "current_timestamp() AS last_altered",
            "table_owner AS created_by",
            "table_owner AS last_altered_by",
            "CAST(null AS string) AS storage_path",
            "'YES' AS is_insertable_into",
        )
    elif name == "views":
        views = [
            (where, schema, table, engine.view_text([where, schema, table]))
            for where, schema, table, kind, *_ in relations
            if kind == "VIEW"
        ]
        columns = "table_catalog string, table_schema string, table_name string, view_definition string"
        frame = session.rows(views, columns)
    elif name == "schemata":
        schemas = [
            (each, row[0]) for each in catalogs for row in session.spark.sql(f"SHOW SCHEMAS IN `{each}`").collect()
        ]
        frame = session.rows(schemas, "catalog_name string, schema_name string")
    elif name == "columns":
        frame = _columns(session, relations)
    else:
        raise ValueError(f"[TABLE_OR_VIEW_NOT_FOUND] the stand-in has no information_schema.{name}")
    view = f"__information_schema_{catalog}_{name}"
    frame.createOrReplaceTempView(view)
    return view


def _columns(session: Session, relations: list[tuple[str, ...]]):
    rows = []
    for catalog, schema, table, *_ in relations:
        for place, field in enumerate(session.spark.table(quoted([catalog, schema, table])).schema):
            kind = field.dataType.simpleString()
            numbers = (getattr(field.dataType, name, None) for name in ("precision", "scale"))
            comment = (field.metadata or {}).get("comment")
            nullable = "YES" if field.nullable else "NO"
            rows.append(
                (catalog, schema, table, field.name, place, kind.upper(), kind, comment, nullable, None, *numbers)
            )
    return session.rows(
        rows,
        "table_catalog string, table_schema string, table_name string, column_name string, ordinal_position int,"
        " data_type string, full_data_type string, comment string, is_nullable string, column_default string,"
        " numeric_precision int, numeric_scale int",
    )
