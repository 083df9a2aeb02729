"""A small study and records written by hand, for the tests of what is computed from them."""

from cli_fakes import make_record

from comask.experiments.config import RunConfig
from comask.experiments.folder import RunFolder
from comask.experiments.resolve import with_algorithm_options
from comask.experiments.results import Group, read_run

TASK = """
dataset = "fashion-mnist-mini"
model = "logistic"
clients = 4
local_steps = 2
batch_size = 8
eval_every = 1
workers = 0
precision = "float32"
"""

FILES = {
    "paper": """
order = ["tuning core", "compare core", "tuning", "compare", "effect"]

[grids]
adam = [1e-3, 3e-3]
sgd = [0.1, 0.3]

[variants.fedadam]
grid = "adam"
core = true

[variants.fedadam-ssm]
grid = "adam"
core = true

[variants."top, eps outside"]
algorithm = "fedadam-top"
grid = "adam"
family = ["sparse"]
options = { eps = 1e-8, eps_inside_sqrt = false }

[variants.fedavg]
grid = "sgd"
""",
    "tuning": f'title = "Rates"\nkind = "tuning"\nseeds = 1\nseed = 100\nrounds = 2\n{TASK}',
    "compare": f'title = "A comparison"\nkind = "comparison"\ntuning = "tuning"\nseeds = 2\nrounds = 3\ndensity = 0.1\n{TASK}',
    "effect": (
        f'title = "An effect"\nkind = "effect"\ntuning = "tuning"\nvariants = ["fedadam-ssm"]\nseeds = 2\nrounds = 2\n{TASK}\n'
        "[grid]\nlocal_steps = [1, 2]\n"
    ),
}


def write_study(folder, **changed):
    """Write the study's files; `name=text` replaces one of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**FILES, **changed}.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder


def write_run(path, accuracies, *, uplink=100, downlink=50, rounds=None, **settings):
    """Write the folder of a run whose rounds had these accuracies (None: not evaluated) and this uplink, and read it back."""
    config = RunConfig(
        **{"model": "logistic", "precision": "float32", "rounds": rounds or len(accuracies), **settings}
    )
    folder = RunFolder(path)
    folder.create(with_algorithm_options(config).to_toml(), overwrite=False)
    for number, accuracy in enumerate(accuracies, start=1):
        folder.append(
            make_record(number, accuracy=accuracy, mask=0, values=uplink, overhead=0, downlink=downlink)
        )
    folder.write_summary({"status": "finished"})
    return read_run(path)


def group(root, label, *courses, uplink=100, **settings):
    """Write one run a course, seeds counted from 0, and return them as a group."""
    runs = [
        write_run(root / label / str(seed), course, uplink=uplink, seed=seed, **settings)
        for seed, course in enumerate(courses)
    ]
    return Group(label, tuple(runs))
