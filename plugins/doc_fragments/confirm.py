# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options of kvm_confirm, computed from its table."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils._node.confirm import CHANGE
from ansible_collections.anfitrion.kvm.plugins.plugin_utils._documentation import fragment


class ModuleDocFragment:
    DOCUMENTATION: str = fragment(CHANGE)
