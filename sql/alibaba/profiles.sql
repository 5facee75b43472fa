-- Profiles with ids for values; of a user with several lines the first one counts.
-- Inputs: profiles (line, user and the profile's fields), as parsed; users (value, id), the
-- vocabulary of users with impressions; <field>_ids (value, id), a vocabulary for each field.
-- Grain: one row a profile whose user has impressions. A missing value is unknown.
-- Parameters: $unknown_id
with

first_lines as (
    select *
    from profiles
    qualify row_number() over (partition by "user" order by line) = 1
),

final as (
    select
        users.id as "user",
        coalesce(cms_segid_ids.id, $unknown_id)::integer as cms_segid,
        coalesce(cms_group_id_ids.id, $unknown_id)::integer as cms_group_id,
        coalesce(final_gender_code_ids.id, $unknown_id)::integer as final_gender_code,
        coalesce(age_level_ids.id, $unknown_id)::integer as age_level,
        coalesce(pvalue_level_ids.id, $unknown_id)::integer as pvalue_level,
        coalesce(shopping_level_ids.id, $unknown_id)::integer as shopping_level,
        coalesce(occupation_ids.id, $unknown_id)::integer as occupation,
        coalesce(new_user_class_level_ids.id, $unknown_id)::integer as new_user_class_level
    from first_lines
    inner join users on first_lines."user" = users.value
    left join cms_segid_ids on first_lines.cms_segid = cms_segid_ids.value
    left join cms_group_id_ids on first_lines.cms_group_id = cms_group_id_ids.value
    left join final_gender_code_ids on first_lines.final_gender_code = final_gender_code_ids.value
    left join age_level_ids on first_lines.age_level = age_level_ids.value
    left join pvalue_level_ids on first_lines.pvalue_level = pvalue_level_ids.value
    left join shopping_level_ids on first_lines.shopping_level = shopping_level_ids.value
    left join occupation_ids on first_lines.occupation = occupation_ids.value
    left join
        new_user_class_level_ids
        on first_lines.new_user_class_level = new_user_class_level_ids.value
)

select *
from final
order by "user"
