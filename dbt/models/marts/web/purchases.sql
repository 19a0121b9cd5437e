select
    event_id,
    user_id,
    page,
    amount,
    cast(occurred_at as timestamp) as occurred_at,
    ({{ last_change('raw.raw_events') }}) as loaded_at
from {{ ref('stg_events') }}
where
    kind = 'purchase'
    {%- if is_incremental() %}
    and {{ changed_since_built('occurred_at', 'raw.raw_events') }}
    {%- endif %}
