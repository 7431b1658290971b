"""Methods and backbones of other installed packages."""

from functools import cache
from importlib.metadata import entry_points

from mixskd.errors import UserError

GROUP = "mixskd.plugins"


def has_plugins() -> bool:
    """Whether an installed package names such modules; none is imported."""
    return bool(entry_points(group=GROUP))


@cache
def load_plugins() -> None:
    """Import, once, each module that an installed package names in the entry-point group ``mixskd.plugins``.

    On import it puts its names into ``METHODS`` and ``BACKBONES``. Raises UserError for one that cannot be imported.
    """
    for plugin in entry_points(group=GROUP):
        try:
            plugin.load()
        except Exception as error:
            package = plugin.dist.name if plugin.dist else plugin.name
            raise UserError(
                f"the plugin {plugin.value} of the package {package} does not load ({type(error).__name__}: {error}); "
                "repair the package or uninstall it"
            ) from error
