select
    orders.order_id,
    orders.customer_id,
    orders.order_date,
    orders.status,
    {%- for method in payment_methods() %}
    cast(coalesce(payments.{{ method }}_amount, 0) as decimal(16, 2)) as {{ method }}_amount,
    {%- endfor %}
    cast(coalesce(payments.amount, 0) as decimal(16, 2)) as amount
from {{ ref('stg_orders') }} as orders
left join {{ ref('int_order_payments') }} as payments
    on orders.order_id = payments.order_id
