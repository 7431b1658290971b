"""The settings of an experiment: dataclasses, their conversion from text, recipes and grids. It imports no torch."""

from mixskd.config.conversion import convert as convert
from mixskd.config.data import DataConfig as DataConfig
from mixskd.config.experiment import NOT_COMPARED as NOT_COMPARED
from mixskd.config.experiment import Experiment as Experiment
from mixskd.config.experiment import MethodChoice as MethodChoice
from mixskd.config.experiment import difference as difference
from mixskd.config.experiment import known_keys as known_keys
from mixskd.config.experiment import to_dict as to_dict
from mixskd.config.experiment import to_yaml as to_yaml
from mixskd.config.merging import flatten as flatten
from mixskd.config.merging import merge as merge
from mixskd.config.optim import OptimConfig as OptimConfig
from mixskd.config.run import RunConfig as RunConfig
from mixskd.config.yaml_file import read_yaml as read_yaml
