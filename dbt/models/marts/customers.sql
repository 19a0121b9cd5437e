with orders_of_customer as (

    select
        customer_id,
        min(order_date) as first_order,
        max(order_date) as most_recent_order,
        count(*) as number_of_orders,
        sum(amount) as customer_lifetime_value
    from {{ ref('orders') }}
    group by customer_id

)

select
    customers.customer_id,
    customers.first_name,
    customers.last_name,
    orders.first_order,
    orders.most_recent_order,
    coalesce(orders.number_of_orders, 0) as number_of_orders,
    cast(coalesce(orders.customer_lifetime_value, 0) as decimal(16, 2)) as customer_lifetime_value
from {{ ref('stg_customers') }} as customers
left join orders_of_customer as orders
    on customers.customer_id = orders.customer_id
