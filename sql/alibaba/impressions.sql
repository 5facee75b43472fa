-- One bucket's impressions with ids for values, ordered as their histories are.
-- Inputs: impressions (row, user, time, ad, pid, label), as parsed; users and pids (value, id),
-- vocabularies; ads (raw, place), where each ad stands in the table of ads.
-- Grain: one row an impression. Order: user, time, then the line. A missing pid is unknown.
-- Parameters: $unknown_id
with

final as (
    select
        impressions.row,
        users.id as "user",
        impressions.time,
        ads.place as ad_place,
        coalesce(pids.id, $unknown_id)::integer as pid,
        impressions.label
    from impressions
    inner join users on impressions."user" = users.value
    inner join ads on impressions.ad = ads.raw
    left join pids on impressions.pid = pids.value
)

select *
from final
order by "user", time, row
