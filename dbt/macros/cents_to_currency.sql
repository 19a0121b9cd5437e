{# Whole cents as an amount with two decimals. Multiplying keeps it exact: DuckDB divides decimals as floats. #}
{% macro cents_to_currency(column) -%}
    cast({{ column }} * 0.01 as decimal(16, 2))
{%- endmacro %}
