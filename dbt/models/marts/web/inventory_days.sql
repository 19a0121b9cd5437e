with readings as (

    select
        cast(read_at as date) as day,
        site,
        sku,
        on_hand,
        available,
        unit_cost,
        row_number() over (
            partition by site, sku, cast(read_at as date)
            order by read_at desc nulls last
        ) as newest
    from {{ ref('stg_inventory') }}

)

select
    day,
    site,
    sku,
    on_hand,
    available,
    cast(on_hand * unit_cost as decimal(18, 4)) as stock_value,
    on_hand - lag(on_hand) over (
        partition by site, sku
        order by day nulls last
    ) as change
from readings
where newest = 1
