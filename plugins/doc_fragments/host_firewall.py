# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options of kvm_host_firewall, computed from its table."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils._node.host_firewall import HOST
from ansible_collections.anfitrion.kvm.plugins.plugin_utils._documentation import fragment, info_fragment


class ModuleDocFragment:
    DOCUMENTATION: str = fragment(HOST)
    INFO: str = info_fragment(HOST)
