with events as (

    select
        cast(occurred_at as date) as day,
        user_id,
        kind,
        amount
    from {{ ref('stg_events') }}

),

accounts as (

    select
        user_id,
        cast(created_at as date) as opened_on
    from {{ ref('stg_users') }}

)

select
    events.day,
    count(distinct events.user_id) as active_users,
    count(distinct case when accounts.opened_on = events.day then events.user_id end) as new_users,
    count(*) as events,
    count(case when events.kind = 'purchase' then 1 end) as purchases,
    cast(coalesce(sum(events.amount), 0) as decimal(16, 2)) as revenue
from events
left join accounts
    on events.user_id = accounts.user_id
group by events.day
