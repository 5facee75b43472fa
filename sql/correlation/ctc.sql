-- Category-wise target-aware correlation (paper, Eq. 1), of all target categories at once.
-- Inputs: rows (target_category, label, history_length, history_category, history_place), one row a
-- target; history_place is a behaviour's position or its interval bin. Padding is not looked at.
-- Grain: one row a target's category, behaviour's category that occurs with it, and place; a pair
-- that is not here never occurs, and tells nothing of the label: 0 bits.
-- The event is that at least one behaviour of the category stands at the place, so one that occurs
-- several times in a bin counts once. Where a history has no such place the event did not happen.
-- Parameters: $places, the last place; $repeats, whether a place may hold several behaviours of a
-- history (a bin may, a position never does, and to look for them takes most of the time);
-- $missing, what stands for a count of 0: 0, or as in the released script 1e-5. Margins are sums of
-- the counts so mended, and 0 log 0 is 0.
with

zipped as (
    select
        target_category,
        label,
        list_zip(
            history_category[1:history_length], history_place[1:history_length]
        ) as behaviours
    from rows
),

cells as (
    select
        target_category,
        label,
        unnest(
            case when $repeats then list_distinct(behaviours) else behaviours end
        ) as cell
    from zipped
),

counted as (
    select
        target_category,
        cell[1]::integer as category,
        cell[2]::integer as place,
        count(*) as present,
        count(*) filter (where label = 1) as present_positives
    from cells
    where cell[2] <= $places
    group by all
),

totals as (
    select
        target_category,
        count(*) as targets,
        count(*) filter (where label = 1) as positives
    from rows
    group by target_category
),

pairs as (
    select distinct
        target_category,
        category
    from counted
),

places as (
    select unnest(range(1, $places + 1))::integer as place
),

filled as (
    select
        pairs.target_category,
        pairs.category,
        places.place,
        totals.targets,
        totals.positives,
        coalesce(counted.present, 0) as present,
        coalesce(counted.present_positives, 0) as present_positives
    from pairs
    cross join places
    inner join totals on pairs.target_category = totals.target_category
    left join counted
        on
            pairs.target_category = counted.target_category
            and pairs.category = counted.category
            and places.place = counted.place
),

-- n_<event><label>
joint as (
    select
        *,
        greatest(present_positives, $missing)::double as n_11,
        greatest(present - present_positives, $missing)::double as n_10,
        greatest(positives - present_positives, $missing)::double as n_01,
        greatest(
            targets - positives - present + present_positives, $missing
        )::double as n_00
    from filled
),

terms as (
    select
        *,
        n_11 + n_10 + n_01 + n_00 as n,
        coalesce(
            n_11 * log2(nullif(n_11, 0) * n / ((n_11 + n_10) * (n_11 + n_01))), 0
        ) as of_11,
        coalesce(
            n_10 * log2(nullif(n_10, 0) * n / ((n_11 + n_10) * (n_10 + n_00))), 0
        ) as of_10,
        coalesce(
            n_01 * log2(nullif(n_01, 0) * n / ((n_01 + n_00) * (n_11 + n_01))), 0
        ) as of_01,
        coalesce(
            n_00 * log2(nullif(n_00, 0) * n / ((n_01 + n_00) * (n_10 + n_00))), 0
        ) as of_00
    from joint
),

final as (
    select
        target_category,
        category,
        place,
        targets,
        positives,
        present,
        present_positives,
        -- Rounding may leave a hair below 0.
        greatest((of_11 + of_10 + of_01 + of_00) / n, 0) as bits
    from terms
)

select *
from final
order by target_category, category, place
