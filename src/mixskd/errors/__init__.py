"""Errors that a person can act on, how a process ends after one, and text made safe to show."""

from mixskd.errors.text import first_line as first_line
from mixskd.errors.user_error import UserError as UserError
from mixskd.errors.user_error import check_positive as check_positive
from mixskd.errors.user_error import exit_code as exit_code
from mixskd.errors.user_error import nearest as nearest
from mixskd.errors.user_error import unknown as unknown
