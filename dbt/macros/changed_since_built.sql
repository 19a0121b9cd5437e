{# What an incremental model has to read again of a raw table whose update key is a time: everything from the earliest
   update key on that a load since the last build has read. The load log says it, so a load that came late, a backfill
   and a build that was left out are all found, which the largest update key of the model itself would miss. #}
{% macro changed_since_built(update_key, table) -%}
    (
        {{ update_key }} is null
        or {{ update_key }} >= (
            select min(coalesce(cast(window_lower as timestamp), timestamp '0001-01-01 00:00:00'))
            from {{ source('ops', 'load_log') }}
            where
                {{ is_change_of(table) }}
                and loaded_at > (
                    select coalesce(max(loaded_at), timestamp '0001-01-01 00:00:00')
                    from {{ this }}
                )
        )
    )
{%- endmacro %}

{# The query that tells when a load has last changed a raw table; the column `loaded_at` of an incremental model. #}
{% macro last_change(table) -%}
    select cast(max(loaded_at) as timestamp)
    from {{ source('ops', 'load_log') }}
    where {{ is_change_of(table) }}
{%- endmacro %}

{# Condition on the load log: the load has changed rows of that raw table. Old logs do not say; they count. #}
{% macro is_change_of(table) -%}
    table_name = '{{ table }}'
    and coalesce(rows_inserted + rows_updated + rows_deleted, 1) > 0
{%- endmacro %}
