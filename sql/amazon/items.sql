-- Reviewed items with their category; of an item with several meta lines the first one counts.
-- Inputs: reviewed (value, id), the vocabulary of items; meta (line, item, category), as parsed.
-- Grain: one row a reviewed item. The category is null where the item has none.
with

first_lines as (
    select
        item,
        arg_min(coalesce(category, ''), line) as category,
        arg_min(category is null, line) as has_none
    from meta
    group by item
),

final as (
    select
        reviewed.value as item,
        reviewed.id,
        case when first_lines.has_none then null else first_lines.category end as category
    from reviewed
    left join first_lines on reviewed.value = first_lines.item
)

select *
from final
order by id
