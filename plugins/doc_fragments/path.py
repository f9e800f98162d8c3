# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options of kvm_path_info, computed from its table."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.path import WAY
from ansible_collections.anfitrion.kvm.plugins.plugin_utils._documentation import info_fragment


class ModuleDocFragment:
    INFO: str = info_fragment(WAY)
