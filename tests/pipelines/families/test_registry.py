"""Each row of the table of pipeline classes names the driver of that class."""

import pytest

from pipelines.catalog.keys.pipeline_classes import PIPELINE_CLASSES, PipelineClass
from pipelines.families.registry import driver_of


@pytest.mark.parametrize("row", PIPELINE_CLASSES.values(), ids=lambda row: row.name)
def test_a_row_of_the_table_names_a_driver_of_its_pipeline_class(row: PipelineClass) -> None:
    assert driver_of(row).pipeline_class.__name__ == row.name
