# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options of kvm_bridge, computed from its table."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils._node.bridge import BRIDGES, BRIDGES_TOLD
from ansible_collections.anfitrion.kvm.plugins.plugin_utils._documentation import fragment, info_fragment


class ModuleDocFragment:
    DOCUMENTATION: str = fragment(BRIDGES)
    INFO: str = info_fragment(BRIDGES_TOLD)
