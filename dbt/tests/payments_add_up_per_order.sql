with paid as (

    select
        order_id,
        sum(amount) as amount
    from {{ ref('stg_payments') }}
    group by order_id

)

select
    coalesce(orders.order_id, paid.order_id) as order_id,
    orders.amount as amount_of_order,
    paid.amount as amount_of_payments
from {{ ref('orders') }} as orders
full outer join paid
    on orders.order_id = paid.order_id
where
    orders.order_id is null
    or orders.amount <> coalesce(paid.amount, 0)
    or orders.amount <> {% for method in payment_methods() -%}
        orders.{{ method }}_amount{{ ' + ' if not loop.last }}
    {%- endfor %}
