# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What every module of the collection can do besides its work."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION: str = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: Can run in check mode and tell what the real run then does, without touching anything.
  diff_mode:
    support: full
    description: Tells what changes, before and after, by the names of the options.
  platform:
    support: full
    platforms: linux
    description: Systems that the module manages.
"""

    # For a module that only reads.
    INFO: str = r"""
options: {}
attributes:
  diff_mode:
    support: N/A
    details: It changes nothing.
"""
