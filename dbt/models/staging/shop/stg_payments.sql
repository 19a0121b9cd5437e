select
    id as payment_id,
    order_id,
    payment_method,
    case payment_method
        {%- for code, label in payment_methods().items() %}
        when '{{ code }}' then '{{ label }}'
        {%- endfor %}
    end as payment_method_label,
    {{ cents_to_currency('amount') }} as amount
from {{ source('shop', 'raw_payments') }}
