"""The name of :mod:`mixskd.data.needs` in version 0.1, which plugins import."""

from mixskd.data.needs import DataNeeds as DataNeeds
from mixskd.data.needs import take as take
