select
    id as cart_id,
    user_id,
    opened_at,
    items,
    value as amount
from {{ source('web', 'raw_active_carts') }}
