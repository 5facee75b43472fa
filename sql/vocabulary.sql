-- Vocabulary of one field: every value with its id and how often it occurs.
-- Inputs: counted (value, count), one row a value and summary, so a value may stand several times.
-- Grain: one row a value. Ids follow from $first_id in sorted order; text sorts by bytes.
-- Parameters: $first_id
with

merged as (
    select
        value,
        sum("count")::bigint as "count"
    from counted
    where value is not null
    group by value
),

final as (
    select
        value,
        (row_number() over (order by value) + $first_id - 1)::integer as id,
        "count"
    from merged
)

select *
from final
order by id
