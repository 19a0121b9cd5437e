select
    site,
    sku,
    on_hand,
    reserved,
    on_hand - reserved as available,
    unit_cost,
    is_orderable,
    counted_at,
    _loaded_at as read_at
from {{ source('web', 'raw_inventory') }}
