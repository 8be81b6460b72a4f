"""Selection of the best group by its validation metric, and how much of its value is owed to that."""

from collections.abc import Hashable, Mapping, Sequence

from litlab.compare.data_model import Group, Selection, best_group
from litlab.compare.unit_values import UnitValues, unit_means
from litlab.runs.metrics import Metric
from litlab.statistics.selection import selection_bias
from litlab.statistics.student_t import finite


def select_best(
    groups: Sequence[Group], by_unit: Mapping[str, UnitValues], metric: Metric, test_metric: Metric
) -> Selection | None:
    """Describe the selection of the best group; None if fewer than two have a value.

    Args:
        groups: All groups.
        by_unit: Name of a group -> values of its seeds or folds.
        metric: Compared metric.
        test_metric: The same quantity on the test split.
    """
    assert metric.mode is not None
    best = best_group(groups, metric.mode)
    rest = best_group([group for group in groups if group is not best], metric.mode)
    if best is None or best.value is None or rest is None or rest.value is None:
        return None
    valued = [group for group in groups if group.value is not None]
    means: list[dict[Hashable, float]] = [
        dict[Hashable, float](unit_means(by_unit[group.name]).items()) or {None: group.value.mean}
        for group in valued
        if group.value
    ]
    bias = selection_bias(means, is_max=metric.mode == "max")
    test = best.test.get(test_metric.name)
    return Selection(
        group=best.name,
        num_groups=len(valued),
        lead=finite(abs(best.value.mean - rest.value.mean)),
        value_bias=None if bias is None else bias.value,
        lead_bias=None if bias is None else bias.lead,
        test=None if test is None else test.mean,
    )
