select
    id as user_id,
    email,
    nullif(display_name, '') as display_name,
    country,
    is_subscribed,
    credit,
    created_at,
    updated_at,
    _deleted_at as deleted_at
from {{ source('web', 'raw_users') }}
