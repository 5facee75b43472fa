-- Ads with ids for values; of an ad with several lines the first one counts.
-- Inputs: ads (line, ad, category, campaign, customer, brand, price), as parsed; the vocabularies
-- ad_ids, category_ids, campaign_ids, customer_ids, brand_ids (value, id).
-- Grain: one row an ad, in the order of the raw number. A missing or rare value is unknown.
-- Parameters: $unknown_id
with

first_lines as (
    select *
    from ads
    qualify row_number() over (partition by ad order by line) = 1
),

final as (
    select
        first_lines.ad as raw,
        coalesce(ad_ids.id, $unknown_id)::integer as ad,
        coalesce(category_ids.id, $unknown_id)::integer as category,
        coalesce(brand_ids.id, $unknown_id)::integer as brand,
        coalesce(campaign_ids.id, $unknown_id)::integer as campaign,
        coalesce(customer_ids.id, $unknown_id)::integer as customer,
        first_lines.price
    from first_lines
    left join ad_ids on first_lines.ad = ad_ids.value
    left join category_ids on first_lines.category = category_ids.value
    left join brand_ids on first_lines.brand = brand_ids.value
    left join campaign_ids on first_lines.campaign = campaign_ids.value
    left join customer_ids on first_lines.customer = customer_ids.value
)

select *
from final
order by raw
