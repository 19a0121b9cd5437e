select
    id as event_id,
    user_id,
    kind,
    {{ json_text('payload', 'page') }} as page,
    cast({{ json_text('payload', 'amount') }} as decimal(12, 2)) as amount,
    occurred_at,
    ingested_at
from {{ source('web', 'raw_events') }}
