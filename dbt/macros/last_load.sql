{# When a raw table was last loaded, as the load itself wrote it down after its commit. #}
{% macro last_load(table) -%}
    select max(loaded_at)
    from {{ source('ops', 'load_log') }}
    where table_name = '{{ table.schema }}.{{ table.identifier }}'
{%- endmacro %}
