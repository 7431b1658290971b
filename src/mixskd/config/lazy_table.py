"""Classes by name that are imported at their first use, so that their names are known without torch."""

import pkgutil
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any


class LazyTable(MutableMapping[str, Any]):
    """A dictionary of classes; a value given as ``module:name`` is imported when it is read, and only then."""

    def __init__(self, places: Mapping[str, Any]) -> None:
        self._places = dict(places)

    def __getitem__(self, key: str) -> Any:
        place = self._places[key]
        if isinstance(place, str):
            place = self._places[key] = pkgutil.resolve_name(place)
        return place

    def __setitem__(self, key: str, value: Any) -> None:
        self._places[key] = value

    def __delitem__(self, key: str) -> None:
        del self._places[key]

    def __contains__(self, key: object) -> bool:
        return key in self._places  # the inherited one would import the class

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def class_called(self, name: str) -> Any | None:
        """The class with ``__name__ == name``; None if the table lacks it. No other class is imported."""
        for key, place in self._places.items():
            if (place.rpartition(":")[2] if isinstance(place, str) else place.__name__) == name:
                return self[key]
        return None
