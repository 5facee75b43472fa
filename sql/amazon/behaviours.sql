-- One bucket's reviews with ids for values, ordered as histories need them.
-- Inputs: reviews (row, user, item, time, tie), users and items (value, id), vocabularies.
-- Grain: one row a review. Order: user, time, then tie (the line, or a hash of it), then the line.
with

encoded as (
    select
        reviews.row,
        users.id as "user",
        reviews.time,
        items.id as item,
        reviews.tie
    from reviews
    inner join users on reviews."user" = users.value
    inner join items on reviews.item = items.value
),

final as (
    select
        row,
        "user",
        time,
        item
    from encoded
    order by "user", time, tie, row
)

select *
from final
