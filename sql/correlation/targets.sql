-- How many targets each category has, those with most positives first.
-- Inputs: rows (target_category, label), one row a target.
-- Grain: one row a target's category. Ties by id.
with

final as (
    select
        target_category,
        count(*) as targets,
        count(*) filter (where label = 1) as positives
    from rows
    group by target_category
)

select *
from final
order by positives desc, target_category asc
