{# The ways to pay, by the code in the source, with the label that people read.
   A new one needs a line here and its columns in marts/orders.yml. #}
{% macro payment_methods() -%}
    {{ return({
        'credit_card': 'Credit card',
        'coupon': 'Coupon',
        'bank_transfer': 'Bank transfer',
        'gift_card': 'Gift card',
    }) }}
{%- endmacro %}
