{# A model's schema is the one it is configured with: `marts`, not `<target schema>_marts`.
   A developer sets DBT_SCHEMA_PREFIX to build beside the others: `anna_marts`. Sources are never prefixed. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- set prefix = env_var('DBT_SCHEMA_PREFIX', '') | trim -%}
    {%- set name = (custom_schema_name or target.schema) | trim -%}
    {{ prefix ~ '_' ~ name if prefix else name }}
{%- endmacro %}
