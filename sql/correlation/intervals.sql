-- How long before the target behaviours stand, by powers of two of a second.
-- Inputs: rows (target_time, history_length, history_time), one row a target.
-- Grain: one row an octave: whole seconds from 2^octave up to below 2^(octave + 1); octave -1 holds
-- those of 0 seconds. An octave without behaviours has no row.
-- Parameters: $in_a_second, how many units of the times are in a second.
with

intervals as (
    select (target_time - unnest(history_time[1:history_length])) // $in_a_second as seconds
    from rows
),

final as (
    select
        coalesce(floor(log2(nullif(seconds, 0))), -1)::integer as octave,
        count(*) as behaviours
    from intervals
    group by octave
)

select *
from final
order by octave
