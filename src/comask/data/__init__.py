"""Data sets, and the rules that divide them among clients."""

from comask.data.dataset import Dataset, Federation, Task
from comask.data.load import DATASETS, load_dataset
from comask.data.partition import PARTITIONS, class_table, make_federation, parse_partition, sample_labels
from comask.data.table import partition_table

__all__ = [
    "DATASETS",
    "PARTITIONS",
    "Dataset",
    "Federation",
    "Task",
    "class_table",
    "load_dataset",
    "make_federation",
    "parse_partition",
    "partition_table",
    "sample_labels",
]
