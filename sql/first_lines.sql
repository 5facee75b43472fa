-- Of lines with the same key the first one.
-- Inputs: lines (key, row, ...), as parsed.
-- Grain: one row a key, in the order of the keys.
with

final as (
    select *
    from lines
    qualify row_number() over (partition by key order by row) = 1
)

select *  -- noqa: AM04
from final
order by key
