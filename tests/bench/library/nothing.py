"""A module that does nothing: what any task costs, and what its options cost."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    AnsibleModule(argument_spec={"given": {"type": "raw"}}, supports_check_mode=True).exit_json(changed=False)


if __name__ == "__main__":
    main()
