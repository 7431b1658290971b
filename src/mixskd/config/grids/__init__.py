"""Named grids of ablations, as :func:`mixskd.comparison.grid.grid_from` takes them: a YAML file each, whose first lines
say what it compares.
"""

from mixskd.config.yaml_folder import YamlFolder

_grids = YamlFolder(__name__, "grid")
names, load, description = _grids.names, _grids.load, _grids.description
